//! Shell commands through which QEMU reads and writes a saved machine.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

/// What QEMU is told to read a machine from.
pub(super) fn read_command(file: &Path) -> OsString {
    let mut command = b"exec:cat ".to_vec();
    command.extend(quoted(file));
    OsString::from_vec(command)
}

/// What QEMU is told to write it to. The name appears when the file is whole.
pub(super) fn write_command(file: &Path) -> String {
    let file = String::from_utf8_lossy(&quoted(file)).into_owned();
    format!("exec:cat > {file}.part && mv {file}.part {file}")
}

/// One word of a shell.
fn quoted(path: &Path) -> Vec<u8> {
    let mut word = vec![b'\''];
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'\'' => word.extend(b"'\\''"),
            byte => word.push(*byte),
        }
    }
    word.push(b'\'');
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_whatever_is_in_it() {
        assert_eq!(read_command(Path::new("/a b/it's")), "exec:cat '/a b/it'\\''s'");
        assert_eq!(write_command(Path::new("/s")), "exec:cat > '/s'.part && mv '/s'.part '/s'");
    }
}
