//! How the guest is connected: what the user may ask for, and what it takes to give it.
//!
//! ```text
//!  none            no card
//!  user            QEMU's own network; published ports lead in       ── UpdateInterface, UpdateRoutes
//!  netns=NAME      a TAP device mirrored to a link of a namespace    ── the same, and AddARPNeighbors
//! ```

mod mode;
mod netns;
mod publish;
mod sys;
mod user;

pub use mode::{Network, NetworkMode};
pub(super) use publish::Held;
pub use publish::Publish;

use std::sync::{Mutex, PoisonError};

use protobuf::MessageField;
use protocols::agent::{
    ARPNeighbors, AddARPNeighborsRequest, Routes, UpdateInterfaceRequest, UpdateRoutesRequest,
};
use protocols::types::{ARPNeighbor, Interface, Route};

use super::RunError;
use machine::vm::{AgentClient, Forward, Nic, Protocol};

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
    fn host(operation: String, source: std::io::Error) -> Self {
        Self::Host { operation, source }
    }

    fn netlink(operation: String, error: rtnetlink::Error) -> Self {
        Self::host(operation, Self::of_netlink(error))
    }

    /// The kernel's error number, where there is one.
    fn of_netlink(error: rtnetlink::Error) -> std::io::Error {
        match error {
            rtnetlink::Error::NetlinkError(message) => message.to_io(),
            other => std::io::Error::other(other.to_string()),
        }
    }
}

/// A connection that is ready for a machine. Dropping it takes back what was made for it.
#[derive(Debug)]
pub(super) enum Connection {
    /// None.
    Absent,
    /// QEMU's user-mode network.
    User {
        /// Ports that lead in from the boot on.
        open: Vec<Forward>,
        /// Ports that lead in once somebody answers there.
        held: Mutex<Vec<Held>>,
    },
    /// A link of a network namespace.
    Netns(Box<netns::Attachment>),
}

impl Connection {
    /// Makes what a network needs on the host.
    pub(super) fn open(network: &Network) -> Result<Self, NetworkError> {
        match network {
            Network::None => Ok(Self::Absent),
            Network::User { publish } => {
                publish::check_free(publish)?;
                let held: Result<Vec<Held>, NetworkError> = network.held().map(Held::take).collect();
                let is_open = |forward: &&Forward| forward.protocol != Protocol::Tcp;
                let open = publish.iter().filter(is_open).copied().collect();
                Ok(Self::User { open, held: Mutex::new(held?) })
            }
            Network::Netns { name, link } => {
                Ok(Self::Netns(Box::new(netns::Attachment::take(name, link.as_deref())?)))
            }
        }
    }

    /// The machine's card.
    pub(super) fn nic(&self) -> Nic {
        match self {
            Self::Absent => Nic::Absent,
            Self::User { open, .. } => Nic::User { forwards: open.clone() },
            Self::Netns(place) => place.nic(),
        }
    }

    /// Takes the ports that are to be opened once somebody answers there.
    pub(super) fn take_held(&self) -> Vec<Held> {
        match self {
            Self::User { held, .. } => {
                std::mem::take(&mut held.lock().unwrap_or_else(PoisonError::into_inner))
            }
            Self::Absent | Self::Netns(_) => Vec::new(),
        }
    }

    /// Lines of `resolv.conf` for a pod that has none.
    pub(super) fn dns(&self) -> Vec<String> {
        match self {
            Self::Absent => Vec::new(),
            Self::User { .. } => vec![user::NAMESERVER.to_owned()],
            Self::Netns(place) => place.dns(),
        }
    }

    /// The guest's addresses.
    pub(super) fn addresses(&self) -> Vec<String> {
        match self {
            Self::Absent => Vec::new(),
            Self::User { .. } => vec![user::ADDRESS.to_owned()],
            Self::Netns(place) => place.addresses(),
        }
    }

    /// The host's address, as the guest sees it.
    pub(super) fn host(&self) -> Option<String> {
        matches!(self, Self::User { .. }).then(|| user::GATEWAY.to_owned())
    }

    /// Gives the guest's card its addresses and routes.
    pub(super) async fn configure(&self, client: &AgentClient) -> Result<(), RunError> {
        match self {
            Self::Absent => Ok(()),
            Self::User { .. } => user::configure(client).await,
            Self::Netns(place) => place.configure(client).await,
        }
    }
}

/// Has the guest's card become an interface, through the agent as a shim would.
async fn configure(
    client: &AgentClient,
    interface: &Interface,
    routes: &[Route],
    neighbours: &[ARPNeighbor],
) -> Result<(), RunError> {
    let link = interface.name.as_str();
    let request =
        UpdateInterfaceRequest { interface: MessageField::some(interface.clone()), ..Default::default() };
    let updated = client.agent.update_interface(AgentClient::call(), &request).await;
    updated.map_err(RunError::call("UpdateInterface", link))?;
    if !routes.is_empty() {
        let routes = Routes { Routes: routes.to_vec(), ..Default::default() };
        let request = UpdateRoutesRequest { routes: MessageField::some(routes), ..Default::default() };
        let updated = client.agent.update_routes(AgentClient::call(), &request).await;
        updated.map_err(RunError::call("UpdateRoutes", link))?;
    }
    if !neighbours.is_empty() {
        let neighbours = ARPNeighbors { ARPNeighbors: neighbours.to_vec(), ..Default::default() };
        let request =
            AddARPNeighborsRequest { neighbors: MessageField::some(neighbours), ..Default::default() };
        let added = client.agent.add_arp_neighbors(AgentClient::call(), &request).await;
        added.map_err(RunError::call("AddARPNeighbors", link))?;
    }
    Ok(())
}
