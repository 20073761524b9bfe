//! What `initcall_debug` prints, with names from System.map: our kernels have no symbols of their own.

use std::time::Duration;

/// One initcall.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Initcall {
    pub(super) name: String,
    /// On the kernel's clock.
    pub(super) began: Duration,
    pub(super) took: Duration,
}

/// Names by address.
pub(super) struct Symbols(Vec<(u64, String)>);

impl Symbols {
    /// Reads `ADDRESS TYPE NAME` lines, sorted by address as the kernel's build writes them.
    pub(super) fn parse(map: &str) -> Self {
        let symbol = |line: &str| {
            let mut words = line.split(' ');
            let address = u64::from_str_radix(words.next()?, 16).ok()?;
            let name = words.nth(1)?;
            Some((address, name.to_owned()))
        };
        Self(map.lines().filter_map(symbol).collect())
    }

    /// The name of what begins there.
    fn name(&self, address: u64) -> Option<&str> {
        let at = self.0.partition_point(|(known, _)| *known < address);
        let (_, name) = self.0.get(at).filter(|(known, _)| *known == address)?;
        Some(name)
    }
}

/// All initcalls of a kernel's log, in their order. One that waits in another thread counts as long as it waits.
pub(super) fn initcalls(log: &str, symbols: &Symbols) -> Vec<Initcall> {
    log.lines().filter_map(|line| initcall(line, symbols)).collect()
}

/// When the kernel began to unpack the initramfs, and when it had.
pub(super) fn initramfs(log: &str) -> Option<(Duration, Duration)> {
    let stamp = |text: &str| log.lines().find(|line| line.contains(text)).and_then(moment);
    Some((stamp("] Unpacking initramfs")?, stamp("] Freeing initrd memory")?))
}

/// The stamp at a line's head.
fn moment(line: &str) -> Option<Duration> {
    let (stamp, _) = line.trim().strip_prefix('[')?.split_once(']')?;
    Duration::try_from_secs_f64(stamp.trim().parse().ok()?).ok()
}

/// `[    0.210677] initcall 0xffffffff81b36a15 returned 0 after 22942 usecs`, or with the name in place of the address.
fn initcall(line: &str, symbols: &Symbols) -> Option<Initcall> {
    let (_, rest) = line.split_once("] initcall ")?;
    let mut words = rest.split(' ');
    let what = words.next()?;
    let rest = rest.split_once(" after ")?.1;
    let took = Duration::from_micros(rest.split(' ').next()?.parse().ok()?);
    let ended = moment(line)?;
    let address = what.strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok());
    let name = match address {
        Some(address) => symbols.name(address).unwrap_or(what),
        // `name+0x0/0x10`
        None => what.split('+').next().unwrap_or(what),
    };
    Some(Initcall { name: name.to_owned(), began: ended.saturating_sub(took), took })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_initramfs_has_two_lines() {
        let log = "[    0.727004] Unpacking initramfs...\r\n[    0.996656] Freeing initrd memory: 1876K\r\n";
        let micros = initramfs(log).map(|(began, ended)| (began.as_micros(), ended.as_micros()));
        assert_eq!(micros, Some((727_004, 996_656)));
        assert_eq!(initramfs("[    0.727004] Unpacking initramfs...\n"), None);
    }

    #[test]
    fn initcalls_get_their_names_and_times() {
        let symbols = Symbols::parse("ffffffff81000000 T _text\nffffffff81b36a15 t virtio_blk_init\n");
        let log = "[    0.100000] calling  0xffffffff81b36a15 @ 1\r\n\
            [    0.210677] initcall 0xffffffff81b36a15 returned 0 after 22942 usecs\r\n\
            [    0.300000] initcall 0xffffffff81b36a16 returned -19 after 5 usecs\r\n\
            [    1.000000] initcall named_init+0x0/0x30 returned 0 after 1000 usecs\r\n\
            [    1.000000] something else\n";
        let calls = initcalls(log, &symbols);
        let names: Vec<_> = calls.iter().map(|call| call.name.as_str()).collect();
        assert_eq!(names, ["virtio_blk_init", "0xffffffff81b36a16", "named_init"]);
        assert_eq!((calls[0].began.as_micros(), calls[0].took.as_micros()), (187_735, 22_942));
    }
}
