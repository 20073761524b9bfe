//! The commands of a guest without a shell: what runs, what is mounted, what the kernel said, and a way into containers.

use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::OFlags;

use crate::error::visible;
use crate::pod::Pod;

/// What a line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Order {
    Nothing,
    Exit,
    Show(View),
    Enter { container: String, command: Vec<String> },
    Unknown(String),
}

/// What can be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    Help,
    Containers,
    Processes,
    Mounts,
    Kernel,
    Memory,
}

const HELP: &str = "\
containers           containers with their state and first process
ps                   processes of the guest
mounts               mounts of the guest
memory               memory of the guest
dmesg                the kernel's log
enter ID [COMMAND]   run a command (default /bin/sh) in a container, on this terminal
exit                 end this session
";

/// Reads a line.
pub(super) fn parse(line: &str) -> Order {
    let mut words = line.split_whitespace().map(str::to_owned);
    match (words.next().as_deref(), words) {
        (None, _) => Order::Nothing,
        (Some("exit" | "quit"), _) => Order::Exit,
        (Some("help" | "?"), _) => Order::Show(View::Help),
        (Some("containers"), _) => Order::Show(View::Containers),
        (Some("ps"), _) => Order::Show(View::Processes),
        (Some("mounts" | "mount"), _) => Order::Show(View::Mounts),
        (Some("memory" | "free"), _) => Order::Show(View::Memory),
        (Some("dmesg"), _) => Order::Show(View::Kernel),
        (Some("enter"), mut words) => match words.next() {
            None => Order::Unknown("enter (without a container)".into()),
            Some(container) => {
                let command: Vec<String> = words.collect();
                let command = if command.is_empty() { vec!["/bin/sh".into()] } else { command };
                Order::Enter { container, command }
            }
        },
        (Some(other), _) => Order::Unknown(other.to_owned()),
    }
}

/// Text of a view. Files are read on a thread, since some of them can be slow.
pub(super) async fn show(view: View, pod: &Pod) -> String {
    match view {
        View::Help => HELP.to_owned(),
        View::Containers => containers(pod),
        View::Processes => on_a_thread(|| processes(Path::new("/proc"))).await,
        View::Mounts => on_a_thread(|| file("/proc/self/mounts")).await,
        View::Memory => on_a_thread(|| file("/proc/meminfo")).await,
        View::Kernel => on_a_thread(kernel_log).await,
    }
}

async fn on_a_thread(read: impl FnOnce() -> String + Send + 'static) -> String {
    tokio::task::spawn_blocking(read).await.unwrap_or_else(|_| "the view panicked\n".into())
}

fn file(path: &str) -> String {
    match std::fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).lines().map(|line| visible(line) + "\n").collect(),
        Err(error) => format!("{path}: {error}\n"),
    }
}

fn containers(pod: &Pod) -> String {
    let mut rows: Vec<String> = pod
        .containers()
        .iter()
        .map(|container| {
            let pid = container.process("").map_or(0, |init| init.pid());
            format!("{:<10} {pid:>7}  {}\n", container.state().to_string(), container.id())
        })
        .collect();
    rows.sort();
    format!("STATE          PID  ID\n{}", rows.concat())
}

/// A table of the processes below a `/proc`.
fn processes(proc: &Path) -> String {
    let mut pids: Vec<u32> = std::fs::read_dir(proc)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    let mut table = String::from("    PID   PPID S  RSS KiB  COMMAND\n");
    for pid in pids {
        let directory = proc.join(pid.to_string());
        // Gone since it was listed.
        let Ok(status) = std::fs::read(directory.join("status")) else { continue };
        let status = String::from_utf8_lossy(&status);
        let field = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.and_then(|value| value.split_whitespace().next()).unwrap_or("-")
        };
        let name = status.lines().find_map(|line| line.strip_prefix("Name:\t")).unwrap_or("-");
        let line = std::fs::read(directory.join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let command = if line.is_empty() { format!("[{name}]") } else { line };
        table.push_str(&format!(
            "{pid:>7} {:>6} {} {:>8}  {}\n",
            field("PPid"),
            field("State"),
            field("VmRSS"),
            visible(command.trim_end())
        ));
    }
    table
}

