//! Standard streams and terminals.

use anyhow::{Result, ensure};
use protocols::agent::*;
use tests::{Code, Running};

use crate::case::{Case, cases};
use crate::world::World;

pub(crate) const CASES: &[Case] = cases! {
    Pod "WriteStdin" Success what_is_written_is_read_by_the_process;
    Pod "WriteStdin" Success an_empty_write_is_the_end_of_input;
    Pod "WriteStdin" Failure nothing_is_written_to_a_closed_stdin;
    Pod "ReadStdout" Success output_comes_whole_and_ends_with_nothing;
    Pod "ReadStdout" Success a_terminals_output_is_all_on_stdout;
    Pod "ReadStdout" Failure stdout_of_nobody_is_not_found;
    Pod "ReadStderr" Success errors_come_apart_from_output;
    Pod "ReadStderr" Failure stderr_of_nobody_is_not_found;
    Pod "CloseStdin" Success a_closed_stdin_is_the_end_of_input;
    Pod "CloseStdin" Failure stdin_of_nobody_is_not_found;
    Pod "TtyWinResize" Success a_terminal_has_the_size_it_was_given;
    Pod "TtyWinResize" Failure what_is_no_terminal_has_no_size;
};

/// A request about a process's stream.
macro_rules! stream {
    ($request:ident, $running:expr $(, $field:ident: $value:expr)*) => {
        $request {
            container_id: $running.0.clone(),
            exec_id: $running.1.clone(),
            $($field: $value,)*
            ..Default::default()
        }
    };
}

type Ids = (String, String);

/// An exec in the shared container.
async fn start(world: &World, args: &[&str], terminal: bool) -> Result<(Ids, Running)> {
    let (container, id) = (world.shared().await?, world.id("process"));
    let mut exec = container.exec(args.iter().map(|word| (*word).to_owned())).id(&id);
    if terminal {
        exec = exec.terminal();
    }
    Ok(((container.id().to_owned(), id), exec.start().await?))
}

async fn nobody(world: &World) -> Result<Ids> {
    Ok((world.shared().await?.id().to_owned(), "nobody".to_owned()))
}

async fn write(world: &World, ids: &Ids, data: &[u8]) -> Result<u32> {
    let request = stream!(WriteStreamRequest, ids, data: data.to_vec());
    let response: WriteStreamResponse = world.ok("WriteStdin", &request).await?;
    Ok(response.len)
}

/// One stream to its end.
async fn read_all(world: &World, method: &str, ids: &Ids, len: u32) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        let response: ReadStreamResponse =
            world.ok(method, &stream!(ReadStreamRequest, ids, len: len)).await?;
        ensure!(response.data.len() <= len.max(1) as usize, "{} bytes, {len} asked for", response.data.len());
        if response.data.is_empty() {
            return Ok(all);
        }
        all.extend(response.data);
    }
}

async fn what_is_written_is_read_by_the_process(world: &World) -> Result<()> {
    let (ids, running) = start(world, &["cat"], false).await?;
    let data: Vec<u8> = (0..=255).collect();
    ensure!(write(world, &ids, &data).await? == 256, "less was taken");
    running.close_stdin().await?;
    ensure!(running.finish().await?.stdout == data, "it came back otherwise");
    Ok(())
}

async fn an_empty_write_is_the_end_of_input(world: &World) -> Result<()> {
    let (ids, running) = start(world, &["cat"], false).await?;
    ensure!(write(world, &ids, b"last").await? == 4 && write(world, &ids, b"").await? == 0);
    let finished = running.finish().await?;
    ensure!((finished.status, finished.stdout.as_slice()) == (0, &b"last"[..]), "{finished:?}");
    Ok(())
}

async fn nothing_is_written_to_a_closed_stdin(world: &World) -> Result<()> {
    let (ids, running) = start(world, &["sleep", "1000"], false).await?;
    running.close_stdin().await?;
    let request = stream!(WriteStreamRequest, ids, data: b"late".to_vec());
    world.refused("WriteStdin", &request, Code::FAILED_PRECONDITION).await?;
    world.shared().await?.signal(&ids.1, 9).await?;
    running.wait().await?;
    world.refused("WriteStdin", &request, Code::FAILED_PRECONDITION).await?;
    let request = stream!(WriteStreamRequest, nobody(world).await?, data: b"x".to_vec());
    world.refused("WriteStdin", &request, Code::NOT_FOUND).await?;
    Ok(())
}

