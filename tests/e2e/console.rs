//! The debug console in a flavour with a shell.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::Guest;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

/// How long a session may be silent: a shell that waits for ever is to be seen, not waited for.
const SILENCE: Duration = Duration::from_secs(300);

/// A session.
pub(crate) struct Console {
    stream: UnixStream,
    /// Commands so far: each has a mark of its own.
    count: u32,
}

impl Console {
    pub(crate) async fn open(guest: &Guest) -> Result<Console> {
        Ok(Console { stream: guest.vm().dial(1026).await?, count: 0 })
    }

    pub(crate) async fn type_in(&mut self, text: &str) -> Result<()> {
        Ok(self.stream.write_all(text.as_bytes()).await?)
    }

    pub(crate) async fn read_until(&mut self, text: &str) -> Result<String> {
        let mut all = String::new();
        let mut buffer = [0; 4096];
        while !all.contains(text) {
            let count = tokio::time::timeout(SILENCE, self.stream.read(&mut buffer)).await;
            let count = count.with_context(|| format!("waiting for {text:?} after {all:?}"))??;
            ensure!(count > 0, "the console ended without {text:?}: {all:?}");
            all.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        Ok(all)
    }

    /// Reads until nothing has come for a moment: `vhost-device-vsock` does not tell the guest that its host hung up while
    /// bytes are unread.
    async fn drain(&mut self) -> Result<()> {
        let mut buffer = [0; 4096];
        while let Ok(count) =
            tokio::time::timeout(Duration::from_millis(700), self.stream.read(&mut buffer)).await
        {
            ensure!(count? > 0, "the console ended");
        }
        Ok(())
    }

    /// Runs a command line; gives what the terminal showed of it.
    pub(crate) async fn run(&mut self, command: &str) -> Result<String> {
        self.count += 1;
        // What is typed is echoed: the mark must not stand in it.
        self.type_in(&format!("{command}\necho mark-$(({} + 1000))-$?\n", self.count)).await?;
        self.read_until(&format!("mark-{}-", self.count + 1000)).await
    }
}

async fn boot() -> Result<Guest> {
    let words = ["agent.debug_console", "agent.debug_console_vport=1026"];
    Guest::builder().flavour("debug").cmdline(&words).boot().await
}

#[tokio::test]
async fn the_shell_is_on_a_real_terminal_with_job_control() -> Result<()> {
    let guest = boot().await?;
    let mut console = Console::open(&guest).await?;
    assert!(console.run("tty").await?.contains("/dev/pts/"));
    let size = console.run("stty rows 50 cols 132; stty size").await?;
    assert!(size.contains("50 132\r\n"), "{size}");
    let who = console.run("id -u; grep CapEff /proc/self/status; echo $TERM").await?;
    assert!(who.contains("0\r\n") && who.contains("1ff") && who.contains("xterm"), "{who}");
    // A job in the background, brought to the front and interrupted.
    let jobs = console.run("set -m; sleep 4321 & jobs").await?;
    assert!(jobs.contains("sleep 4321") && !jobs.contains("job control turned off"), "{jobs}");
    let mut other = Console::open(&guest).await?;
    let in_front = "until [ \"$(cut -d' ' -f8 /proc/$(pidof sleep)/stat)\" = \"$(cut -d' ' -f5 /proc/$(pidof sleep)/stat)\" ]; \
        do usleep 50000; done";
    console.type_in("fg\n").await?;
    other.run(in_front).await?;
    console.type_in("\x1a").await?;
    console.read_until("Stopped").await?;
    console.type_in("fg\n").await?;
    other.run(in_front).await?;
    console.type_in("\x03").await?;
    assert!(console.run("echo status $?").await?.contains("status 130\r\n"));
    assert!(other.run("pidof sleep || echo no such process").await?.contains("no such process\r\n"));
    Ok(())
}

#[tokio::test]
async fn sessions_are_independent_and_end_with_all_they_started() -> Result<()> {
    let guest = boot().await?;
    let mut sessions = Vec::new();
    for number in 0..4 {
        let mut console = Console::open(&guest).await?;
        console.run(&format!("name=session-{number}; sleep 500{number} &")).await?;
        console.run(&format!("setsid sh -c 'trap \"\" HUP TERM; sleep 600{number}; true' &")).await?;
        sessions.push(console);
    }
    for (number, console) in sessions.iter_mut().enumerate() {
        let said = console.run("echo I am $name").await?;
        assert!(said.contains(&format!("I am session-{number}\r\n")), "{said}");
    }
    let mut last = sessions.pop().expect("four were opened");
    let processes = last.run("ps | grep 'slee[p] [56]00' | wc -l").await?;
    // Each `setsid sh` shows its script too.
    assert!(processes.contains("12\r\n"), "{processes}");
    for console in &mut sessions {
        console.drain().await?;
    }
    drop(sessions);
    last.run("while ps | grep 'slee[p] [56]00' | grep -v 003 | grep -q .; do usleep 100000; done").await?;
    last.run("until [ $(ls -d /sys/fs/cgroup/console-* | wc -l) = 1 ]; do usleep 100000; done").await?;
    assert!(last.run("ps | grep 'slee[p] 5003'").await?.contains("sleep 5003\r\n"));
    // `exit` ends a session too.
    last.type_in("exit\n").await?;
    let mut rest = Vec::new();
    last.stream.read_to_end(&mut rest).await?;
    let mut again = Console::open(&guest).await?;
    again.run("until [ $(ls -d /sys/fs/cgroup/console-* | wc -l) = 1 ]; do usleep 100000; done").await?;
    assert!(again.run("ps | grep -c 'slee[p] [56]00'").await?.contains("0\r\n"));
    Ok(())
}

#[tokio::test]
async fn every_link_of_the_debug_flavour_is_an_applet() -> Result<()> {
    let guest = boot().await?;
    let mut console = Console::open(&guest).await?;
    let look = "for f in /bin/*; do busybox --list | grep -qxF ${f##*/} || echo missing:$f; done";
    let missing = console.run(look).await?;
    assert!(!missing.contains("missing:/"), "{missing}");
    Ok(())
}