/// The kernel's ring buffer, record by record (`dev-kmsg` of the kernel's ABI documents).
fn kernel_log() -> String {
    let opened =
        std::fs::OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open("/dev/kmsg");
    let mut log = match opened {
        Ok(log) => log,
        Err(error) => return format!("/dev/kmsg: {error}\n"),
    };
    let mut text = String::new();
    let mut record = vec![0; 8192];
    // Each read gives one record; EAGAIN is the end, EPIPE an overwritten record.
    loop {
        match log.read(&mut record) {
            Ok(count) => text.push_str(&kernel_line(&String::from_utf8_lossy(&record[..count]))),
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
            Err(_) => return text,
        }
    }
}

/// `priority,sequence,microseconds,flags;message` as a line.
fn kernel_line(record: &str) -> String {
    let Some((head, message)) = record.split_once(';') else { return String::new() };
    let stamp: u64 = head.split(',').nth(2).and_then(|stamp| stamp.parse().ok()).unwrap_or(0);
    // The kernel has written out what it takes for unprintable (`printk` of Linux 6.12), which is not all.
    let first = visible(message.lines().next().unwrap_or_default());
    format!("[{:5}.{:06}] {first}\n", stamp / 1_000_000, stamp % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_orders() {
        assert_eq!(parse("  \n"), Order::Nothing);
        assert_eq!(parse("ps\n"), Order::Show(View::Processes));
        assert_eq!(parse("frobnicate 1"), Order::Unknown("frobnicate".into()));
        let enter = Order::Enter { container: "c1".into(), command: vec!["/bin/sh".into()] };
        assert_eq!(parse("enter c1"), enter);
        let enter = Order::Enter { container: "c1".into(), command: vec!["ls".into(), "-l".into()] };
        assert_eq!(parse("enter  c1 ls -l"), enter);
        assert!(matches!(parse("enter"), Order::Unknown(_)));
    }

    #[test]
    fn kernel_records_become_lines() {
        assert_eq!(kernel_line("6,17,1234567,-;hello\n SUBSYSTEM=pci\n"), "[    1.234567] hello\n");
        assert_eq!(kernel_line("nonsense"), "");
    }

    #[test]
    fn a_process_says_nothing_to_the_terminal() {
        let proc = tempfile::tempdir().unwrap();
        let process = |pid: &str, name: &[u8], line: &[u8]| {
            let directory = proc.path().join(pid);
            std::fs::create_dir(&directory).unwrap();
            let status = [b"Name:\t", name, b"\nState:\tS (sleeping)\nPPid:\t1\nVmRSS:\t4 kB\n"].concat();
            std::fs::write(directory.join("status"), status).unwrap();
            std::fs::write(directory.join("cmdline"), line).unwrap();
        };
        process("7", b"x", b"\x1b[2Jsh\0-c\0a\nb\r\x9b\xc2\x9bm\xe2\x80\xae\x07\0");
        process("8", b"a\x1b]0;b\xff", b"");
        process("9", b"plain", "grün -v\0".as_bytes());
        let table = processes(proc.path());
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 4, "{table:?}");
        assert!(table.chars().all(|c| c == '\n' || !c.is_control()), "{table:?}");
        assert!(lines[1].ends_with("\\u{1b}[2Jsh -c a\\nb\\r\u{FFFD}\\u{9b}m\\u{202e}\\u{7}"), "{table:?}");
        assert!(lines[2].ends_with("[a\\u{1b}]0;b\u{FFFD}]"), "{table:?}");
        assert!(lines[3].ends_with("      4  grün -v"), "{table:?}");
        let mounts = proc.path().join("mounts");
        std::fs::write(&mounts, b"a /x\x1b[0m tmpfs\nb /y tmpfs\n").unwrap();
        assert_eq!(file(mounts.to_str().unwrap()), "a /x\\u{1b}[0m tmpfs\nb /y tmpfs\n");
    }

    #[test]
    fn processes_are_listed_with_ours_among_them() {
        let table = processes(Path::new("/proc"));
        assert!(table.contains(&format!("{:>7} ", std::process::id())), "{table}");
    }
}