async fn output_comes_whole_and_ends_with_nothing(world: &World) -> Result<()> {
    let (ids, running) = start(world, &["sh", "-c", "seq 2000; printf end"], false).await?;
    let wanted: String = (1..=2000).map(|n| format!("{n}\n")).chain(["end".to_owned()]).collect();
    ensure!(read_all(world, "ReadStdout", &ids, 1000).await? == wanted.as_bytes(), "bytes are missing");
    // The end stays the end, before the wait and after it.
    ensure!(read_all(world, "ReadStdout", &ids, 10).await?.is_empty());
    running.wait().await?;
    ensure!(read_all(world, "ReadStdout", &ids, 0).await?.is_empty());
    Ok(())
}

async fn a_terminals_output_is_all_on_stdout(world: &World) -> Result<()> {
    let (ids, _) = start(world, &["sh", "-c", "test -t 2; echo out $?; echo err >&2"], true).await?;
    ensure!(read_all(world, "ReadStderr", &ids, 100).await?.is_empty());
    ensure!(read_all(world, "ReadStdout", &ids, 100).await? == b"out 0\r\nerr\r\n");
    Ok(())
}

async fn stdout_of_nobody_is_not_found(world: &World) -> Result<()> {
    let request = stream!(ReadStreamRequest, nobody(world).await?, len: 10);
    let text = world.refused("ReadStdout", &request, Code::NOT_FOUND).await?;
    ensure!(text.contains("ESRCH: No such process"), "{text}");
    Ok(())
}

async fn errors_come_apart_from_output(world: &World) -> Result<()> {
    let (ids, _) = start(world, &["sh", "-c", "echo out; echo err >&2"], false).await?;
    ensure!(read_all(world, "ReadStderr", &ids, 100).await? == b"err\n");
    ensure!(read_all(world, "ReadStdout", &ids, 100).await? == b"out\n");
    Ok(())
}

async fn stderr_of_nobody_is_not_found(world: &World) -> Result<()> {
    let request = stream!(ReadStreamRequest, nobody(world).await?, len: 10);
    world.refused("ReadStderr", &request, Code::NOT_FOUND).await?;
    Ok(())
}

async fn a_closed_stdin_is_the_end_of_input(world: &World) -> Result<()> {
    let (ids, running) = start(world, &["sh", "-c", "cat; exit 3"], false).await?;
    running.write(b"before").await?;
    world.done("CloseStdin", &stream!(CloseStdinRequest, ids)).await?;
    let finished = running.finish().await?;
    ensure!((finished.status, finished.stdout.as_slice()) == (3, &b"before"[..]), "{finished:?}");
    // Closing what is closed is no error. On a terminal the end is typed, and its output stays.
    world.done("CloseStdin", &stream!(CloseStdinRequest, ids)).await?;
    let (ids, running) = start(world, &["sh", "-c", "cat; echo after"], true).await?;
    world.done("CloseStdin", &stream!(CloseStdinRequest, ids)).await?;
    running.read_until("after").await?;
    Ok(())
}

async fn stdin_of_nobody_is_not_found(world: &World) -> Result<()> {
    let request = stream!(CloseStdinRequest, nobody(world).await?);
    world.refused("CloseStdin", &request, Code::NOT_FOUND).await?;
    Ok(())
}

async fn a_terminal_has_the_size_it_was_given(world: &World) -> Result<()> {
    let (ids, running) = start(world, &["sh"], true).await?;
    world.done("TtyWinResize", &stream!(TtyWinResizeRequest, ids, row: 33, column: 99)).await?;
    running.write(b"stty size; exit\n").await?;
    running.read_until("33 99").await?;
    Ok(())
}

async fn what_is_no_terminal_has_no_size(world: &World) -> Result<()> {
    let (ids, _) = start(world, &["true"], false).await?;
    let request = stream!(TtyWinResizeRequest, ids, row: 1, column: 1);
    let text = world.refused("TtyWinResize", &request, Code::UNAVAILABLE).await?;
    ensure!(text == "no tty", "{text}");
    let large = stream!(TtyWinResizeRequest, ids, row: 70_000, column: 1);
    world.refused("TtyWinResize", &large, Code::INVALID_ARGUMENT).await?;
    Ok(())
}
