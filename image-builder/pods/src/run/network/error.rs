//! Why a guest cannot be connected to a network.

/// Why the guest cannot be connected as asked.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A word that cannot be read.
    #[error("{word:?}: {problem}")]
    Word {
        /// As the user gave it.
        word: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// Two rules want the same port of the host.
    #[error("{0} and {1} publish the same port of this host; leave one out or choose another port")]
    Twice(String, String),
    /// Ports lead into the guest by QEMU's network only.
    #[error(
        "ports are published with --network user only, not with {0}; leave -p out, or reach the pod by its own address"
    )]
    NotUser(String),
    /// Namespaces are root's.
    #[error("--network netns={name} needs root: it makes a device in that network namespace")]
    NotRoot {
        /// The namespace.
        name: String,
    },
    /// There is no such namespace.
    #[error("there is no network namespace {name:?}; `ip netns` lists them, `ip netns add` makes one")]
    NoNamespace {
        /// The name asked for.
        name: String,
    },
    /// The namespace has no link for the guest.
    #[error("network namespace {namespace} {problem}")]
    Link {
        /// The namespace.
        namespace: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// The host refused a step.
    #[error("cannot {operation}")]
    Host {
        /// What was tried, on what.
        operation: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The address for the sandbox API cannot be had.
    #[error(
        "cannot listen at {address} for the sandbox API; choose another address, or port 0 for any free one"
    )]
    SandboxApi {
        /// The address.
        address: std::net::SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A port of the host cannot be had.
    #[error("cannot publish {rule}: {problem}")]
    Port {
        /// The rule.
        rule: String,
        /// What to do.
        problem: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

impl NetworkError {
    pub(super) fn host(operation: String, source: std::io::Error) -> Self {
        Self::Host { operation, source }
    }

    pub(super) fn netlink(operation: String, error: rtnetlink::Error) -> Self {
        Self::host(operation, Self::of_netlink(error))
    }

    /// The kernel's error number, where there is one.
    pub(super) fn of_netlink(error: rtnetlink::Error) -> std::io::Error {
        match error {
            rtnetlink::Error::NetlinkError(message) => message.to_io(),
            other => std::io::Error::other(other.to_string()),
        }
    }
}
