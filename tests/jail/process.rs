//! What a process starts with: environment, working directory, arguments, descriptors, signals, session.

use anyhow::Result;
use tests::{Code, expect_code};

use crate::{in_guest, status, with_image};

/// Blanks, duplicates, an empty value, and an entry that is no assignment.
const ENVIRONMENT: [&str; 9] = [
    "Z=last letter first",
    "PATH=/bin",
    "BLANKS=  two before, one after ",
    " NAME=blank before",
    "TWICE=1",
    "TWICE=2",
    "EMPTY=",
    "EQUALS=a=b=c",
    "UTF8=grün\nnext line\ttab",
];

#[tokio::test]
async fn the_environment_is_kept_in_order_and_each_name_once() -> Result<()> {
    in_guest(async |guest| {
        let environment = || ENVIRONMENT.map(str::to_owned).to_vec();
        let one = guest
            .container("one")
            .args(["cat", "/proc/self/environ"])
            .process(|process| process.Env = environment())
            .run()
            .await?;
        // getenv(3) would find the first of two; what counts is what was set last, at the first one's place.
        let kept: Vec<&str> = ENVIRONMENT
            .into_iter()
            .filter(|entry| *entry != "TWICE=2")
            .map(|entry| if entry == "TWICE=1" { "TWICE=2" } else { entry })
            .collect();
        let expected = |home: &str| format!("{}\0HOME={home}\0", kept.join("\0"));
        assert_eq!(one.output().await?.success()?, expected("/root"));

        let two = guest.container("two").run().await?;
        let exec = two.exec(["cat", "/proc/self/environ"]).process(|process| process.Env = environment());
        assert_eq!(exec.run().await?.success()?, expected("/root"));
        // Nothing of the agent's own environment comes along.
        let bare = two.exec(["/bin/cat", "/proc/self/environ"]).process(|process| process.Env.clear());
        assert_eq!(bare.run().await?.success()?, "HOME=/root\0");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_last_of_equal_paths_finds_the_program() -> Result<()> {
    in_guest(async |guest| {
        let one = guest.container("one").run().await?;
        one.sh("mkdir /first /second && for d in first second; do
            printf '#!/bin/sh\\necho %s\\n' $d >/$d/which-one && chmod 755 /$d/which-one; done")
            .await?;
        let run = async |env: &[&str]| {
            let env: Vec<String> = env.iter().map(|entry| (*entry).to_owned()).collect();
            one.exec(["which-one"]).process(|process| process.Env = env).run().await?.success()
        };
        assert_eq!(run(&["PATH=/first", "PATH=/second"]).await?, "second");
        assert_eq!(run(&["PATH=/no/such:/first:/second"]).await?, "first");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_working_directory_is_made_for_the_first_process_only() -> Result<()> {
    in_guest(async |guest| {
        let one = guest
            .container("one")
            .process(|process| process.Cwd = "/new/deep".into())
            .script("pwd; stat -c '%u %g %a' . ..; sleep 1000")
            .run()
            .await?;
        assert_eq!(one.init().read_until("0 0 755\n0 0 755\n").await?, "/new/deep\n0 0 755\n0 0 755\n");
        let at = |path: &str| {
            let path = path.to_owned();
            one.exec(["pwd"]).process(|process| process.Cwd = path)
        };
        assert_eq!(at("/new/deep").run().await?.success()?, "/new/deep");
        assert_eq!(at("/usr/../new").run().await?.success()?, "/new");
        for path in ["/missing", "/etc/passwd", "relative", ""] {
            let text = expect_code(at(path).start().await, Code::INVALID_ARGUMENT);
            assert!(text.contains(path), "{text}");
        }
        one.sh("test ! -e /missing").await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_working_directory_may_be_closed_to_root_or_to_the_user() -> Result<()> {
    in_guest(async |guest| {
        let one = guest.container("one").run().await?;
        one.sh("mkdir -m 700 -p /closed && mkdir /closed/in && mkdir -m 700 /users && chown 33:33 /users")
            .await?;
        let at = |path: &str, uid: u32| {
            let path = path.to_owned();
            one.exec(["sh", "-c", "id -u"]).process(|process| {
                process.Cwd = path;
                process.User.mut_or_insert_default().UID = uid;
            })
        };
        assert_eq!(at("/users", 33).run().await?.success()?, "33");
        // The user could not go there, but may be put there, as every runtime does.
        assert_eq!(at("/closed/in", 33).run().await?.success()?, "33");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_working_directory_reached_through_a_descriptor_of_the_guest_is_refused() -> Result<()> {
    in_guest(async |guest| {
        let inspector = guest.inspector().await?;
        for descriptor in 3..12 {
            // Either there is no such descriptor, or it leads outside; both are refused.
            let id = format!("fd{descriptor}");
            let path = format!("/proc/self/fd/{descriptor}");
            let one = with_image(guest, &inspector, &id, "true").await?;
            let one = one.process(|process| process.Cwd = path.clone());
            let result = one.args(["pwd"]).try_create().await;
            expect_code(result, Code::INVALID_ARGUMENT);
        }
        let one = guest.container("one").run().await?;
        for descriptor in 3..12 {
            let path = format!("/proc/self/fd/{descriptor}");
            let exec = one.exec(["pwd"]).process(|process| process.Cwd = path);
            expect_code(exec.start().await, Code::INVALID_ARGUMENT);
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn arguments_arrive_as_they_are() -> Result<()> {
    in_guest(async |guest| {
        let args = ["cat", "/proc/self/cmdline", "/proc/self/comm", "--", "/dev/null"];
        let one = guest.container("one").args(args).run().await?;
        assert_eq!(one.output().await?.success()?, format!("{}\0cat", args.join("\0")));
        let two = guest.container("two").run().await?;
        let odd =
            ["sh", "-c", "tr '\\0' '|' </proc/$$/cmdline; true", "", "  two  blanks ", "$HOME", "grün", "-x"];
        let seen = two.exec(odd).run().await?.success()?;
        assert_eq!(seen, format!("{}|", odd.join("|")));
        let none = two.exec(Vec::<String>::new());
        expect_code(none.start().await, Code::INVALID_ARGUMENT);
        expect_code(guest.container("three").args([""]).try_create().await, Code::INVALID_ARGUMENT);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn no_descriptor_is_inherited() -> Result<()> {
    in_guest(async |guest| {
        // `ls` has one more: the directory it lists.
        let list = ["ls", "/proc/self/fd"];
        let one = guest.container("one").args(list).run().await?;
        assert_eq!(one.output().await?.success()?, "0\n1\n2\n3");
        let terminal = guest.container("terminal").args(list).terminal().run().await?;
        let text = terminal.output().await?.success()?;
        assert_eq!(text.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
        let two = guest.container("two").run().await?;
        assert_eq!(two.exec(list).run().await?.success()?, "0\n1\n2\n3");
        let text = two.exec(list).terminal().run().await?.success()?;
        assert_eq!(text.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
        assert_eq!(two.sh("ls /proc/1/fd").await?, "0\n1\n2");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn no_signal_is_blocked_ignored_or_pending() -> Result<()> {
    in_guest(async |guest| {
        let clean = |text: &str| {
            for name in ["SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt"] {
                assert_eq!(status(text, name), "0000000000000000", "{name} of {text}");
            }
            assert_eq!(status(text, "Threads"), "1");
        };
        let args = ["cat", "/proc/self/status"];
        clean(&guest.container("one").args(args).run().await?.output().await?.success()?);
        clean(&guest.container("tty").args(args).terminal().run().await?.output().await?.success()?);
        let two = guest.container("two").run().await?;
        clean(&two.exec(args).run().await?.success()?);
        // A writer whose reader is gone dies of SIGPIPE, as it must.
        assert_eq!(two.sh("(yes; echo $? >/tmp/status) | head -n 1; cat /tmp/status").await?, "y\n141");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_process_leads_a_session_of_its_own() -> Result<()> {
    in_guest(async |guest| {
        // PID, PPID, group and session, after the command's name.
        let one = guest.container("one").args(["cat", "/proc/self/stat"]).run().await?;
        let text = one.output().await?.success()?;
        let fields: Vec<&str> = text.split_whitespace().collect();
        assert_eq!(fields[..2], ["1", "(cat)"]);
        assert_eq!(fields[3..7], ["0", "1", "1", "0"], "parent, group, session, terminal");

        let two = guest.container("two").run().await?;
        let text = two.exec(["cat", "/proc/self/stat"]).run().await?.success()?;
        let fields: Vec<&str> = text.split_whitespace().collect();
        let pid = fields[0];
        assert_eq!(fields[3..7], ["0", pid, pid, "0"], "parent, group, session, terminal");
        Ok(())
    })
    .await
}
