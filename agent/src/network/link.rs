//! Links and their addresses.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::{LinkMessageBuilder, LinkUnspec};

use super::Session;
use super::address::{Family, HardwareAddress, IpAddress};
use super::error::{During as _, NetworkError};
use crate::device::pci::PciPath;

/// A network interface, as wanted or as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Interface {
    /// The name of the link; the same as `name`, unless the caller knows it by another.
    pub device: String,
    /// The name it has, or shall have.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddress>,
    /// Its MTU in bytes; 0 leaves it.
    pub mtu: u32,
    /// Its hardware address; none leaves it.
    pub hw_addr: Option<HardwareAddress>,
    /// Where the device is plugged in; only in requests.
    pub device_path: Option<PciPath>,
    /// The kind of link, such as `veth`; `device` when it has no driver of a kind.
    pub kind: String,
    /// The kernel's IFF_ flags. In a request only IFF_NOARP counts.
    pub raw_flags: u32,
}

/// A link as the kernel has it.
struct Link {
    index: u32,
    name: String,
    hw_addr: Option<HardwareAddress>,
    mtu: u32,
    flags: LinkFlags,
    kind: String,
}

impl Link {
    fn is_up(&self) -> bool {
        self.flags.contains(LinkFlags::Up)
    }
}

impl From<LinkMessage> for Link {
    fn from(message: LinkMessage) -> Self {
        let mut link = Link {
            index: message.header.index,
            name: String::new(),
            hw_addr: None,
            mtu: 0,
            flags: message.header.flags,
            kind: "device".to_owned(),
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Address(bytes) if !bytes.is_empty() => {
                    link.hw_addr = Some(HardwareAddress::from_bytes(&bytes));
                }
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::LinkInfo(infos) => {
                    let kind = infos.into_iter().find_map(|info| match info {
                        LinkInfo::Kind(kind) => Some(kind.to_string()),
                        _ => None,
                    });
                    link.kind = kind.unwrap_or(link.kind);
                }
                _ => {}
            }
        }
        link
    }
}

async fn links(session: &Session) -> Result<Vec<Link>, NetworkError> {
    session
        .handle
        .link()
        .get()
        .execute()
        .map_ok(Link::from)
        .try_collect()
        .await
        .during(|| "list links".to_owned())
}

async fn addresses(session: &Session) -> Result<Vec<AddressMessage>, NetworkError> {
    session.handle.address().get().execute().try_collect().await.during(|| "list addresses".to_owned())
}

/// The link's own address: on a point-to-point link the other attribute is the peer's.
fn own_address(message: &AddressMessage) -> Option<IpAddress> {
    let mut address = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(local) => {
                address = Some(*local);
                break;
            }
            AddressAttribute::Address(other) => address = address.or(Some(*other)),
            _ => {}
        }
    }
    Some(IpAddress { address: address?, prefix: message.header.prefix_len })
}

fn describe(link: Link, addresses: &[AddressMessage]) -> Interface {
    let addresses = addresses.iter().filter(|message| message.header.index == link.index);
    Interface {
        device: link.name.clone(),
        name: link.name,
        addresses: addresses.filter_map(own_address).collect(),
        mtu: link.mtu,
        hw_addr: link.hw_addr,
        device_path: None,
        kind: link.kind,
        raw_flags: link.flags.bits(),
    }
}

pub(super) async fn list(session: &Session) -> Result<Vec<Interface>, NetworkError> {
    let mut links = links(session).await?;
    let addresses = addresses(session).await?;
    links.sort_by_key(|link| link.index);
    Ok(links.into_iter().map(|link| describe(link, &addresses)).collect())
}

/// The index of the link with this name.
pub(super) async fn index_of(session: &Session, name: &str) -> Result<u32, NetworkError> {
    let found = links(session).await?.into_iter().find(|link| link.name == name);
    found.map(|link| link.index).ok_or_else(|| NetworkError::NoLink { wanted: format!("name {name:?}") })
}

/// The names of all links by index.
pub(super) async fn names(session: &Session) -> Result<Vec<(u32, String)>, NetworkError> {
    Ok(links(session).await?.into_iter().map(|link| (link.index, link.name)).collect())
}

fn at(index: u32) -> LinkMessageBuilder<LinkUnspec> {
    LinkUnspec::new_with_index(index)
}

