//! Every call that names a container or a process that is not there is answered with the codes shims know.

use anyhow::Result;
use machine::vm::AgentClient;
use protocols::agent::*;
use tests::{Code, Guest, expect_code};

/// The Go shim swallows errors with this text.
const GONE: &str = "ESRCH: No such process";

/// Puts ids into a request.
macro_rules! ids {
    ($request:ident, $container:expr) => {
        &$request { container_id: $container.into(), ..Default::default() }
    };
    ($request:ident, $container:expr, $exec:expr) => {
        &$request { container_id: $container.into(), exec_id: $exec.into(), ..Default::default() }
    };
}

#[tokio::test]
async fn a_container_that_is_not_there_is_not_found() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let (api, call) = (guest.api(), AgentClient::call);
    // The last one is no id at all: for a look-up that is the same.
    for id in ["nobody", "../x"] {
        let answers = [
            ("StartContainer", api.start_container(call(), ids!(StartContainerRequest, id)).await.map(drop)),
            (
                "RemoveContainer",
                api.remove_container(call(), ids!(RemoveContainerRequest, id)).await.map(drop),
            ),
            ("StatsContainer", api.stats_container(call(), ids!(StatsContainerRequest, id)).await.map(drop)),
            ("PauseContainer", api.pause_container(call(), ids!(PauseContainerRequest, id)).await.map(drop)),
            (
                "ResumeContainer",
                api.resume_container(call(), ids!(ResumeContainerRequest, id)).await.map(drop),
            ),
            (
                "UpdateContainer",
                api.update_container(call(), ids!(UpdateContainerRequest, id)).await.map(drop),
            ),
            ("WaitProcess", api.wait_process(call(), ids!(WaitProcessRequest, id)).await.map(drop)),
            ("SignalProcess", api.signal_process(call(), ids!(SignalProcessRequest, id)).await.map(drop)),
            ("ReadStdout", api.read_stdout(call(), ids!(ReadStreamRequest, id)).await.map(drop)),
            ("ReadStderr", api.read_stderr(call(), ids!(ReadStreamRequest, id)).await.map(drop)),
            ("WriteStdin", api.write_stdin(call(), ids!(WriteStreamRequest, id)).await.map(drop)),
            ("CloseStdin", api.close_stdin(call(), ids!(CloseStdinRequest, id)).await.map(drop)),
            ("TtyWinResize", api.tty_win_resize(call(), ids!(TtyWinResizeRequest, id)).await.map(drop)),
        ];
        for (method, answer) in answers {
            let text = expect_code(answer, Code::NOT_FOUND);
            assert!(text.contains(id), "{method}: {text:?} does not name {id}");
        }
        let exec = ExecProcessRequest {
            container_id: id.into(),
            exec_id: "e1".into(),
            process: Some(protocols::oci::Process {
                Args: vec!["true".into()],
                Cwd: "/".into(),
                ..Default::default()
            })
            .into(),
            ..Default::default()
        };
        expect_code(api.exec_process(call(), &exec).await, Code::NOT_FOUND);
    }
    Ok(())
}

#[tokio::test]
async fn a_process_that_is_not_there_is_not_found_in_the_words_shims_look_for() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    guest.container("c1").run().await?;
    let (api, call) = (guest.api(), AgentClient::call);
    let write = WriteStreamRequest {
        container_id: "c1".into(),
        exec_id: "nobody".into(),
        data: b"x".to_vec(),
        ..Default::default()
    };
    let answers = [
        ("WaitProcess", api.wait_process(call(), ids!(WaitProcessRequest, "c1", "nobody")).await.map(drop)),
        (
            "SignalProcess",
            api.signal_process(call(), ids!(SignalProcessRequest, "c1", "nobody")).await.map(drop),
        ),
        ("ReadStdout", api.read_stdout(call(), ids!(ReadStreamRequest, "c1", "nobody")).await.map(drop)),
        ("ReadStderr", api.read_stderr(call(), ids!(ReadStreamRequest, "c1", "nobody")).await.map(drop)),
        ("WriteStdin", api.write_stdin(call(), &write).await.map(drop)),
        ("CloseStdin", api.close_stdin(call(), ids!(CloseStdinRequest, "c1", "nobody")).await.map(drop)),
        (
            "TtyWinResize",
            api.tty_win_resize(call(), ids!(TtyWinResizeRequest, "c1", "nobody")).await.map(drop),
        ),
    ];
    for (method, answer) in answers {
        let text = expect_code(answer, Code::NOT_FOUND);
        assert!(text.contains(GONE), "{method}: {text:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_failed_exec_is_not_registered() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let container = guest.container("c1").run().await?;
    expect_code(container.exec(["/bin/none"]).id("e1").start().await, Code::INVALID_ARGUMENT);
    let wait = guest.api().wait_process(AgentClient::call(), ids!(WaitProcessRequest, "c1", "e1")).await;
    let text = expect_code(wait, Code::NOT_FOUND);
    assert!(text.contains(GONE), "{text:?}");
    Ok(())
}
