//! File modes as text, the way Go's `FileMode` prints them.
//!
//! Letters for the type and the special bits stand before the nine permissions, as many as there are: `drwxr-xr-x`,
//! `Lrwxrwxrwx`, `urwxr-xr-x`, `dtrwxrwxrwx`, `Dcrw-rw-rw-`. A regular file without special bits has one `-`.

/// `S_IFMT` and its values, as `inode(7)` has them.
const TYPE: u32 = 0o170_000;
const SOCKET: u32 = 0o140_000;
const LINK: u32 = 0o120_000;
const REGULAR: u32 = 0o100_000;
const BLOCK: u32 = 0o060_000;
const DIRECTORY: u32 = 0o040_000;
const CHARACTER: u32 = 0o020_000;
const FIFO: u32 = 0o010_000;

/// The text of an `st_mode`.
pub fn permissions(mode: u32) -> String {
    let mut text = String::with_capacity(12);
    let kind = mode & TYPE;
    // Go's own order: the type, then set-user-ID, set-group-ID, character device, sticky.
    match kind {
        DIRECTORY => text.push('d'),
        LINK => text.push('L'),
        BLOCK | CHARACTER => text.push('D'),
        FIFO => text.push('p'),
        SOCKET => text.push('S'),
        _ => {}
    }
    for (bit, letter) in [(0o4000, 'u'), (0o2000, 'g')] {
        if mode & bit != 0 {
            text.push(letter);
        }
    }
    if kind == CHARACTER {
        text.push('c');
    }
    if mode & 0o1000 != 0 {
        text.push('t');
    }
    if ![REGULAR, DIRECTORY, LINK, BLOCK, CHARACTER, FIFO, SOCKET].contains(&kind) {
        text.push('?');
    }
    if text.is_empty() {
        text.push('-');
    }
    for (index, letter) in "rwxrwxrwx".chars().enumerate() {
        text.push(if mode & (0o400 >> index) != 0 { letter } else { '-' });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::permissions;

    #[test]
    fn modes_read_as_in_go() {
        for (mode, text) in [
            (0o100_644, "-rw-r--r--"),
            (0o040_755, "drwxr-xr-x"),
            (0o120_777, "Lrwxrwxrwx"),
            (0o104_755, "urwxr-xr-x"),
            (0o102_755, "grwxr-xr-x"),
            (0o106_755, "ugrwxr-xr-x"),
            (0o041_777, "dtrwxrwxrwx"),
            (0o010_600, "prw-------"),
            (0o140_600, "Srw-------"),
            (0o060_660, "Drw-rw----"),
            (0o020_666, "Dcrw-rw-rw-"),
            (0o100_000, "----------"),
            (0o000_644, "?rw-r--r--"),
        ] {
            assert_eq!(permissions(mode), text, "{mode:o}");
        }
    }
}