async fn change(
    session: &Session,
    message: LinkMessageBuilder<LinkUnspec>,
    operation: impl FnOnce() -> String,
) -> Result<(), NetworkError> {
    session.handle.link().change(message.build()).execute().await.during(operation)
}

/// Finds the link, then: hardware address, name, MTU, addresses, up. A link keeps its addresses through a change of
/// name, but not its routes, since it must be down for it on kernels before 6.2.
pub(super) async fn update(
    session: &Session,
    wanted: &Interface,
    sys: &Path,
    proc: &Path,
) -> Result<Interface, NetworkError> {
    let all = links(session).await?;
    let link = find(&all, wanted, sys)?;
    let (index, old_name) = (link.index, link.name.as_str());
    let new_name = Some(wanted.name.as_str()).filter(|name| !name.is_empty() && *name != old_name);
    let new_hardware = wanted.hw_addr.as_ref().filter(|address| link.hw_addr.as_ref() != Some(address));
    if link.is_up() && (new_name.is_some() || new_hardware.is_some()) {
        change(session, at(index).down(), || format!("bring link {old_name} down")).await?;
    }
    if let Some(address) = new_hardware {
        let message = at(index).address(address.as_bytes().to_vec());
        change(session, message, || format!("set hardware address {address} of link {old_name}")).await?;
    }
    if let Some(name) = new_name {
        let holder = all.iter().find(|other| other.name == name);
        rename(session, link, name, holder).await?;
    }
    let name = new_name.unwrap_or(old_name);
    if wanted.mtu != 0 && wanted.mtu != link.mtu {
        let message = at(index).mtu(wanted.mtu);
        change(session, message, || format!("set MTU {} of link {name}", wanted.mtu)).await?;
    }
    if LinkFlags::from_bits_retain(wanted.raw_flags).contains(LinkFlags::Noarp) {
        change(session, at(index).arp(false), || format!("turn ARP off on link {name}")).await?;
    }
    refuse_announcements(proc, name)?;
    replace_addresses(session, index, name, &wanted.addresses, ipv6_usable(proc, name)).await?;
    change(session, at(index).up(), || format!("bring link {name} up")).await?;
    let now = list(session).await?.into_iter().find(|interface| interface.name == name);
    now.ok_or_else(|| NetworkError::NoLink { wanted: format!("name {name:?}") })
}

/// The link a request means: the device at a path if it names one, else the link with the hardware address, else the
/// one with the name.
fn find<'a>(all: &'a [Link], wanted: &Interface, sys: &Path) -> Result<&'a Link, NetworkError> {
    let by_name = |name: &str| all.iter().find(|link| link.name == name);
    if let Some(path) = &wanted.device_path {
        let link = path.link_name(sys).and_then(|name| by_name(&name));
        return link
            .ok_or_else(|| NetworkError::NotPlugged { path: path.to_string(), waited: Duration::ZERO });
    }
    if wanted.hw_addr.is_none() && wanted.name.is_empty() && wanted.device.is_empty() {
        return Err(NetworkError::Nameless);
    }
    let by_hardware = wanted.hw_addr.as_ref().and_then(|address| {
        all.iter()
            .find(|link| link.hw_addr.as_ref() == Some(address) && !link.flags.contains(LinkFlags::Loopback))
    });
    by_hardware.or_else(|| by_name(&wanted.name)).or_else(|| by_name(&wanted.device)).ok_or_else(|| {
        let hardware = wanted.hw_addr.as_ref().map(|address| format!("hardware address {address} or "));
        let name = if wanted.name.is_empty() { &wanted.device } else { &wanted.name };
        NetworkError::NoLink { wanted: format!("{}name {name:?}", hardware.unwrap_or_default()) }
    })
}

/// Gives `link`, which is down, the name. A link that has it gets the old name of `link` in exchange.
async fn rename(
    session: &Session,
    link: &Link,
    name: &str,
    holder: Option<&Link>,
) -> Result<(), NetworkError> {
    let set = async |index: u32, from: &str, to: &str| {
        change(session, at(index).name(to), || format!("rename link {from} to {to}")).await
    };
    let Some(holder) = holder else { return set(link.index, &link.name, name).await };
    // Shorter than IFNAMSIZ for any index.
    let meanwhile = format!("swap{}", holder.index);
    if holder.is_up() {
        change(session, at(holder.index).down(), || format!("bring link {name} down")).await?;
    }
    set(holder.index, name, &meanwhile).await?;
    set(link.index, &link.name, name).await?;
    set(holder.index, &meanwhile, &link.name).await?;
    if holder.is_up() {
        change(session, at(holder.index).up(), || format!("bring link {} up", link.name)).await?;
    }
    Ok(())
}

