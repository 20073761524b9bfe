//! A process that lives through a restore and writes down what it sees.
//!
//! One line each time: milliseconds since 1970, random bytes, the kernel's random uuid, and how often the clock was set since
//! the start, as timerfd_create(2) tells (TFD_TIMER_CANCEL_ON_SET).

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

/// Time between two lines, in nanoseconds.
const PAUSE: i64 = 20_000_000;
/// When the timer would expire: not in a test's life. Seconds since 1970.
const NEVER: i64 = 1 << 40;

/// Writes lines to a file until it is killed.
pub(crate) fn watch(file: &str) -> io::Result<()> {
    let mut file = File::options().create(true).append(true).open(file)?;
    let timer = timer()?;
    let mut sets = 0u64;
    loop {
        let pause = Timespec { tv_sec: 0, tv_nsec: PAUSE };
        let mut source = [PollFd::new(&timer, PollFlags::IN)];
        if poll(&mut source, Some(&pause))? > 0 {
            match rustix::io::read(&timer, &mut [0; 8]) {
                Err(Errno::CANCELED) => sets += 1,
                other => return Err(io::Error::other(format!("the timer: {other:?}"))),
            }
        }
        let mut bytes = [0; 16];
        getrandom(&mut bytes, GetRandomFlags::empty())?;
        let random: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let uuid = std::fs::read_to_string("/proc/sys/kernel/random/uuid")?;
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_err(io::Error::other)?;
        let line = format!("{} {random} {} {sets}\n", time.as_millis(), uuid.trim());
        file.write_all(line.as_bytes())?;
    }
}

/// One that only tells when the clock is set.
fn timer() -> io::Result<OwnedFd> {
    let timer = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
    let never = Itimerspec {
        it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
        it_value: Timespec { tv_sec: NEVER, tv_nsec: 0 },
    };
    timerfd_settime(&timer, TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET, &never)?;
    Ok(timer)
}
