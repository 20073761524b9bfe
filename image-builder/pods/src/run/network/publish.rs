//! Ports of the host that lead into the guest.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::str::FromStr;

use nix::sys::socket::sockopt::ReuseAddr;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, socket};

use super::error::NetworkError;
use machine::vm::{Forward, Protocol};

/// A value of `--publish`: `[HOSTIP:]HOSTPORT:GUESTPORT[/tcp|/udp]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publish(pub Forward);

impl FromStr for Publish {
    type Err = NetworkError;

    fn from_str(word: &str) -> Result<Self, NetworkError> {
        let wrong = |problem: String| NetworkError::Word { word: word.to_owned(), problem };
        let (ports, protocol) = match word.rsplit_once('/') {
            None => (word, Protocol::Tcp),
            Some((ports, "tcp")) => (ports, Protocol::Tcp),
            Some((ports, "udp")) => (ports, Protocol::Udp),
            Some((_, other)) => return Err(wrong(format!("protocol {other:?} is neither tcp nor udp"))),
        };
        let shape = || wrong("is not [HOSTIP:]HOSTPORT:GUESTPORT[/tcp|/udp], for example 8080:80".to_owned());
        let (front, guest) = ports.rsplit_once(':').ok_or_else(shape)?;
        let (address, host) = match front.rsplit_once(':') {
            Some((address, host)) => (Some(address), host),
            None => (None, front),
        };
        let port = |text: &str| match text.parse::<u16>() {
            Ok(port) if port != 0 && text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(port),
            _ => Err(wrong(format!("port {text:?} is not a number from 1 to 65535"))),
        };
        let address = match address {
            None => Ipv4Addr::LOCALHOST,
            Some(text) => text.parse().map_err(|_| {
                wrong(format!("host address {text:?} is not an IPv4 address such as 127.0.0.1 or 0.0.0.0"))
            })?,
        };
        Ok(Self(Forward {
            protocol,
            host_address: address,
            host_port: port(host)?,
            guest_port: port(guest)?,
        }))
    }
}

/// Refuses two rules for one port of the host; all addresses are each of them.
pub(super) fn refuse_doubles(forwards: &[Forward]) -> Result<(), NetworkError> {
    let meet = |a: &Forward, b: &Forward| {
        (a.protocol, a.host_port) == (b.protocol, b.host_port)
            && (a.host_address == b.host_address
                || a.host_address.is_unspecified()
                || b.host_address.is_unspecified())
    };
    for (index, forward) in forwards.iter().enumerate() {
        if let Some(earlier) = forwards[..index].iter().find(|earlier| meet(earlier, forward)) {
            return Err(NetworkError::Twice(earlier.to_string(), forward.to_string()));
        }
    }
    Ok(())
}

/// Takes each port for a moment, since QEMU's own words for one that is taken are few. It gets them after this.
pub(super) fn check_free(forwards: &[Forward]) -> Result<(), NetworkError> {
    for forward in forwards {
        let address = SocketAddrV4::new(forward.host_address, forward.host_port);
        let taken = match forward.protocol {
            Protocol::Tcp => TcpListener::bind(address).map(drop),
            Protocol::Udp => UdpSocket::bind(address).map(drop),
        };
        taken.map_err(|source| {
            let (port, protocol) = (forward.host_port, forward.protocol);
            let problem = match source.kind() {
                ErrorKind::AddrInUse => {
                    format!("{protocol} port {port} of this host is taken; choose another one")
                }
                ErrorKind::AddrNotAvailable => {
                    format!("this host has no address {}; leave it out for 127.0.0.1", forward.host_address)
                }
                ErrorKind::PermissionDenied => {
                    format!("{protocol} port {port} is for root only; choose one from 1024 on")
                }
                _ => format!("{protocol} port {port} of this host cannot be had; choose another one"),
            };
            NetworkError::Port { rule: forward.to_string(), problem, source }
        })?;
    }
    Ok(())
}

/// A TCP port of the host that is nobody else's, and at which nobody listens. Dropped, it is free.
#[derive(Debug)]
pub(in crate::run) struct Held {
    pub(in crate::run) forward: Forward,
    _socket: OwnedFd,
}

