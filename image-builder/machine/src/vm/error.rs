//! What can go wrong between a kernel file and an agent that answers.

use std::fmt;
use std::io;
use std::path::PathBuf;

use protocols::client::DialError;

/// How an end by this signal is told: a system call that a filter forbids.
const SIGSYS: &str = "signal 31";

/// Why a machine did not boot or could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// A program that is needed is not installed.
    #[error("{tool} is not installed; {fix}")]
    MissingTool {
        /// The program.
        tool: &'static str,
        /// What the user can do.
        fix: &'static str,
    },
    /// There is no QEMU for the guest's architecture.
    #[error("{name} is not installed; install it (Debian: {fix}) or name it in {variable}")]
    MissingQemu {
        /// The program.
        name: &'static str,
        /// What installs it.
        fix: &'static str,
        /// The variable that can name another one.
        variable: &'static str,
    },
    /// A variable names a program that is not there.
    #[error("{variable} names {}, which is no file; unset it, or name {tool} in it", path.display())]
    NamedTool {
        /// The variable.
        variable: &'static str,
        /// What it says.
        path: PathBuf,
        /// The program that is wanted.
        tool: &'static str,
    },
    /// An operation of the host failed.
    #[error("cannot {operation} {subject}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// With what.
        subject: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A socket in the run directory would have a name that no Unix socket can have.
    #[error("{} is longer than the 107 bytes of a Unix socket's name; choose a shorter run directory", path.display())]
    PathTooLong {
        /// The name that is too long.
        path: PathBuf,
    },
    /// The configuration asks for something the machine model does not have.
    #[error("{0}")]
    Config(String),
    /// The vsock device did not come up.
    #[error("vhost-device-vsock did not start: {messages}")]
    VsockDevice {
        /// Its own words.
        messages: String,
    },
    /// QEMU did not do as it was told.
    #[error("QEMU refused {command}: {messages}")]
    Qmp {
        /// What it was told.
        command: String,
        /// Its own words.
        messages: String,
    },
    /// The daemon of a shared directory did not come up.
    #[error("virtiofsd did not start for {}: {messages}", directory.display())]
    Share {
        /// The directory.
        directory: PathBuf,
        /// Its own words.
        messages: String,
    },
    /// QEMU ended before the agent was ready.
    #[error("QEMU ({engine}) ended ({status}) before the agent was ready{}", annex(messages, console))]
    Ended {
        /// Accelerator.
        engine: &'static str,
        /// Exit status.
        status: String,
        /// What QEMU wrote to stderr.
        messages: String,
        /// The end of the guest's console.
        console: String,
    },
    /// No ready line in time.
    #[error("the agent was not ready after {seconds} s under {engine}{}", annex("", console))]
    Deadline {
        /// Accelerator.
        engine: &'static str,
        /// How long we waited.
        seconds: u64,
        /// The end of the guest's console.
        console: String,
    },
    /// A guest with little memory did not get ready.
    #[error(
        "{error}\n--- it has {mib} MiB of memory, and what is too little often ends without a word; try {enough} MiB"
    )]
    Memory {
        /// What it has, in MiB.
        mib: u32,
        /// What is enough for every flavour, in MiB.
        enough: u32,
        /// What happened.
        error: Box<VmError>,
    },
    /// The guest was not reached.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// No accelerator was left to try.
    #[error("the guest boots under no accelerator that was allowed")]
    NoAccelerator,
}

/// The console and QEMU's own messages as they follow the one-line text of an error.
fn annex(messages: &str, console: &str) -> impl fmt::Display {
    let mut text = String::new();
    if !messages.trim().is_empty() {
        text.push_str("\n--- QEMU said:\n");
        text.push_str(messages.trim_end());
    }
    if console.trim().is_empty() {
        text.push_str("\n--- the guest's console is empty");
    } else {
        text.push_str("\n--- the end of the guest's console:\n");
        text.push_str(console.trim_end());
    }
    text
}

impl VmError {
    pub(crate) fn io(operation: &'static str, subject: impl fmt::Display, source: io::Error) -> Self {
        Self::Io { operation, subject: subject.to_string(), source }
    }

    /// Whether the guest, rather than the host's set-up, is to blame.
    pub(crate) fn is_of_the_guest(&self) -> bool {
        matches!(self, Self::Ended { .. } | Self::Deadline { .. } | Self::Memory { .. })
    }

    /// Whether another VM of the host holds the CID that was picked.
    pub(crate) fn is_cid_in_use(&self) -> bool {
        matches!(self, Self::Ended { messages, .. } if messages.contains("Address already in use"))
    }

    /// Whether QEMU could not enter its sandbox, or was killed for a system call that the sandbox forbids.
    pub(super) fn is_of_the_sandbox(&self) -> bool {
        match self {
            Self::Ended { messages, status, .. } => {
                messages.contains("sandbox") || messages.contains("seccomp") || status == SIGSYS
            }
            _ => false,
        }
    }

    /// With a word about the guest's memory, where that may be what it wanted for.
    pub(super) fn with_memory(self, mib: u32) -> Self {
        let enough = super::model::ENOUGH_MEMORY_MIB;
        if mib < enough && self.is_of_the_guest() {
            return Self::Memory { mib, enough, error: Box::new(self) };
        }
        self
    }

    /// The first line of the text.
    pub(crate) fn headline(&self) -> String {
        self.to_string().lines().next().unwrap_or_default().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_shows_the_console() {
        let error = VmError::Deadline { engine: "tcg", seconds: 5, console: "Kernel panic\n".into() };
        assert_eq!(error.headline(), "the agent was not ready after 5 s under tcg");
        assert!(error.to_string().ends_with("console:\nKernel panic"));
        assert!(error.is_of_the_guest());
    }

    #[test]
    fn little_memory_is_named_where_it_may_be_the_cause() {
        let error = || VmError::Deadline { engine: "tcg", seconds: 5, console: String::new() };
        let text = error().with_memory(48).to_string();
        assert!(text.starts_with("the agent was not ready after 5 s under tcg\n"), "{text}");
        assert!(text.ends_with(
            "it has 48 MiB of memory, and what is too little often ends without a word; try 128 MiB"
        ));
        assert!(!error().with_memory(128).to_string().contains("memory"));
        assert!(!VmError::NoAccelerator.with_memory(48).to_string().contains("memory"));
    }

    #[test]
    fn a_sandbox_that_cannot_be_had_is_recognised() {
        let ended = |status: &str, messages: &str| VmError::Ended {
            engine: "tcg",
            status: status.into(),
            messages: messages.into(),
            console: String::new(),
        };
        let without = "qemu-system-x86_64: -sandbox on: There is no option group 'sandbox'";
        assert!(ended("exit status 1", without).is_of_the_sandbox());
        assert!(ended("exit status 1", "failed to install seccomp syscall filter").is_of_the_sandbox());
        assert!(ended("signal 31", "").is_of_the_sandbox());
        assert!(!ended("signal 9", "could not open disk").is_of_the_sandbox());
    }

    #[test]
    fn a_taken_cid_is_recognised() {
        let messages = "qemu: vhost-vsock: unable to set guest cid: Address already in use".to_owned();
        let error =
            VmError::Ended { engine: "kvm", status: "exit 1".into(), messages, console: String::new() };
        assert!(error.is_cid_in_use());
        assert!(error.to_string().contains("console is empty"));
    }
}