/// The host says what addresses and routes a link has: routers on it have no say, who else could give the pod both
/// (`accept_ra`, kernel documentation "IP Sysctl"). What they gave before is as it was.
fn refuse_announcements(proc: &Path, link: &str) -> Result<(), NetworkError> {
    let switch = proc.join("sys/net/ipv6/conf").join(link).join("accept_ra");
    match fs::write(&switch, "0") {
        // Without IPv6 there are no announcements.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        written => written.map_err(|source| NetworkError::Kernel {
            operation: format!("turn router advertisements off on link {link}"),
            source,
        }),
    }
}

/// Whether IPv6 is on for a link, or for the guest at all where `link` is empty: the kernel may lack it, or have it disabled.
pub(super) fn ipv6_usable(proc: &Path, link: &str) -> bool {
    let link = if link.is_empty() { "all" } else { link };
    let switch = proc.join("sys/net/ipv6/conf").join(link).join("disable_ipv6");
    fs::read_to_string(switch).is_ok_and(|text| text.trim() == "0")
}

/// Whether an address stands in the way of `listed` being all: permanent global ones do; link-local ones, those of
/// `lo` and those learnt from routers do not.
fn is_stale(message: &AddressMessage, listed: &[IpAddress]) -> bool {
    let long_flags = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Flags(flags) => Some(flags.bits()),
        _ => None,
    });
    let flags = long_flags.unwrap_or_else(|| u32::from(message.header.flags.bits()));
    message.header.scope == AddressScope::Universe
        && AddressFlags::from_bits_retain(flags).contains(AddressFlags::Permanent)
        && own_address(message).is_some_and(|address| !listed.contains(&address))
}

