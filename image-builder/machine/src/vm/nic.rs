//! The guest's network card, and what QEMU connects it to.

use std::ffi::OsString;
use std::fmt;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::model::MAC;

/// What the guest's network card is connected to.
#[derive(Debug, Clone, Default)]
pub enum Nic {
    /// The guest has no card, only its loopback.
    #[default]
    Absent,
    /// QEMU's user-mode network (DHCP at 10.0.2.2): a way out, and ports of the host that lead in.
    User {
        /// The ports that lead in.
        forwards: Vec<Forward>,
    },
    /// A TAP device that the host made.
    Tap {
        /// The open device, which QEMU inherits.
        device: Arc<OwnedFd>,
        /// The card's hardware address.
        mac: String,
    },
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// A port of the host that leads to a port of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The host's address; `0.0.0.0` for all of them.
    pub host_address: Ipv4Addr,
    /// The host's port.
    pub host_port: u16,
    /// The guest's port.
    pub guest_port: u16,
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, host_address, host_port, guest_port } = self;
        write!(f, "{host_address}:{host_port}->{guest_port}/{protocol}")
    }
}

impl Forward {
    /// What QEMU calls the network that ports are forwarded in.
    pub const NETWORK: &str = "net";

    /// As QEMU has it.
    pub fn rule(&self) -> String {
        let Self { protocol, host_address, host_port, guest_port } = self;
        format!("{protocol}:{host_address}:{host_port}-:{guest_port}")
    }
}

impl Nic {
    /// How many virtio devices this is.
    pub(super) fn devices(&self) -> usize {
        usize::from(!matches!(self, Self::Absent))
    }

    /// QEMU's arguments, with virtio devices named `…-{suffix}`.
    pub(super) fn arguments(&self, suffix: &str) -> Vec<OsString> {
        let (netdev, mac) = match self {
            Self::Absent => return Vec::new(),
            Self::User { forwards } => {
                let rules = forwards.iter().map(|forward| format!(",hostfwd={}", forward.rule()));
                (format!("user,id={}{}", Forward::NETWORK, rules.collect::<String>()), MAC)
            }
            Self::Tap { device, mac } => (format!("tap,id=net,fd={}", device.as_raw_fd()), mac.as_str()),
        };
        let card = format!("virtio-net-{suffix},netdev=net,mac={mac}");
        ["-netdev".into(), netdev.into(), "-device".into(), card.into()].to_vec()
    }

    /// The descriptors that QEMU needs under their own numbers.
    pub(super) fn inherited(&self) -> Vec<Arc<OwnedFd>> {
        match self {
            Self::Tap { device, .. } => vec![Arc::clone(device)],
            Self::Absent | Self::User { .. } => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(nic: &Nic) -> String {
        let words = nic.arguments("device");
        words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn nothing_is_published_unasked() {
        let nic = Nic::User { forwards: Vec::new() };
        assert_eq!(line(&nic), format!("-netdev user,id=net -device virtio-net-device,netdev=net,mac={MAC}"));
        assert_eq!((line(&Nic::Absent).as_str(), Nic::Absent.devices(), nic.devices()), ("", 0, 1));
    }

    #[test]
    fn published_ports_become_rules() {
        let forward = |protocol, host: [u8; 4], host_port, guest_port| Forward {
            protocol,
            host_address: host.into(),
            host_port,
            guest_port,
        };
        let forwards = vec![
            forward(Protocol::Tcp, [127, 0, 0, 1], 8080, 80),
            forward(Protocol::Udp, [0, 0, 0, 0], 53, 5353),
        ];
        let line = line(&Nic::User { forwards });
        let rules = "user,id=net,hostfwd=tcp:127.0.0.1:8080-:80,hostfwd=udp:0.0.0.0:53-:5353 ";
        assert!(line.contains(rules), "{line}");
    }

    #[test]
    fn a_tap_is_named_by_its_descriptor() {
        let device = Arc::new(OwnedFd::from(std::fs::File::open("/dev/null").unwrap()));
        let number = device.as_raw_fd();
        let nic = Nic::Tap { device, mac: "02:00:00:00:00:07".to_owned() };
        assert_eq!(
            line(&nic),
            format!(
                "-netdev tap,id=net,fd={number} -device virtio-net-device,netdev=net,mac=02:00:00:00:00:07"
            )
        );
        assert_eq!(nic.inherited().len(), 1);
    }
}
