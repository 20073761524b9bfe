//! Terminals: a process's own, from its container's devpts, and `/dev/console`.

use anyhow::Result;
use protobuf::MessageField;
use protocols::oci::Box;
use tests::{Code, expect_code};

use crate::in_guest;

#[tokio::test]
async fn a_containers_terminal_is_its_streams_and_its_console() -> Result<()> {
    in_guest(async |guest| {
        let one = guest
            .container("one")
            .terminal()
            .process(|process| {
                process.ConsoleSize = MessageField::some(Box { Height: 33, Width: 99, ..Box::default() });
            })
            .script(
                "tty; test -t 0 && test -t 1 && test -t 2 && echo all three; stty size; \
                 echo through >/dev/console; echo control >/dev/tty; ls -l /dev/console; \
                 stat -c '%t:%T' /dev/console /dev/pts/0; ls -1 /dev/pts; cut -d' ' -f5-8 /proc/self/stat",
            )
            .run()
            .await?;
        let output = one.output().await?;
        let text = String::from_utf8(output.stdout)?.replace('\r', "");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..5], ["/dev/pts/0", "all three", "33 99", "through", "control"], "{text}");
        assert!(lines[5].starts_with("crw") && lines[5].contains("136,   0"), "{text}");
        assert_eq!(lines[6..10], ["88:0", "88:0", "0", "ptmx"], "{text}");
        // Group and session of the shell; the terminal is device 136:0; its foreground group is there.
        let fields: Vec<&str> = lines[10].split(' ').collect();
        assert_eq!(fields[1..3], ["1", "34816"], "{text}");
        assert!(output.stderr.is_empty());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_exec_has_a_terminal_of_its_own() -> Result<()> {
    in_guest(async |guest| {
        let one = guest.container("one").terminal().run().await?;
        let exec = one
            .exec(["sh", "-c", "tty; stty size; echo control >/dev/tty; readlink /proc/1/fd/0"])
            .terminal();
        let exec = exec.process(|process| {
            process.ConsoleSize = MessageField::some(Box { Height: 7, Width: 70, ..Box::default() });
        });
        let text = exec.run().await?.success()?.replace('\r', "");
        assert_eq!(text, "/dev/pts/1\n7 70\ncontrol\n/dev/pts/0");
        // Without one it has none, although the container does.
        let without =
            one.exec(["sh", "-c", "tty; test -t 1 || echo no terminal; cat /dev/tty"]).run().await?;
        assert_eq!(String::from_utf8(without.stdout)?, "not a tty\nno terminal\n");
        assert!(String::from_utf8(without.stderr)?.contains("No such device or address"));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_terminal_belongs_to_the_user() -> Result<()> {
    in_guest(async |guest| {
        let one = guest
            .container("one")
            .terminal()
            .process(|process| process.User.mut_or_insert_default().UID = 33)
            .script("stat -c '%u %g %a' $(tty); echo opened >$(tty); echo console >/dev/console")
            .run()
            .await?;
        let text = String::from_utf8(one.output().await?.stdout)?.replace('\r', "");
        assert_eq!(text, "33 5 620\nopened\nconsole\n");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn containers_do_not_see_each_others_terminals() -> Result<()> {
    in_guest(async |guest| {
        let one = guest.container("one").terminal().run().await?;
        let two = guest.container("two").terminal().run().await?;
        assert_eq!(one.sh("ls /dev/pts").await?, "0\nptmx");
        assert_eq!(two.sh("ls /dev/pts").await?, "0\nptmx");
        let plain = guest.container("plain").run().await?;
        assert_eq!(plain.sh("ls /dev/pts; readlink /dev/ptmx").await?, "ptmx\npts/ptmx");
        // A program of the container can make terminals of its own.
        assert_eq!(plain.sh("exec 5<>/dev/ptmx; ls /dev/pts").await?, "0\nptmx");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_terminal_without_a_devpts_is_refused() -> Result<()> {
    in_guest(async |guest| {
        let one = guest
            .container("one")
            .terminal()
            .spec(|spec| spec.Mounts.retain(|mount| mount.destination != "/dev/pts"));
        let text = expect_code(one.try_create().await, Code::INVALID_ARGUMENT);
        assert!(text.contains("devpts"), "{text}");
        Ok(())
    })
    .await
}
