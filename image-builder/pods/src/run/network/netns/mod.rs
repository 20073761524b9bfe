//! A link of a network namespace, given to the guest as Kata gives it: a TAP device beside the link, and all that
//! arrives at one leaves by the other.
//!
//! ```text
//!   namespace NAME                                          guest
//!  ┌──────────────────────────────────────────────┐        ┌──────────────────────────────┐
//!  │  LINK  ◄── ingress, u32, mirred redirect ──► TAP ◄───►│ LINK: its hardware address,  │
//!  └──────────────────────────────────────────────┘  QEMU  │ MTU, addresses, routes       │
//!                                                          └──────────────────────────────┘
//! ```
//!
//! Promises that the namespace is afterwards as it was. The device goes with its last descriptor even when this process
//! is killed; the link's ingress queue is then left, and the next run says so. Must never change a link's addresses, nor
//! replace what somebody else put there.

mod look;
mod mirror;

use std::fs::File;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use nix::sched::{CloneFlags, setns};
use rtnetlink::Handle;

use self::look::Look;
use super::NetworkError;
use crate::run::RunError;
use machine::vm::{AgentClient, Nic};

/// Where `ip netns` keeps namespaces, and files that programs in them shall see below `/etc`.
const NAMESPACES: &str = "/run/netns";
const FILES: &str = "/etc/netns";

/// A guest's place in a namespace. Dropping it takes everything away that was made for it.
#[derive(Debug)]
pub(in crate::run) struct Attachment {
    namespace: File,
    device: Arc<OwnedFd>,
    mirror: mirror::Mirror,
    look: Look,
    dns: Vec<String>,
}

impl Attachment {
    /// Makes a TAP device in a namespace and connects it with a link there.
    pub(super) fn take(name: &str, link: Option<&str>) -> Result<Self, NetworkError> {
        if !nix::unistd::geteuid().is_root() {
            return Err(NetworkError::NotRoot { name: name.to_owned() });
        }
        let path = Path::new(NAMESPACES).join(name);
        let namespace = File::open(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => NetworkError::NoNamespace { name: name.to_owned() },
            _ => NetworkError::host(format!("open network namespace {}", path.display()), source),
        })?;
        let (look, device, mirror) = within(&namespace, async |handle| {
            let look = look::at(&handle, name, link).await?;
            let (device, mirror) = mirror::make(&handle, name, &look).await?;
            Ok((look, device, mirror))
        })?;
        let dns = std::fs::read_to_string(Path::new(FILES).join(name).join("resolv.conf"));
        let dns = resolver_lines(&dns.unwrap_or_default());
        Ok(Self { namespace, device: Arc::new(device), mirror, look, dns })
    }

    /// The guest's card.
    pub(super) fn nic(&self) -> Nic {
        Nic::Tap { device: Arc::clone(&self.device), mac: self.look.interface.hwAddr.clone() }
    }

    /// Lines of `resolv.conf`, as programs in the namespace see them.
    pub(super) fn dns(&self) -> Vec<String> {
        self.dns.clone()
    }

    /// The addresses that the guest takes over.
    pub(super) fn addresses(&self) -> Vec<String> {
        self.look.interface.IPAddresses.iter().map(|address| address.address.clone()).collect()
    }

    /// Makes the guest's card what the link is.
    pub(super) async fn configure(&self, client: &AgentClient) -> Result<(), RunError> {
        let Look { interface, routes, neighbours, .. } = &self.look;
        super::configure::configure(client, interface, routes, neighbours).await
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        let mirror = &self.mirror;
        // A failure means that somebody removed the link first, and all that hung on it is gone.
        drop(within(&self.namespace, async |handle| {
            mirror.remove(&handle).await;
            Ok(())
        }));
    }
}

/// Does work inside a namespace, on a thread of its own: entering one is for the rest of a thread's life.
fn within<T, F>(namespace: &File, work: impl FnOnce(Handle) -> F + Send) -> Result<T, NetworkError>
where
    T: Send,
    F: Future<Output = Result<T, NetworkError>>,
{
    let failed = |operation: &str, source: io::Error| NetworkError::host(operation.to_owned(), source);
    let inside = || {
        setns(namespace, CloneFlags::CLONE_NEWNET)
            .map_err(|error| failed("enter the network namespace", error.into()))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|error| failed("start a runtime for netlink", error))?.block_on(async {
            let (connection, handle, _events) =
                rtnetlink::new_connection().map_err(|error| failed("open a netlink socket", error))?;
            let connection = tokio::spawn(connection);
            let result = work(handle).await;
            connection.abort();
            result
        })
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".into()).spawn_scoped(scope, inside);
        let thread = thread.map_err(|error| failed("start a thread for a network namespace", error))?;
        let died = || failed("work in a network namespace", io::Error::other("the thread died"));
        thread.join().unwrap_or_else(|_| Err(died()))
    })
}

/// What the guest's resolver understands.
fn resolver_lines(text: &str) -> Vec<String> {
    let known = |line: &&str| {
        matches!(line.split_whitespace().next(), Some("nameserver" | "search" | "domain" | "options"))
    };
    text.lines().map(str::trim).filter(known).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolver_lines_are_kept_and_comments_not() {
        let text = "# made by hand\nnameserver 10.0.0.53\n\n  search a b\nsortlist x\n";
        assert_eq!(resolver_lines(text), ["nameserver 10.0.0.53", "search a b"]);
    }

    #[test]
    fn a_namespace_that_is_not_there_is_named() {
        let text = Attachment::take("pith-no-such", None).unwrap_err().to_string();
        let root = nix::unistd::geteuid().is_root();
        assert!(
            text.contains(if root { "no network namespace \"pith-no-such\"" } else { "needs root" }),
            "{text}"
        );
    }
}
