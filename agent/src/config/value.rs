//! The types of option values: what text each takes and how it is shown.

use std::fmt;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// The least severe level that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Only what ends the guest. Also written `fatal` or `panic`.
    Critical,
    /// Failures.
    Error,
    /// Also what was worked around. Also written `warning`.
    Warn,
    /// Also what a pod's life consists of.
    Info,
    /// Also how things are done.
    Debug,
    /// Everything.
    Trace,
}

/// Where the API is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerAddr {
    /// `vsock://CID:PORT`.
    Vsock {
        /// The local context id to listen on.
        cid: Cid,
        /// The port.
        port: u32,
    },
    /// `unix:///PATH`.
    Unix(PathBuf),
}

/// A local vsock context id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cid {
    /// Whichever the guest has; written -1.
    Any,
    /// This one.
    Is(u32),
}

/// What the REST server of confidential guests offers to containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestApi {
    /// Both.
    All,
    /// Attestation only.
    Attestation,
    /// Resources only.
    Resource,
}

/// How much of the chain of guest components starts; each implies those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GuestComponents {
    /// Nothing.
    None,
    /// The attestation agent.
    AttestationAgent,
    /// The confidential data hub.
    ConfidentialDataHub,
    /// The REST server.
    ApiServerRest,
}

/// Whether and where the sandbox API is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SandboxApi {
    /// Nowhere.
    Off,
    /// On vsock, for the host only.
    Vsock,
    /// On vsock, and in the pod's network once the host has set a token.
    Tcp,
}

/// A place for a value that can be set from text.
pub(super) trait Setting {
    /// Takes the value of an option, none when it is a bare word; refuses without changing anything.
    fn set(&mut self, text: Option<&str>) -> Result<(), Rejected>;
}

/// A value was not understood.
pub(super) struct Rejected {
    /// What would have been.
    pub(super) expected: &'static str,
    /// The value that stays, as text.
    pub(super) kept: String,
}

/// A type of value. Only [`bool`] takes a bare word.
trait Value: Sized {
    const EXPECTED: &'static str;
    fn read(text: &str) -> Option<Self>;
    fn bare() -> Option<Self> {
        None
    }
    fn show(&self) -> String;
}

impl<T: Value> Setting for T {
    fn set(&mut self, text: Option<&str>) -> Result<(), Rejected> {
        *self = match text {
            Some(text) => T::read(text),
            None => T::bare(),
        }
        .ok_or_else(|| Rejected { expected: T::EXPECTED, kept: self.show() })?;
        Ok(())
    }
}

