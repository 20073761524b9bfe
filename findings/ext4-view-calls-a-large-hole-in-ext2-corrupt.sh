#!/usr/bin/env bash
# ext4-view 1.0.0 (a Rust crate) with images of mkfs.ext2 and mkfs.ext4 1.47.0 (Debian 12, package e2fsprogs 1.47.0-2+b2)
#
# One would guess that a crate which reads ext2, and which reads small holes there, reads large ones. In ext2 and ext3 a block
# that lists blocks may be missing itself if all that it would list is a hole. ext4-view takes its number, 0, for that of a
# block, and calls the file system corrupt. The same file on ext4, whose files are lists of extents, is read as it is.
#
# It matters to whoever looks into disks of guests without mounting them: one sparse file, such as a disk image or a log of
# logins, is enough for an error that blames the disk. e2fsck and debugfs find nothing wrong.
#
# Output seen (a file with a hole of 100 KiB, and one with a hole of 3 MiB; blocks of 1 KiB):
#   ext2: e2fsck 0, small hole read, large hole Corrupt
#   ext4: e2fsck 0, small hole read, large hole read
#
# Needs a Rust toolchain (seen with 1.95), Debian 12 with the libraries of e2fsprogs, and apt-get. Exit status 1 if this
# changes.
set -eu -o pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
apt-get download -qq e2fsprogs=1.47.0-2+b2 2>/dev/null
dpkg -x e2fsprogs_*.deb tools
export MKE2FS_CONFIG=$folder/tools/etc/mke2fs.conf
mkdir src files

cat >Cargo.toml <<'TOML'
[package]
name = "holes"
version = "0.1.0"
edition = "2021"

[dependencies]
ext4-view = { version = "=1.0.0", features = ["std"] }

[workspace]
TOML
cat >src/main.rs <<'RUST'
use ext4_view::{Ext4, Ext4Error};

fn main() {
    let image = std::env::args().nth(1).unwrap();
    let disk = Ext4::load_from_path(image).unwrap();
    for name in ["small", "large"] {
        let seen = match disk.read(format!("/{name}").as_str()) {
            Ok(content) if content == std::fs::read(format!("files/{name}")).unwrap() => "read".to_owned(),
            Ok(_) => "read wrongly".to_owned(),
            Err(Ext4Error::Corrupt(_)) => "Corrupt".to_owned(),
            Err(other) => other.to_string(),
        };
        print!(", {name} hole {seen}");
    }
    println!();
}
RUST
CARGO_TARGET_DIR=$folder/target cargo build --quiet

for file in small:100K large:3M; do
  printf begin >"files/${file%:*}"
  truncate -s "${file#*:}" "files/${file%:*}"
  printf end >>"files/${file%:*}"
done
for kind in ext2 ext4; do
  "tools/sbin/mkfs.$kind" -q -b 1024 -d files "$kind" 8M >/dev/null 2>&1
  for name in small large; do tools/sbin/debugfs -R "cat /$name" "$kind" 2>/dev/null | cmp - "files/$name"; done
  status=0
  tools/sbin/e2fsck -fn "$kind" >/dev/null 2>&1 || status=$?
  printf '%s: e2fsck %s%s\n' "$kind" "$status" "$(target/debug/holes "$kind")"
done | tee seen
diff - seen <<'SEEN'
ext2: e2fsck 0, small hole read, large hole Corrupt
ext4: e2fsck 0, small hole read, large hole read
SEEN
