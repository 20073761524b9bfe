//! Waits for devices: subscribe first, then look, then look again at each of the kernel's events until a deadline.
//!
//! ```text
//!  kernel ── uevent ──► thread "uevents" ──► count + 1, wake ──► every waiter looks for its own device in sysfs
//! ```
//!
//! An event only says that something changed; what is there is read from sysfs. So a device that was there at boot is
//! found, an event that was lost or forged does no harm, and nothing has to be remembered per device. The kernel makes a
//! device's node before it sends the event.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket,
    sockopt,
};

use super::address::Address;
use super::{DeviceError, NoDevice};
use crate::cancel::Cancel;

/// Multicast group of the kernel's own events (`lib/kobject_uevent.c`; group 2 is udev's).
const KERNEL_GROUP: u32 = 1;
/// Room for events that come faster than they are read, in bytes. A hundred disks at once take a tenth of it.
const BUFFER: usize = 1 << 20;
/// How long a waiter sleeps without an event before it looks all the same.
const POLL: Duration = Duration::from_millis(500);

/// Knows when devices may have come or gone. Clones are handles to the same.
#[derive(Debug, Clone)]
pub(crate) struct DeviceWatch {
    events: Arc<Events>,
    sys: PathBuf,
    /// How long a device may take to come.
    timeout: Duration,
    /// What ends waiting early.
    cancel: Cancel,
}

#[derive(Debug, Default)]
struct Events {
    seen: Mutex<u64>,
    more: Condvar,
}

impl Events {
    fn count(&self) -> u64 {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.more.notify_all();
    }

    /// Sleeps until there were more events than `known`, or the time is over.
    fn wait_for_more(&self, known: u64, at_most: Duration) {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.more.wait_timeout_while(seen, at_most, |seen| *seen == known));
    }
}

impl DeviceWatch {
    /// Starts to listen. `timeout` is how long a device may take to come; `memory_changed` is called when memory has come or
    /// gone.
    ///
    /// # Errors
    /// When there can be no socket or thread.
    pub(crate) fn start(
        timeout: Duration,
        memory_changed: impl Fn() + Send + 'static,
    ) -> io::Result<DeviceWatch> {
        let watch = DeviceWatch::deaf(Path::new("/sys"), timeout);
        let socket = subscribe()?;
        let events = Arc::clone(&watch.events);
        std::thread::Builder::new().name("uevents".to_owned()).spawn(move || {
            listen(&socket, &events, memory_changed);
        })?;
        Ok(watch)
    }

    /// One that hears nothing, and looks at intervals.
    pub(crate) fn deaf(sys: &Path, timeout: Duration) -> DeviceWatch {
        DeviceWatch { events: Arc::default(), sys: sys.to_owned(), timeout, cancel: Cancel::default() }
    }

    /// A handle whose waits end early when `cancel` says so: as if the time were over.
    pub(crate) fn until(&self, cancel: &Cancel) -> DeviceWatch {
        DeviceWatch { cancel: cancel.clone(), ..self.clone() }
    }

    /// Whether its waits end early.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// Has every waiter look again, and see whether it is cancelled.
    pub(crate) fn look_again(&self) {
        self.events.add();
    }

    /// Where sysfs is mounted.
    pub(crate) fn sys(&self) -> &Path {
        &self.sys
    }

    /// Looks until something is found, first now, then whenever devices came or went. Blocks for the watch's timeout at
    /// most.
    ///
    /// # Errors
    /// [`NoDevice`] when nothing was found in time.
    pub(crate) fn wait<T>(&self, look: impl FnMut() -> Option<T>) -> Result<T, NoDevice> {
        self.wait_until(self.timeout, look)
    }

    /// As [`DeviceWatch::wait`], with a deadline of its own.
    pub(crate) fn wait_until<T>(
        &self,
        timeout: Duration,
        mut look: impl FnMut() -> Option<T>,
    ) -> Result<T, NoDevice> {
        let start = Instant::now();
        loop {
            let known = self.events.count();
            if let Some(found) = look() {
                return Ok(found);
            }
            let waited = start.elapsed();
            if waited >= timeout || self.cancel.is_cancelled() {
                return Err(NoDevice { waited });
            }
            self.events.wait_for_more(known, POLL.min(timeout - waited));
        }
    }