impl Value for bool {
    const EXPECTED: &'static str = "true or false";
    fn read(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "1" | "true" | "yes" | "on" => Some(true),
            "0" | "false" | "no" | "off" => Some(false),
            _ => None,
        }
    }
    fn bare() -> Option<Self> {
        Some(true)
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

macro_rules! number {
    ($type:ty, $expected:literal) => {
        impl Value for $type {
            const EXPECTED: &'static str = $expected;
            fn read(text: &str) -> Option<Self> {
                text.parse().ok()
            }
            fn show(&self) -> String {
                self.to_string()
            }
        }
    };
}

number!(u8, "a number from 0 to 255");
number!(u64, "a number from 0 up");
number!(i64, "a number");

impl Value for u32 {
    const EXPECTED: &'static str = "a size in bytes from 0 to 2147483647";
    /// The kernel takes sizes of pipes as a C `int`.
    fn read(text: &str) -> Option<Self> {
        text.parse::<i32>().ok()?.try_into().ok()
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for Option<NonZeroU32> {
    const EXPECTED: &'static str = "a vsock port, or 0 for none";
    fn read(text: &str) -> Option<Self> {
        read_port(text).map(NonZeroU32::new)
    }
    fn show(&self) -> String {
        self.map_or(0, NonZeroU32::get).to_string()
    }
}

/// The largest number is not a port but VMADDR_PORT_ANY.
fn read_port(text: &str) -> Option<u32> {
    text.parse().ok().filter(|port| *port != u32::MAX)
}

impl Value for Duration {
    const EXPECTED: &'static str = "whole seconds from 1 to 4294967295";
    fn read(text: &str) -> Option<Self> {
        text.parse::<NonZeroU32>().ok().map(|seconds| Duration::from_secs(seconds.get().into()))
    }
    fn show(&self) -> String {
        format!("{} s", self.as_secs())
    }
}

impl Value for String {
    const EXPECTED: &'static str = "text";
    fn read(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }
    fn show(&self) -> String {
        self.clone()
    }
}

impl Value for Option<PathBuf> {
    const EXPECTED: &'static str = "an absolute path";
    fn read(text: &str) -> Option<Self> {
        text.starts_with('/').then(|| Some(PathBuf::from(text)))
    }
    fn show(&self) -> String {
        self.as_deref().map(|path| path.display().to_string()).unwrap_or_default()
    }
}

impl Value for LogLevel {
    const EXPECTED: &'static str = "fatal, panic, critical, error, warn, warning, info, debug or trace";
    fn read(text: &str) -> Option<Self> {
        Some(match text.to_ascii_lowercase().as_str() {
            "fatal" | "panic" | "critical" => LogLevel::Critical,
            "error" => LogLevel::Error,
            "warn" | "warning" => LogLevel::Warn,
            "info" => LogLevel::Info,
            "debug" => LogLevel::Debug,
            "trace" => LogLevel::Trace,
            _ => return None,
        })
    }
    fn show(&self) -> String {
        format!("{self:?}").to_ascii_lowercase()
    }
}

impl Value for RestApi {
    const EXPECTED: &'static str = "all, attestation or resource";
    fn read(text: &str) -> Option<Self> {
        [RestApi::All, RestApi::Attestation, RestApi::Resource].into_iter().find(|api| api.show() == text)
    }
    fn show(&self) -> String {
        match self {
            RestApi::All => "all",
            RestApi::Attestation => "attestation",
            RestApi::Resource => "resource",
        }
        .to_owned()
    }
}

impl Value for SandboxApi {
    const EXPECTED: &'static str = "off, vsock or tcp";
    fn read(text: &str) -> Option<Self> {
        [SandboxApi::Off, SandboxApi::Vsock, SandboxApi::Tcp].into_iter().find(|api| api.show() == text)
    }
    fn show(&self) -> String {
        format!("{self:?}").to_ascii_lowercase()
    }
}

impl Value for GuestComponents {
    const EXPECTED: &'static str = "none, attestation-agent, confidential-data-hub or api-server-rest";
    fn read(text: &str) -> Option<Self> {
        use GuestComponents::{ApiServerRest, AttestationAgent, ConfidentialDataHub, None};
        [None, AttestationAgent, ConfidentialDataHub, ApiServerRest]
            .into_iter()
            .find(|some| some.show() == text)
    }
    fn show(&self) -> String {
        match self {
            GuestComponents::None => "none",
            GuestComponents::AttestationAgent => "attestation-agent",
            GuestComponents::ConfidentialDataHub => "confidential-data-hub",
            GuestComponents::ApiServerRest => "api-server-rest",
        }
        .to_owned()
    }
}

impl Value for ServerAddr {
    const EXPECTED: &'static str = "vsock://CID:PORT (CID -1 for any) or unix:///PATH";
    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

/// The text is no address of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a server address is {}", ServerAddr::EXPECTED)]
pub struct BadServerAddr;

impl FromStr for ServerAddr {
    type Err = BadServerAddr;

    fn from_str(text: &str) -> Result<Self, BadServerAddr> {
        if let Some(path) = text.strip_prefix("unix://") {
            return if path.len() > 1 && path.starts_with('/') {
                Ok(ServerAddr::Unix(PathBuf::from(path)))
            } else {
                Err(BadServerAddr)
            };
        }
        let (cid, port) =
            text.strip_prefix("vsock://").and_then(|rest| rest.split_once(':')).ok_or(BadServerAddr)?;
        let cid = match cid {
            "-1" => Cid::Any,
            // VMADDR_CID_ANY is -1 as an unsigned number.
            _ => match cid.parse().map_err(|_| BadServerAddr)? {
                u32::MAX => Cid::Any,
                cid => Cid::Is(cid),
            },
        };
        let port = read_port(port).filter(|port| *port != 0).ok_or(BadServerAddr)?;
        Ok(ServerAddr::Vsock { cid, port })
    }
}

impl fmt::Display for ServerAddr {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServerAddr::Vsock { cid: Cid::Any, port } => write!(out, "vsock://-1:{port}"),
            ServerAddr::Vsock { cid: Cid::Is(cid), port } => write!(out, "vsock://{cid}:{port}"),
            ServerAddr::Unix(path) => write!(out, "unix://{}", path.display()),
        }
    }
}
