//! The packet filter's rules, as text: what `iptables-save` prints and `iptables-restore` takes.
//!
//! Owns which program does it. Promises that a restore is taken whole or not at all (the programs commit a table at
//! once), and that a flavour without the programs says so. Must never read or write a rule itself.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{ErrorKind, Kind};
use crate::process::command::{Command, CommandError, Commands, Output};

/// Where the programs may be, best first.
const DIRECTORIES: [&str; 2] = ["/usr/sbin", "/sbin"];
/// How long a save or a restore may take: longer than its own wait for the lock.
const DEADLINE: Duration = Duration::from_secs(30);
/// How long `iptables-restore` waits for another one, in seconds, as text.
const LOCK_WAIT: &str = "5";
/// Bytes of rules that are taken out of the guest: an answer has to fit into a message of 4 MiB.
const MOST: usize = 4 * 1024 * 1024 - 64 * 1024;

/// Why rules could not be read or set.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IptablesError {
    /// The guest's flavour has no such program.
    #[error(
        "this guest has no {tool} (neither in /usr/sbin nor in /sbin): its flavour carries no packet filter tools; \
         use one that does, as `standard`"
    )]
    NoTool {
        /// The program.
        tool: String,
    },
    /// The rules were not understood, or the kernel does not take them. Nothing has changed.
    #[error("{tool} refused the rules with status {status}: {said}")]
    Refused {
        /// The program.
        tool: String,
        /// Its exit status.
        status: i32,
        /// What it said.
        said: String,
    },
    /// There are more rules than an answer can carry.
    #[error("{tool} printed more than {MOST} bytes of rules")]
    TooMany {
        /// The program.
        tool: String,
    },
    /// See [`CommandError`].
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The rules cannot be text of a rule file.
    #[error("the rules contain a NUL byte")]
    Nul,
}

impl Kind for IptablesError {
    fn kind(&self) -> ErrorKind {
        match self {
            IptablesError::NoTool { .. } => ErrorKind::Unsupported,
            IptablesError::Refused { .. } | IptablesError::Nul => ErrorKind::Invalid,
            IptablesError::TooMany { .. } => ErrorKind::Exhausted,
            IptablesError::Command(error) => error.kind(),
        }
    }
}

/// Whose rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V4,
    V6,
}

impl Version {
    fn tool(self, what: &str) -> String {
        match self {
            Version::V4 => format!("iptables-{what}"),
            Version::V6 => format!("ip6tables-{what}"),
        }
    }
}

/// All rules of the guest.
pub(crate) async fn save(commands: &Arc<Commands>, version: Version) -> Result<Vec<u8>, IptablesError> {
    let tool = version.tool("save");
    let mut command = Command::new(find(&tool, &DIRECTORIES)?, [] as [&str; 0]);
    command.deadline = DEADLINE;
    command.keep = MOST;
    let output = commands.run(command).await?;
    if output.status != 0 {
        // Without the rules it had printed by then: they are of no use, and may be many.
        return Err(Output { stdout: Vec::new(), ..output }.failure(&tool).into());
    }
    if output.is_cut {
        return Err(IptablesError::TooMany { tool });
    }
    Ok(output.stdout)
}

/// Replaces the tables that `rules` names, and leaves the others. Gives what the program printed.
pub(crate) async fn restore(
    commands: &Arc<Commands>,
    version: Version,
    rules: Vec<u8>,
) -> Result<Vec<u8>, IptablesError> {
    let tool = version.tool("restore");
    let mut command = Command::new(find(&tool, &DIRECTORIES)?, ["--wait", LOCK_WAIT]);
    if rules.contains(&0) {
        return Err(IptablesError::Nul);
    }
    command.deadline = DEADLINE;
    command.stdin = rules;
    let output = commands.run(command).await?;
    match output.status {
        0 => Ok(output.stdout),
        // 1 and 2 of iptables(8): a rule or an option that is wrong; all else is trouble of its own.
        status @ (1 | 2) => Err(IptablesError::Refused { tool, status, said: output.text() }),
        _ => Err(output.failure(&tool).into()),
    }
}

fn find(tool: &str, directories: &[&str]) -> Result<String, IptablesError> {
    directories
        .iter()
        .map(|directory| format!("{directory}/{tool}"))
        .find(|path| Path::new(path).is_file())
        .ok_or_else(|| IptablesError::NoTool { tool: tool.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_are_found_in_order_and_their_absence_is_told() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let directories = [first.path().to_str().unwrap(), second.path().to_str().unwrap()];
        let tool = Version::V6.tool("save");
        let error = find(&tool, &directories).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("no ip6tables-save"), "{error}");
        std::fs::write(second.path().join(&tool), "").unwrap();
        assert!(find(&tool, &directories).unwrap().starts_with(directories[1]));
        std::fs::write(first.path().join(&tool), "").unwrap();
        assert!(find(&tool, &directories).unwrap().starts_with(directories[0]));
    }

    #[test]
    fn each_version_has_its_own_tools() {
        assert_eq!(Version::V4.tool("restore"), "iptables-restore");
        assert_eq!(Version::V6.tool("restore"), "ip6tables-restore");
    }
}
