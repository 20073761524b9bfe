//! Probes and hooks: what is asked of a container, or done in it, while it runs.

use std::time::Duration;

/// Something to do in a container or to ask it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handler {
    /// Run a command in it; good if it ends with 0.
    Exec(Vec<String>),
    /// Connect to a port; good if it is taken.
    Tcp {
        /// Another host than the pod.
        host: Option<String>,
        /// The port.
        port: u16,
    },
    /// Ask by HTTP; good if the status is 200 to 399.
    Http(HttpGet),
    /// Wait. Hooks only.
    Sleep(Duration),
}

/// A request by HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpGet {
    /// Another host than the pod.
    pub host: Option<String>,
    /// The port.
    pub port: u16,
    /// Path and query.
    pub path: String,
    /// More headers.
    pub headers: Vec<(String, String)>,
}

/// A question that is repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// What is asked.
    pub handler: Handler,
    /// How long to wait before the first time.
    pub delay: Duration,
    /// How long to wait between times.
    pub period: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// How many good answers in a row make a good state.
    pub successes: u32,
    /// How many bad answers in a row make a bad state.
    pub failures: u32,
    /// How long the container may take to end after a bad state, instead of the pod's time.
    pub grace: Option<Duration>,
}

/// The probes of a container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Probes {
    /// Whether it has started; the others wait for it.
    pub startup: Option<Probe>,
    /// Whether it lives; it is ended when not.
    pub liveness: Option<Probe>,
    /// Whether it is ready to serve; only shown.
    pub readiness: Option<Probe>,
}

/// What is done at the two ends of a container's life.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lifecycle {
    /// After its start; it is ended when this fails.
    pub post_start: Option<Handler>,
    /// Before it is told to end.
    pub pre_stop: Option<Handler>,
    /// The signal that asks it to end, instead of the image's.
    pub stop_signal: Option<String>,
}