/// Makes `listed` the global addresses of a link.
async fn replace_addresses(
    session: &Session,
    index: u32,
    name: &str,
    listed: &[IpAddress],
    ipv6: bool,
) -> Result<(), NetworkError> {
    let present = addresses(session).await?;
    for stale in
        present.into_iter().filter(|message| message.header.index == index && is_stale(message, listed))
    {
        let address = own_address(&stale);
        let text = || {
            format!("remove address {} from link {name}", address.map_or(String::new(), |a| a.to_string()))
        };
        match session.handle.address().del(stale).execute().await.during(text) {
            // It went with another of the same network, of which it was a secondary.
            Err(NetworkError::Kernel { source, .. })
                if source.raw_os_error() == Some(rustix::io::Errno::ADDRNOTAVAIL.raw_os_error()) => {}
            result => result?,
        }
    }
    for address in listed {
        if address.family() == Family::V6 && !ipv6 {
            tracing::warn!(%address, link = name, "address left out: the guest has no IPv6 on this link");
            continue;
        }
        let mut request = session.handle.address().add(index, address.address, address.prefix).replace();
        if address.family() == Family::V6 {
            // The host owns the addresses. Probing for duplicates would keep them unusable for a second or two.
            request.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        request.execute().await.during(|| format!("add address {address} to link {name}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_route::address::AddressHeaderFlags;
    use std::net::IpAddr;

    fn message(address: &str, prefix: u8, scope: AddressScope, permanent: bool) -> AddressMessage {
        let address: IpAddr = address.parse().unwrap();
        let mut message = AddressMessage::default();
        message.header.prefix_len = prefix;
        message.header.scope = scope;
        if permanent {
            message.header.flags = AddressHeaderFlags::Permanent;
        }
        message.attributes.push(AddressAttribute::Address(address));
        message
    }

    #[test]
    fn only_permanent_global_addresses_that_are_not_listed_are_stale() {
        let listed = [IpAddress::parse("10.0.0.2", "24").unwrap()];
        let stale = |address, prefix, scope, permanent| {
            is_stale(&message(address, prefix, scope, permanent), &listed)
        };
        assert!(stale("10.0.0.3", 24, AddressScope::Universe, true));
        assert!(stale("10.0.0.2", 16, AddressScope::Universe, true), "the prefix is part of an address");
        assert!(!stale("10.0.0.2", 24, AddressScope::Universe, true));
        assert!(!stale("fe80::1", 64, AddressScope::Link, true));
        assert!(!stale("127.0.0.1", 8, AddressScope::Host, true));
        assert!(!stale("fd00::1", 64, AddressScope::Universe, false), "a router announced it");
    }

    #[test]
    fn the_own_address_of_a_point_to_point_link_is_the_local_one() {
        let mut message = message("10.0.0.1", 32, AddressScope::Universe, true);
        assert_eq!(own_address(&message).unwrap().to_string(), "10.0.0.1/32");
        message.attributes.push(AddressAttribute::Local("10.0.0.2".parse().unwrap()));
        assert_eq!(own_address(&message).unwrap().to_string(), "10.0.0.2/32");
    }

    fn link(index: u32, name: &str, hardware: &str) -> Link {
        Link {
            index,
            name: name.to_owned(),
            hw_addr: hardware.parse().ok(),
            mtu: 1500,
            flags: LinkFlags::default(),
            kind: "device".to_owned(),
        }
    }

    #[test]
    fn links_are_found_by_hardware_address_then_by_name() {
        let sys = tempfile::tempdir().unwrap();
        let all =
            [link(1, "lo", ""), link(2, "eth0", "02:00:00:00:00:02"), link(3, "eth1", "02:00:00:00:00:03")];
        let find = |wanted: &Interface| find(&all, wanted, sys.path()).map(|link| link.index);
        let mut wanted = Interface { hw_addr: "02:00:00:00:00:03".parse().ok(), ..Interface::default() };
        wanted.name = "eth0".to_owned();
        assert_eq!(find(&wanted).unwrap(), 3);
        wanted.hw_addr = "02:00:00:00:00:04".parse().ok();
        assert_eq!(find(&wanted).unwrap(), 2);
        wanted.name = "net9".to_owned();
        assert_eq!(
            find(&wanted).unwrap_err().to_string(),
            "no network link with hardware address 02:00:00:00:00:04 or name \"net9\""
        );
        wanted.device = "eth1".to_owned();
        assert_eq!(find(&wanted).unwrap(), 3);
        assert!(matches!(find(&Interface::default()), Err(NetworkError::Nameless)));
    }

    #[test]
    fn a_device_path_is_looked_up_and_never_guessed_around() {
        let sys = tempfile::tempdir().unwrap();
        let all = [link(2, "eth0", "02:00:00:00:00:02"), link(3, "eth1", "02:00:00:00:00:03")];
        let mut wanted = Interface { name: "eth0".to_owned(), ..Interface::default() };
        wanted.device_path = "05".parse().ok();
        assert!(
            matches!(find(&all, &wanted, sys.path()), Err(NetworkError::NotPlugged { path, .. }) if path == "05")
        );
        std::fs::create_dir_all(sys.path().join("bus/pci/devices/0000:00:05.0/virtio0/net/eth1")).unwrap();
        assert_eq!(find(&all, &wanted, sys.path()).unwrap().index, 3);
    }

    #[test]
    fn routers_have_no_say_on_links_that_the_host_configures() {
        let proc = tempfile::tempdir().unwrap();
        refuse_announcements(proc.path(), "eth0").unwrap();
        let conf = proc.path().join("sys/net/ipv6/conf/eth0");
        std::fs::create_dir_all(&conf).unwrap();
        std::fs::write(conf.join("accept_ra"), "1").unwrap();
        refuse_announcements(proc.path(), "eth0").unwrap();
        assert_eq!(std::fs::read_to_string(conf.join("accept_ra")).unwrap(), "0");
    }

    #[test]
    fn ipv6_counts_as_usable_only_when_the_kernel_says_so() {
        let proc = tempfile::tempdir().unwrap();
        assert!(!ipv6_usable(proc.path(), "eth0") && !ipv6_usable(proc.path(), ""));
        let conf = proc.path().join("sys/net/ipv6/conf/eth0");
        std::fs::create_dir_all(&conf).unwrap();
        std::fs::write(conf.join("disable_ipv6"), "1\n").unwrap();
        assert!(!ipv6_usable(proc.path(), "eth0"));
        std::fs::write(conf.join("disable_ipv6"), "0\n").unwrap();
        assert!(ipv6_usable(proc.path(), "eth0"));
    }
}
