//! How a command ended, in the words of envd.

use serde_json::{Value, json};

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// By itself.
    Exited {
        /// Its status.
        code: i32,
        /// Whether it is a shell's status of a program that the kernel killed for want of memory.
        is_oom: bool,
    },
    /// By a signal.
    Killed {
        /// Its number.
        signal: i32,
        /// Whether it left a core.
        core: bool,
        /// Whether the kernel killed it for want of memory.
        is_oom: bool,
    },
}

/// What a shell exits with when SIGKILL has ended its last program.
pub(super) const SHELL_KILLED: i32 = 128 + nix::libc::SIGKILL;
/// The error of what the kernel killed for want of memory.
const OOM: &str = "killed: out of memory";

impl End {
    /// As the last event of a stream. What has its default value is left out, as in all JSON of protobuf.
    pub(super) fn to_json(self) -> Value {
        match self {
            End::Exited { code: 0, .. } => json!({ "exited": true, "status": "exit status 0" }),
            End::Exited { code, is_oom } => {
                let text = format!("exit status {code}");
                let error = if is_oom { OOM } else { &text };
                json!({ "exitCode": code, "exited": true, "status": text, "error": error })
            }
            End::Killed { signal, core, is_oom } => {
                let status = format!("signal: {}{}", name(signal), if core { " (core dumped)" } else { "" });
                let error = if is_oom { OOM } else { &status };
                json!({ "exitCode": -1, "status": status, "error": error })
            }
        }
    }
}

/// The words for a signal, as Go has them for Linux.
fn name(signal: i32) -> String {
    let words = match signal {
        1 => "hangup",
        2 => "interrupt",
        3 => "quit",
        4 => "illegal instruction",
        5 => "trace/breakpoint trap",
        6 => "aborted",
        7 => "bus error",
        8 => "floating point exception",
        9 => "killed",
        10 => "user defined signal 1",
        11 => "segmentation fault",
        12 => "user defined signal 2",
        13 => "broken pipe",
        14 => "alarm clock",
        15 => "terminated",
        _ => return format!("signal {signal}"),
    };
    words.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_as_envd_tells_them() {
        let text = |end: End| end.to_json().to_string();
        let exited = |code, is_oom| End::Exited { code, is_oom };
        assert_eq!(text(exited(0, false)), r#"{"exited":true,"status":"exit status 0"}"#);
        assert_eq!(exited(137, true).to_json()["error"], "killed: out of memory");
        assert_eq!(exited(137, true).to_json()["status"], "exit status 137");
        assert_eq!(
            exited(7, false).to_json(),
            json!({"exitCode": 7, "exited": true, "status": "exit status 7", "error": "exit status 7"})
        );
        let killed = |signal, core, is_oom| End::Killed { signal, core, is_oom }.to_json();
        assert_eq!(
            killed(9, false, false),
            json!({"exitCode": -1, "status": "signal: killed", "error": "signal: killed"})
        );
        assert_eq!(killed(15, false, false)["status"], "signal: terminated");
        assert_eq!(killed(11, true, false)["error"], "signal: segmentation fault (core dumped)");
        assert_eq!(killed(9, false, true)["error"], "killed: out of memory");
        assert_eq!(killed(35, false, false)["status"], "signal: signal 35");
    }
}
