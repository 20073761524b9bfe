//! A process that lives through a restore and writes down what it sees.
//!
//! One line each time: its number, milliseconds since 1970, random bytes, the kernel's random uuid, and how often the clock was
//! set since the start, as timerfd_create(2) tells (TFD_TIMER_CANCEL_ON_SET).
//!
//! Its memory holds [`mark`] and, behind it, the number of the last line that was begun. Whoever has the memory of a machine
//! that stands still, such as a snapshot, finds there which lines were begun before it stood still.

use std::fs::File;
use std::hint::black_box;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

/// Time between two lines, in nanoseconds.
const PAUSE: i64 = 2_000_000;
/// Turns each of the two words of [`MARK`] into the one that memory has: so the program's file has no mark.
const TURN: u64 = 0x5a5a_5a5a_5a5a_5a5a;
const MARK: [u64; 2] = [0x2d3f_6a11_93c4_70be, 0x81e9_0d57_4bb2_c63c];

/// A mark, and a number. Never on two pages.
#[repr(align(32))]
struct Count([AtomicU64; 3]);

/// The words that are before the number.
fn mark() -> [u64; 2] {
    MARK.map(|word| black_box(word) ^ black_box(TURN))
}

impl Count {
    fn new() -> Box<Count> {
        let [first, second] = mark();
        Box::new(Count([first, second, 0].map(AtomicU64::new)))
    }

    /// The number of the line that begins now; the first is 1.
    fn begin(&self) -> u64 {
        black_box(self).0[2].fetch_add(1, Ordering::SeqCst) + 1
    }
}
/// When the timer would expire: not in a test's life. Seconds since 1970.
const NEVER: i64 = 1 << 40;

/// Writes lines to a file until it is killed.
pub(crate) fn watch(file: &str) -> io::Result<()> {
    let mut file = File::options().create(true).append(true).open(file)?;
    let timer = timer()?;
    let count = Count::new();
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
        // Before anything that the line says is known.
        let number = count.begin();
        let mut bytes = [0; 16];
        getrandom(&mut bytes, GetRandomFlags::empty())?;
        let random: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let uuid = std::fs::read_to_string("/proc/sys/kernel/random/uuid")?;
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_err(io::Error::other)?;
        let line = format!("{number} {} {random} {} {sets}\n", time.as_millis(), uuid.trim());
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
