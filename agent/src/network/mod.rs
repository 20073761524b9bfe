//! The guest's network: links, addresses and routes, over rtnetlink; packet filters, by their programs.
//!
//! Owns the conversation with the kernel about the network namespace the agent runs in, which is the pod's.
//! Promises that what the caller lists is what is true afterwards, that listings tell what the kernel has, and
//! that an update runs to its end even when the caller goes away, one update at a time.
//!
//! Must never do: resolve names, or know anything of the API's messages.

mod address;
mod arrival;
mod error;
pub(crate) mod iptables;
mod link;
mod neighbour;
mod route;
mod session;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::task::JoinHandle;

pub(crate) use self::address::parse_ip;
pub use self::address::{Family, HardwareAddress, IpAddress, Prefix};
pub use self::error::NetworkError;
pub use self::link::Interface;
pub use self::neighbour::Neighbour;
pub use self::route::{Route, Source};
pub use crate::device::pci::PciPath;
use crate::device::watch::DeviceWatch;
use crate::patience::Patience;
use session::{Session, bring_up};

/// The network of the guest. Clones are handles to the same.
#[derive(Debug, Clone)]
pub struct Network {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Held by whoever changes something: swapping the names of two links must not meet another update.
    update: Mutex<()>,
    /// Where cards that are yet to come are noticed.
    devices: DeviceWatch,
    /// Threads to wait for them on.
    patience: Patience,
    proc: PathBuf,
}

impl Network {
    /// The network namespace of the calling process.
    pub(crate) fn new(devices: DeviceWatch, patience: Patience) -> Network {
        let shared = Shared { update: Mutex::new(()), devices, patience, proc: "/proc".into() };
        Network { shared: Arc::new(shared) }
    }

    /// All links with their addresses, by index.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub async fn list_interfaces(&self) -> Result<Vec<Interface>, NetworkError> {
        link::list(&Session::open()?).await
    }

    /// The unicast routes of the main table, IPv4 first.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub async fn list_routes(&self) -> Result<Vec<Route>, NetworkError> {
        route::list(&Session::open()?).await
    }

    /// Makes a link what `wanted` says and brings it up: its name, hardware address, MTU and global addresses.
    /// Answers with the interface as it is then. A card that is named by its place or hardware address is awaited.
    ///
    /// # Errors
    /// When no link fits in time, or the kernel refuses a part; what was done before stays.
    pub async fn update_interface(&self, wanted: &Interface) -> Result<Interface, NetworkError> {
        let (shared, wanted) = (Arc::clone(&self.shared), wanted.clone());
        finish(tokio::spawn(async move {
            arrival::wait(&wanted, &shared.devices, &shared.patience).await?;
            let _one_at_a_time = shared.update.lock().await;
            link::update(&Session::open()?, &wanted, shared.devices.sys(), &shared.proc).await
        }))
        .await
    }

    /// Adds or replaces routes, those without a gateway first, and leaves all others. Answers with all routes. Those of IPv6 are
    /// left out with a warning where the guest has no IPv6.
    ///
    /// # Errors
    /// When a device is unknown or the kernel refuses a route; those added before stay.
    pub async fn update_routes(&self, wanted: &[Route]) -> Result<Vec<Route>, NetworkError> {
        let (shared, wanted) = (Arc::clone(&self.shared), wanted.to_vec());
        finish(tokio::spawn(async move {
            let _one_at_a_time = shared.update.lock().await;
            route::update(&Session::open()?, &wanted, &shared.proc).await
        }))
        .await
    }

    /// Adds or replaces entries of the neighbour tables, but for those of IPv6 where the guest has none.
    ///
    /// # Errors
    /// When a device is unknown or the kernel refuses an entry; those added before stay.
    pub async fn add_neighbours(&self, wanted: &[Neighbour]) -> Result<(), NetworkError> {
        let (shared, wanted) = (Arc::clone(&self.shared), wanted.to_vec());
        finish(tokio::spawn(async move {
            let _one_at_a_time = shared.update.lock().await;
            neighbour::add(&Session::open()?, &wanted, &shared.proc).await
        }))
        .await
    }
}

/// Brings `lo` up; the kernel gives it its addresses. By ioctl: nothing waits for the netlink code to be read in before the
/// guest is ready.
///
/// # Errors
/// When there is none, or the kernel refuses.
pub fn loopback_up() -> Result<(), NetworkError> {
    bring_up("lo")
}

async fn finish<T>(task: JoinHandle<Result<T, NetworkError>>) -> Result<T, NetworkError> {
    task.await.map_err(NetworkError::Aborted)?
}
