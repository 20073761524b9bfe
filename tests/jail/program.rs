//! Programs that cannot be executed: known before the start where they can be, a shell's status otherwise.

use anyhow::Result;
use protobuf::MessageField;
use protocols::oci::LinuxCapabilities;
use tests::{Code, expect_code};

use crate::{in_guest, with_image};

/// Files that look like programs.
const IMAGE: &str = "mkdir -p etc/dir && echo data >plain && echo '#!/no/such/interpreter' >script &&
    printf '\\177ELF\\2\\1\\1 broken' >elf && echo 'no interpreter line' >text && : >empty &&
    printf '#!/bin/sh\\nexit 9\\n' >good && ln -s /no/such/target dangling && ln -s good link &&
    chmod 755 script elf text empty good";

#[tokio::test]
async fn a_program_that_is_not_there_or_not_executable_fails_the_create() -> Result<()> {
    in_guest(async |guest| {
        let inspector = guest.inspector().await?;
        let one = with_image(guest, &inspector, "one", IMAGE).await?;
        let missing = ["no-such-program", "/no/such/program", "./no-such", "/dangling", "/plain/below"];
        for program in missing {
            let text = expect_code(one.clone().args([program]).try_create().await, Code::INVALID_ARGUMENT);
            assert!(text.contains(&format!("the file {program} was not found")), "{text}");
        }
        for program in ["/plain", "/etc/dir", "/etc"] {
            let text = expect_code(one.clone().args([program]).try_create().await, Code::INVALID_ARGUMENT);
            assert!(text.contains(program) && text.contains("ermission denied"), "{text}");
        }
        // Nothing of all that is left: the same id, cgroup and mounts are free.
        assert_eq!(one.args(["/link"]).run().await?.wait().await?, 9);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_program_the_kernel_refuses_ends_with_a_shells_status() -> Result<()> {
    in_guest(async |guest| {
        let inspector = guest.inspector().await?;
        for (id, program, expected) in [
            ("script", "/script", 127),
            ("elf", "/elf", 126),
            ("text", "/text", 126),
            ("empty", "/empty", 126),
            ("good", "/good", 9),
        ] {
            let one = with_image(guest, &inspector, id, IMAGE).await?.args([program]).create().await?;
            one.start().await?;
            let output = one.output().await?;
            assert_eq!(output.status, expected, "{program}");
            let said = String::from_utf8(output.stderr)?;
            let words = match expected {
                126 => format!("exec {program}: exec format error\n"),
                127 => format!("exec {program}: no such file or directory: the interpreter or dynamic loader that it names\n"),
                _ => String::new(),
            };
            assert_eq!(said, words, "{program}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_exec_fails_as_a_create_does() -> Result<()> {
    in_guest(async |guest| {
        let inspector = guest.inspector().await?;
        let one = with_image(guest, &inspector, "one", IMAGE).await?.run().await?;
        for program in ["no-such-program", "/no/such/program", "/dangling", "/plain", "/etc"] {
            let text = expect_code(one.exec([program]).start().await, Code::INVALID_ARGUMENT);
            assert!(text.contains(program), "{text}");
        }
        for (program, expected) in
            [("/script", 127), ("/elf", 126), ("/text", 126), ("/good", 9), ("good", 9)]
        {
            let ended = one.exec([program]).process(|p| p.Env = vec!["PATH=/:/bin".into()]).run().await?;
            assert_eq!(ended.status, expected, "{program}");
            let said = String::from_utf8(ended.stderr)?;
            assert_eq!(said.starts_with(&format!("exec {program}: ")), expected > 9, "{program}: {said}");
        }
        // The container lives on, and an id that failed can be used.
        let again = one.exec(["no-such-program"]).id("again");
        expect_code(again.start().await, Code::INVALID_ARGUMENT);
        assert_eq!(one.exec(["true"]).id("again").run().await?.status, 0);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_user_who_may_not_execute_a_program_is_told_so() -> Result<()> {
    in_guest(async |guest| {
        let one = guest.container("one").run().await?;
        one.sh("cp /bin/busybox /tmp/true && chmod 700 /tmp/true").await?;
        // Without CAP_DAC_OVERRIDE, which would be in force up to the execve.
        let run = |uid: u32| {
            one.exec(["/tmp/true"]).process(|process| {
                process.User.mut_or_insert_default().UID = uid;
                process.Capabilities = MessageField::some(LinuxCapabilities::default());
            })
        };
        assert_eq!(run(0).run().await?.status, 0);
        let text = expect_code(run(33).start().await, Code::INVALID_ARGUMENT);
        assert!(text.contains("/tmp/true") && text.contains("ermission denied"), "{text}");
        Ok(())
    })
    .await
}
