//! How the guest is connected: what the user may ask for, and what it takes to give it.
//!
//! ```text
//!  none            no card
//!  user            QEMU's own network; published ports lead in       ── UpdateInterface, UpdateRoutes
//!  netns=NAME      a TAP device mirrored to a link of a namespace    ── the same, and AddARPNeighbors
//! ```

mod configure;
mod error;
mod mode;
mod netns;
mod publish;
mod sys;
mod user;

pub use error::NetworkError;
pub use mode::{Network, NetworkMode};
pub(super) use publish::Held;
pub use publish::Publish;

use std::sync::{Mutex, PoisonError};

use super::RunError;
use machine::vm::{AgentClient, Forward, Nic, Protocol};

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
