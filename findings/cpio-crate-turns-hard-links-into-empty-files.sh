#!/usr/bin/env bash
# cpio 0.4.2 (the Rust crate, format newc)
#
# One would guess that write_cpio() writes the entries as they were built: with the inode number and the number of links that
# NewcBuilder::ino() and NewcBuilder::nlink() were told. It gives every entry an inode number of its own. In this format names
# with one inode number are one file, and only the last of them has the content. So each of the others becomes an empty file,
# and there is no error.
#
# It matters to whoever makes an initramfs in Rust: `busybox` as a set of hard links ends as many empty programs. Writing the
# same entries one by one with NewcBuilder::write() and newc::trailer() keeps the links.
#
# Output seen (inode is the same, bytes of the file after GNU cpio has unpacked it):
#   one by one: same inode yes, first name 8 bytes, second name 8 bytes
#   write_cpio: same inode no, first name 0 bytes, second name 8 bytes
#
# Needs a Rust toolchain (seen with 1.95) and cpio. Exit status 1 if this changes.
set -eu -o pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
mkdir src

cat >Cargo.toml <<'TOML'
[package]
name = "links"
version = "0.1.0"
edition = "2021"

[dependencies]
cpio = "=0.4.2"

[workspace]
TOML
cat >src/main.rs <<'RUST'
use std::fs::File;
use std::io::{Cursor, Write};

use cpio::NewcBuilder;

/// Two names of one file, of which the last has the content, as GNU cpio writes them.
const NAMES: [(&str, &[u8]); 2] = [("first", b""), ("second", b"content\n")];

fn link(name: &str) -> NewcBuilder {
    NewcBuilder::new(name).mode(0o100_644).ino(7).nlink(2)
}

fn main() {
    let mut archive = File::create("one-by-one.cpio").unwrap();
    for (name, content) in NAMES {
        let mut writer = link(name).write(&mut archive, content.len() as u32);
        writer.write_all(content).unwrap();
        writer.finish().unwrap();
    }
    cpio::newc::trailer(&mut archive).unwrap();

    let entries = NAMES.into_iter().map(|(name, content)| (link(name), Cursor::new(content)));
    cpio::write_cpio(entries, File::create("write_cpio.cpio").unwrap()).unwrap();
}
RUST
CARGO_TARGET_DIR=$folder/target cargo build --quiet
target/debug/links

for way in one-by-one write_cpio; do
  mkdir "$way"
  (cd "$way" && cpio -i --quiet <"../$way.cpio")
  if [ "$way/first" -ef "$way/second" ]; then same=yes; else same=no; fi
  printf '%s: same inode %s, first name %s bytes, second name %s bytes\n' \
    "${way//-/ }" "$same" "$(stat -c %s "$way/first")" "$(stat -c %s "$way/second")"
done | tee seen
diff - seen <<'SEEN'
one by one: same inode yes, first name 8 bytes, second name 8 bytes
write_cpio: same inode no, first name 0 bytes, second name 8 bytes
SEEN
