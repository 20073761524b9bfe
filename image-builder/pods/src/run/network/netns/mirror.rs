//! Connects a TAP device and a link: everything that arrives at one is sent out of the other.

use std::io;
use std::os::fd::OwnedFd;

use futures_util::TryStreamExt as _;
use netlink_packet_route::tc::TcHandle;
use rtnetlink::{Handle, LinkUnspec};

use super::super::{NetworkError, sys};
use super::look::Look;

/// The kernel puts a number for `%d`.
const PATTERN: &str = "pith%d";
/// The parent of filters for what arrives, `ffff:` to tc(8).
const INGRESS: u32 = 0xffff_0000;
/// `ETH_P_ALL`, in the network's order of bytes as the message has it.
const ALL_PROTOCOLS: u16 = 0x0003_u16.to_be();

/// What was made in a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mirror {
    link: u32,
    tap: u32,
}

/// Makes a TAP device in the calling thread's namespace and mirrors it to a link. Nothing is left when a step fails.
pub(super) async fn make(
    handle: &Handle,
    namespace: &str,
    look: &Look,
) -> Result<(OwnedFd, Mirror), NetworkError> {
    let link = look.interface.name.as_str();
    let within = |text: String| format!("{text} in network namespace {namespace}");
    let (device, tap) = sys::make_tap(PATTERN).map_err(|source| {
        NetworkError::host(within("make a TAP device (/dev/net/tun)".to_owned()), source)
    })?;
    // From here on the device goes with `device` when a step fails, and with it all that hangs on it.
    let failed = |text: String| move |error| NetworkError::netlink(within(text), error);
    let found = handle.link().get().match_name(tap.clone()).execute().try_next().await;
    let index = found.map_err(failed(format!("find TAP device {tap}")))?.map(|link| link.header.index);
    let index = index.ok_or_else(|| {
        NetworkError::host(within(format!("find TAP device {tap}")), io::ErrorKind::NotFound.into())
    })?;
    let mtu = u32::try_from(look.interface.mtu).unwrap_or(u32::MAX);
    let up = LinkUnspec::new_with_index(index).mtu(mtu).up().build();
    let text = format!("bring TAP device {tap} up with MTU {mtu}");
    handle.link().change(up).execute().await.map_err(failed(text))?;
    add_ingress(handle, index)
        .await
        .map_err(|error| refused(within(ingress_of(&tap)), namespace, &tap, error))?;

    add_ingress(handle, look.index)
        .await
        .map_err(|error| refused(within(ingress_of(link)), namespace, link, error))?;
    let mirror = Mirror { link: look.index, tap: index };
    for (from, to, text) in [
        (mirror.tap, mirror.link, format!("redirect {tap} to {link} (u32 filter with action mirred)")),
        (mirror.link, mirror.tap, format!("redirect {link} to {tap} (u32 filter with action mirred)")),
    ] {
        if let Err(error) = redirect(handle, from, to).await {
            mirror.remove(handle).await;
            return Err(refused(within(text), namespace, link, error));
        }
    }
    Ok((device, mirror))
}

impl Mirror {
    /// Takes everything away. What is gone already stays gone.
    pub(super) async fn remove(&self, handle: &Handle) {
        // The link first: what it redirects to a device that is gone is lost, not delivered.
        let mut ingress = handle.qdisc().del(index(self.link));
        ingress.message_mut().header.parent = TcHandle::INGRESS;
        drop(ingress.execute().await);
        drop(handle.link().del(self.tap).execute().await);
    }
}

/// Links' numbers are positive (`dev_new_index`), and signed in this part of netlink.
fn index(link: u32) -> i32 {
    link.cast_signed()
}

fn ingress_of(link: &str) -> String {
    format!("add an ingress queue to {link} (tc qdisc ingress)")
}

/// Never replaces one: it may be somebody else's.
async fn add_ingress(handle: &Handle, link: u32) -> Result<(), rtnetlink::Error> {
    handle.qdisc().add(index(link)).ingress().execute().await
}

/// Lets all that arrives at a link leave by another one.
async fn redirect(handle: &Handle, from: u32, to: u32) -> Result<(), rtnetlink::Error> {
    let mut filter = handle.traffic_filter(index(from));
    filter.add().parent(INGRESS).priority(1).protocol(ALL_PROTOCOLS).redirect(to)?.execute().await
}

/// Says what can be done about the kernel's refusals that are to be expected.
fn refused(operation: String, namespace: &str, link: &str, error: rtnetlink::Error) -> NetworkError {
    let source = NetworkError::of_netlink(error);
    let fix = match source.kind() {
        io::ErrorKind::AlreadyExists => format!(
            "; it has one, of another program or of a run that was killed: `tc -n {namespace} qdisc del dev {link} \
             ingress` removes it"
        ),
        io::ErrorKind::NotFound => {
            "; the host's kernel needs CONFIG_NET_SCH_INGRESS, CONFIG_NET_CLS_U32 and CONFIG_NET_ACT_MIRRED"
                .to_owned()
        }
        _ => String::new(),
    };
    NetworkError::host(operation + &fix, source)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(errno: i32) -> String {
        let mut message = rtnetlink::packet_core::ErrorMessage::default();
        message.code = std::num::NonZeroI32::new(-errno);
        let error = rtnetlink::Error::NetlinkError(message);
        refused(ingress_of("eth0"), "pod", "eth0", error).to_string()
    }

    #[test]
    fn refusals_that_can_be_helped_say_how() {
        let (enoent, eexist, eperm) = (2, 17, 1);
        assert!(refusal(eexist).contains("`tc -n pod qdisc del dev eth0 ingress`"), "{}", refusal(eexist));
        assert!(refusal(enoent).contains("CONFIG_NET_SCH_INGRESS"), "{}", refusal(enoent));
        assert!(refusal(eperm).ends_with("(tc qdisc ingress)"), "{}", refusal(eperm));
    }
}
