//! The hash tree that lets Linux check every block of a disk as it is read (dm-verity).
//!
//! ```text
//! root hash ── sha256(salt, top block)
//! hash area    top block │ its children … │ blocks with the digests of the data's blocks
//! ```
//! The layout is version 1 of `Documentation/admin-guide/device-mapper/verity.rst`, without the superblock that
//! `veritysetup` puts in front: who mounts the disk is told all that it says. Promises that the tree is a pure function of
//! data and salt. Must never be given data that is not a whole number of blocks.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use store::digest::Digest;

/// Bytes of a block, of data and of hashes.
pub const BLOCK: usize = 4096;
/// Digests in one block.
const FANOUT: usize = BLOCK / 32;

/// All that a kernel must know to check a disk. Prints as shims take it (`kernel_verity_params`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// The digest that stands for all of the data.
    pub root_hash: Digest,
    /// What goes into every digest first.
    pub salt: Digest,
    /// How many blocks of data there are.
    pub data_blocks: u64,
    /// Bytes of each.
    pub data_block_size: usize,
    /// Bytes of a block of the hash area.
    pub hash_block_size: usize,
}

impl fmt::Display for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { root_hash, salt, data_blocks, data_block_size, hash_block_size } = self;
        write!(
            f,
            "root_hash={root_hash},salt={salt},data_blocks={data_blocks},data_block_size={data_block_size},\
             hash_block_size={hash_block_size}"
        )
    }
}

impl Parameters {
    /// What makes the kernel put the checked disk at `/dev/dm-0` before it looks for its root
    /// (`Documentation/admin-guide/device-mapper/dm-init.rst`). `data` and `hashes` name the devices as `root=` would. A
    /// block that is not what it was ends the guest: what it runs could no longer be trusted.
    pub fn boot_table(&self, data: &str, hashes: &str) -> String {
        let Self { root_hash, salt, data_blocks, data_block_size, hash_block_size } = self;
        let sectors = data_blocks * (*data_block_size as u64 / 512);
        format!(
            "dm-mod.create=\"root,,,ro,0 {sectors} verity 1 {data} {hashes} {data_block_size} {hash_block_size} \
             {data_blocks} 0 sha256 {root_hash} {salt} 1 panic_on_corruption\""
        )
    }
}

/// Makes the hash area for `data` and what is needed to use it. A last block that is not whole is left out, so there must
/// be none.
pub fn hash(data: &[u8], salt: Digest) -> (Parameters, Vec<u8>) {
    let mut levels: Vec<Vec<u8>> = Vec::new();
    let mut digests = digests(data, &salt);
    let data_blocks = digests.len();
    while digests.len() > 1 {
        let mut level = Vec::with_capacity(digests.len().div_ceil(FANOUT) * BLOCK);
        for digest in &digests {
            level.extend(digest);
        }
        level.resize(level.len().next_multiple_of(BLOCK), 0);
        digests = self::digests(&level, &salt);
        levels.push(level);
    }
    let root = digests.first().copied().unwrap_or_default();
    let parameters = Parameters {
        root_hash: Digest::from(root),
        salt,
        data_blocks: data_blocks as u64,
        data_block_size: BLOCK,
        hash_block_size: BLOCK,
    };
    levels.reverse();
    (parameters, levels.concat())
}

fn digests(blocks: &[u8], salt: &Digest) -> Vec<[u8; 32]> {
    let salted = Sha256::new_with_prefix(salt.as_bytes());
    let digest = |block: &[u8; BLOCK]| salted.clone().chain_update(block).finalize().into();
    blocks.as_chunks::<BLOCK>().0.iter().map(digest).collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn sample(blocks: usize) -> Vec<u8> {
        (0..blocks * BLOCK).map(|n| (n.wrapping_mul(2_654_435_761) >> 11) as u8).collect()
    }

    #[test]
    fn one_level_per_128_blocks() {
        let salt = Digest::of(b"salt");
        for (blocks, hash_blocks) in
            [(1, 0), (2, 1), (128, 1), (129, 3), (128 * 128, 129), (128 * 128 + 1, 132)]
        {
            let (parameters, area) = hash(&vec![0; blocks * BLOCK], salt);
            assert_eq!(parameters.data_blocks, blocks as u64);
            assert_eq!(area.len(), hash_blocks * BLOCK, "{blocks}");
        }
    }

    #[test]
    fn every_byte_and_the_salt_count() {
        let data = sample(300);
        let (whole, area) = hash(&data, Digest::of(b"a"));
        assert_eq!(hash(&data, Digest::of(b"a")), (whole.clone(), area));
        assert_ne!(hash(&data, Digest::of(b"b")).0.root_hash, whole.root_hash);
        for at in [0, 4095, 150 * BLOCK, data.len() - 1] {
            let mut other = data.clone();
            other[at] ^= 1;
            assert_ne!(hash(&other, Digest::of(b"a")).0.root_hash, whole.root_hash, "{at}");
        }
    }

    #[test]
    fn the_systems_tool_agrees() {
        let dir = tempfile::tempdir().unwrap();
        let salt = Digest::of(b"salt");
        for blocks in [1, 2, 200, 20_000] {
            let data = sample(blocks);
            std::fs::write(dir.path().join("data"), &data).unwrap();
            let mut command = Command::new("veritysetup");
            command
                .current_dir(dir.path())
                .arg("format")
                .args(["--no-superblock", "--salt"])
                .arg(salt.to_string());
            let output = match command.args(["data", "hashes"]).output() {
                Ok(output) => output,
                Err(error) => {
                    return eprintln!("skipped: veritysetup (cryptsetup-bin) does not run: {error}");
                }
            };
            let text = String::from_utf8(output.stdout).unwrap();
            let (parameters, area) = hash(&data, salt);
            assert!(text.contains(&parameters.root_hash.to_string()), "{blocks}: {parameters}: {text}");
            assert!(std::fs::read(dir.path().join("hashes")).unwrap() == area, "{blocks}");
        }
    }

    #[test]
    fn parameters_print_as_shims_and_kernels_take_them() {
        let parameters = hash(&sample(2), Digest::of(b"")).0;
        let Parameters { root_hash, salt, .. } = &parameters;
        assert_eq!(
            parameters.to_string(),
            format!(
                "root_hash={root_hash},salt={salt},data_blocks=2,data_block_size=4096,hash_block_size=4096"
            )
        );
        assert_eq!(
            parameters.boot_table("/dev/vda1", "/dev/vda2"),
            format!(
                "dm-mod.create=\"root,,,ro,0 16 verity 1 /dev/vda1 /dev/vda2 4096 4096 2 0 sha256 {root_hash} {salt} \
                 1 panic_on_corruption\""
            )
        );
    }
}
