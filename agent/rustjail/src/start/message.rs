//! What travels between agent, forker and child.
//!
//! ```text
//! agent                     forker                      child
//!   | Request (memfd) + fds   |                           |
//!   |------------------------>| clone3                    |
//!   |   Reply + pidfd         |-------------------------->|
//!   |<------------------------|                           |
//!   |   Order::Continue (the reaper knows the pid)        |
//!   |---------------------------------------------------->| makes namespaces, builds its root
//!   |   Report::Built (a plan that stops for hooks)       |
//!   |<----------------------------------------------------|
//!   |   Order::Enter                                      |
//!   |---------------------------------------------------->| makes the root `/`
//!   |   Report::Ready (+ terminal) or Report::Failed      |
//!   |<----------------------------------------------------|
//!   |   Order::Go (a first process only)                  |
//!   |---------------------------------------------------->| runs its hooks, is filtered
//!   |   Report::Listener + fd (a filter that asks)        |
//!   |<----------------------------------------------------| execve
//!   |   end of file, or Report::ExecFailed                |
//!   |<----------------------------------------------------|
//! ```
//!
//! All are JSON in one packet of a `SOCK_SEQPACKET` socket; descriptors ride along as `SCM_RIGHTS`. The plan can be
//! larger than a packet may be, so it rides in a memfd.

use std::borrow::Cow;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::plan::{JailPlan, NamespaceKind};

/// What the forker is asked for. Its packet is empty: this is the text in the memfd, the first descriptor.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request<'a> {
    /// What to make.
    pub(crate) plan: Cow<'a, JailPlan>,
    /// What each further descriptor is, in order.
    pub(crate) descriptors: Vec<Role>,
}

/// What a descriptor in a [`Request`] is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Role {
    /// The child's end of the handshake.
    Handshake,
    /// Directory of the cgroup to be born in.
    Cgroup,
    /// Standard stream 0, 1 or 2.
    Stream(u8),
    /// A namespace to join.
    Namespace(NamespaceKind),
}

/// The forker's answer; a success carries the pidfd.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// The child exists and waits for [`Order::Continue`].
    Started {
        /// Process id in the agent's pid namespace.
        pid: i32,
    },
    /// There is no child.
    Failed(Failure),
}

/// Agent to child.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Begin.
    Continue,
    /// Enter the root.
    Enter,
    /// Execute the program.
    Go,
}

/// Child to agent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// The root is built, and not entered yet.
    Built,
    /// The program's filter is in force. Carries the descriptor of its listener.
    Listener,
    /// The jail stands. Carries the terminal's master end where there is a terminal.
    Ready,
    /// The jail could not be built; the child is about to exit.
    Failed(Failure),
    /// `execve` failed after all; the child is about to exit with 126 or 127.
    ExecFailed(Failure),
}

/// Where and why a child failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{step}: {reason}")]
pub struct Failure {
    /// What was being done, with its subject.
    pub step: String,
    /// Why it failed.
    pub reason: String,
    /// Operating-system error number, where there is one.
    pub errno: Option<i32>,
    /// Whether the request was at fault rather than the guest.
    pub invalid: bool,
}

impl Failure {
    /// With texts that fit a packet, whatever the request named: JSON makes a byte into six at most.
    fn cut(self) -> Failure {
        let cut = |text: String| crate::shorten(&text, PACKET / 16);
        Failure { step: cut(self.step), reason: cut(self.reason), ..self }
    }
}

impl Reply {
    /// There is no child, because of this.
    pub(crate) fn failed(failure: Failure) -> Reply {
        Reply::Failed(failure.cut())
    }
}

impl Report {
    /// The jail could not be built, because of this.
    pub(crate) fn failed(failure: Failure) -> Report {
        Report::Failed(failure.cut())
    }

    /// The program could not be executed, because of this.
    pub(crate) fn exec_failed(failure: Failure) -> Report {
        Report::ExecFailed(failure.cut())
    }
}

/// Most descriptors in one packet: memfd, handshake, cgroup, three streams, eight namespaces.
const MOST_DESCRIPTORS: usize = 16;
/// Bytes of a packet at most.
const PACKET: usize = 32 * 1024;
/// Bytes of a packet with an order.
const SMALL_PACKET: usize = 256;

/// Sends one packet.
pub(crate) fn send<T: Serialize>(
    socket: impl AsFd,
    message: &T,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("too many descriptors for one packet"));
    }
    loop {
        match rustix::net::sendmsg(&socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Receives one packet, or none at the end of the stream. Received descriptors are close-on-exec.
pub(crate) fn receive<T: DeserializeOwned>(socket: impl AsFd) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    receive_into(&mut vec![0; PACKET], socket)
}

/// As [`receive`], for packets that have no text of anybody's in them: a new process pays for each page that it touches.
pub(crate) fn receive_small<T: DeserializeOwned>(socket: impl AsFd) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    receive_into(&mut [0; SMALL_PACKET], socket)
}

fn receive_into<T: DeserializeOwned>(
    bytes: &mut [u8],
    socket: impl AsFd,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut slices = [IoSliceMut::new(bytes)];
        match rustix::net::recvmsg(&socket, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(received) => break received,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    };
    let descriptors = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(list) => Some(list),
            _ => None,
        })
        .flatten()
        .collect();
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::other("a packet of the handshake was cut"));
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    Ok(Some((serde_json::from_slice(&bytes[..received.bytes])?, descriptors)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    #[test]
    fn any_failure_fits_a_packet() {
        let (a, b) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        for text in ["x".repeat(40_000), "\u{1}".repeat(40_000), "\u{1F600}\"".repeat(1 << 19)] {
            let failure = Failure { step: text.clone(), reason: text, errno: Some(36), invalid: true };
            send(&a, &Report::failed(failure.clone()), &[]).unwrap();
            send(&a, &Report::exec_failed(failure.clone()), &[]).unwrap();
            send(&a, &Reply::failed(failure), &[]).unwrap();
            for _ in 0..2 {
                let (report, _) = receive::<Report>(&b).unwrap().unwrap();
                let (Report::Failed(heard) | Report::ExecFailed(heard)) = report else {
                    panic!("{report:?}")
                };
                assert!(heard.invalid && heard.errno == Some(36) && heard.step.contains(" bytes] "));
            }
            assert!(matches!(receive::<Reply>(&b).unwrap().unwrap().0, Reply::Failed(_)));
        }
    }

    #[test]
    fn packets_carry_text_and_descriptors_and_end() {
        let (a, b) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let file = tempfile::tempfile().unwrap();
        send(&a, &Order::Continue, &[file.as_fd(), file.as_fd()]).unwrap();
        send(&a, &Order::Go, &[]).unwrap();
        let (first, descriptors) = receive::<Order>(&b).unwrap().unwrap();
        assert_eq!((first, descriptors.len()), (Order::Continue, 2));
        assert!(rustix::io::fcntl_getfd(&descriptors[0]).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        assert_eq!(receive::<Order>(&b).unwrap().unwrap().0, Order::Go);
        drop(a);
        assert!(receive::<Order>(&b).unwrap().is_none());
    }
}