impl Held {
    /// Takes the port.
    pub(super) fn take(forward: Forward) -> Result<Self, NetworkError> {
        let address = SockaddrIn::from(SocketAddrV4::new(forward.host_address, forward.host_port));
        let bound = |again: bool| -> nix::Result<OwnedFd> {
            let kind = SockType::Stream;
            let socket = socket(AddressFamily::Inet, kind, SockFlag::SOCK_CLOEXEC, None)?;
            setsockopt(&socket, ReuseAddr, &again)?;
            bind(socket.as_raw_fd(), &address)?;
            Ok(socket)
        };
        // Connections of an earlier pod that have just ended keep it from being had without the option; and with it, others
        // could have it too.
        let socket = bound(false).or_else(|_| bound(true)).map_err(|errno| NetworkError::Port {
            rule: forward.to_string(),
            problem: format!("tcp port {} of this host cannot be had; choose another one", forward.host_port),
            source: errno.into(),
        })?;
        Ok(Self { forward, _socket: socket })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forward(word: &str) -> Forward {
        word.parse::<Publish>().unwrap().0
    }

    #[test]
    fn rules_are_read() {
        assert_eq!(forward("8080:80").to_string(), "127.0.0.1:8080->80/tcp");
        assert_eq!(forward("8080:80/tcp"), forward("127.0.0.1:8080:80"));
        assert_eq!(forward("0.0.0.0:53:5353/udp").to_string(), "0.0.0.0:53->5353/udp");
        assert_eq!(forward("65535:1").host_port, 65535);
    }

    #[test]
    fn what_is_no_rule_says_why() {
        for (word, part) in [
            ("80", "is not [HOSTIP:]HOSTPORT:GUESTPORT"),
            ("", "is not [HOSTIP:]HOSTPORT:GUESTPORT"),
            ("0:80", "\"0\" is not a number from 1"),
            ("80:65536", "\"65536\" is not a number"),
            ("+80:80", "\"+80\" is not a number"),
            (":80:80", "host address \"\""),
            ("80:", "\"\" is not a number"),
            ("80:80/sctp", "\"sctp\" is neither tcp nor udp"),
            ("localhost:80:80", "\"localhost\" is not an IPv4 address"),
            ("[::1]:80:80", "is not an IPv4 address"),
        ] {
            let text = word.parse::<Publish>().unwrap_err().to_string();
            assert!(text.contains(part), "{word}: {text}");
        }
    }

    #[test]
    fn a_port_is_published_once() {
        let check =
            |words: &[&str]| refuse_doubles(&words.iter().map(|word| forward(word)).collect::<Vec<_>>());
        assert!(check(&["80:80", "81:80", "80:80/udp", "127.0.0.2:80:80"]).is_ok());
        let text = check(&["80:80", "81:80", "80:8080"]).unwrap_err().to_string();
        assert!(text.starts_with("127.0.0.1:80->80/tcp and 127.0.0.1:80->8080/tcp publish"), "{text}");
        assert!(check(&["80:80", "0.0.0.0:80:80"]).is_err());
    }

    #[test]
    fn a_taken_port_is_named() {
        let holder = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = holder.local_addr().unwrap().port();
        let text = check_free(&[forward(&format!("{port}:80"))]).unwrap_err().to_string();
        assert!(text.contains(&format!("tcp port {port} of this host is taken")), "{text}");
        drop(holder);
        check_free(&[forward(&format!("{port}:80"))]).unwrap();
        // Held, it is nobody else's, and nobody can connect.
        let held = Held::take(forward(&format!("{port}:80"))).unwrap();
        assert!(TcpListener::bind(("127.0.0.1", port)).is_err());
        assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
        drop(held);
        TcpListener::bind(("127.0.0.1", port)).unwrap();
        // TEST-NET-1, which nobody has.
        let text = check_free(&[forward("192.0.2.1:8080:80")]).unwrap_err().to_string();
        assert!(text.contains("no address 192.0.2.1"), "{text}");
    }
}