    /// Waits for a disk, and gives its node.
    ///
    /// # Errors
    /// [`DeviceError::Timeout`].
    pub(crate) fn disk(&self, address: &Address) -> Result<PathBuf, DeviceError> {
        let look = || {
            address.find(&self.sys).or_else(|| {
                address.ask(&self.sys);
                address.find(&self.sys)
            })
        };
        self.wait(look).map_err(|late| late.disk(address))
    }
}

fn subscribe() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let protocol = SockProtocol::NetlinkKObjectUEvent;
    let socket = socket(AddressFamily::Netlink, SockType::Datagram, flags, protocol)?;
    // Needs CAP_NET_ADMIN; with the default size events are lost sooner, which only costs time.
    if let Err(error) = setsockopt(&socket, sockopt::RcvBufForce, &BUFFER) {
        tracing::debug!(%error, "the buffer for device events stays small");
    }
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, KERNEL_GROUP))?;
    Ok(socket)
}

/// Whether an event is of a block of memory that can be used now, or not any more (`ACTION@PATH`, then NULs).
fn is_of_memory(event: &[u8]) -> bool {
    let path = event.strip_prefix(b"online@").or_else(|| event.strip_prefix(b"offline@"));
    path.is_some_and(|path| path.starts_with(b"/devices/system/memory/"))
}

fn listen(socket: &OwnedFd, events: &Events, memory_changed: impl Fn()) {
    let mut message = [0; 8192];
    loop {
        match recv(socket.as_raw_fd(), &mut message, MsgFlags::empty()) {
            Ok(length) => {
                events.add();
                if is_of_memory(&message[..length]) {
                    memory_changed();
                }
            }
            // Lost events are events too.
            Err(Errno::ENOBUFS) => {
                events.add();
                memory_changed();
            }
            Err(Errno::EINTR) => {}
            Err(error) => {
                tracing::error!(%error, "device events are not heard any more; devices are looked for at intervals");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_memory_are_told_from_others() {
        assert!(is_of_memory(b"online@/devices/system/memory/memory33\0ACTION=online\0"));
        assert!(is_of_memory(b"offline@/devices/system/memory/memory33\0"));
        for other in
            [&b"add@/devices/system/memory/memory33\0"[..], b"online@/devices/system/cpu/cpu1\0", b""]
        {
            assert!(!is_of_memory(other));
        }
    }
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn what_is_there_is_found_at_once() {
        let watch = DeviceWatch::deaf(Path::new("/nonexistent"), Duration::ZERO);
        assert_eq!(watch.wait(|| Some(7)).unwrap(), 7);
    }

    #[test]
    fn what_comes_with_an_event_is_found_then() {
        let watch = DeviceWatch::deaf(Path::new("/nonexistent"), Duration::from_secs(60));
        let is_there = Arc::new(AtomicBool::new(false));
        let (events, there) = (Arc::clone(&watch.events), Arc::clone(&is_there));
        let kernel = std::thread::spawn(move || {
            events.add();
            there.store(true, Ordering::SeqCst);
            events.add();
        });
        watch.wait(|| is_there.load(Ordering::SeqCst).then_some(())).unwrap();
        kernel.join().unwrap();
    }

    #[test]
    fn a_cancelled_wait_ends_early() {
        let watch = DeviceWatch::deaf(Path::new("/nonexistent"), Duration::from_secs(600));
        let cancel = Cancel::default();
        let mine = watch.until(&cancel);
        let waiter = std::thread::spawn(move || mine.wait(|| None::<()>).unwrap_err());
        cancel.cancel();
        watch.look_again();
        assert!(waiter.join().unwrap().waited < Duration::from_secs(60));
    }

    #[test]
    fn what_never_comes_is_a_timeout() {
        let watch = DeviceWatch::deaf(Path::new("/nonexistent"), Duration::from_millis(30));
        assert!(watch.wait(|| None::<()>).unwrap_err().waited >= Duration::from_millis(30));
        let error = watch.disk(&Address::disk("02/01").unwrap()).unwrap_err();
        assert!(matches!(error, DeviceError::Timeout { .. }));
        assert!(error.to_string().contains("02/01"), "{error}");
    }
}
