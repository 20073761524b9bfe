//! dm-verity: a disk whose every block is checked against a hash tree when it is read
//! (`Documentation/admin-guide/device-mapper/verity.rst` of the kernel).
//!
//! The root hash comes with the request; data and tree are on one device. What the tree's position is, the device may
//! say itself (a superblock): a lie there only makes every read fail.
//!
//! The driver `dmverity` is a disk of another driver's with such a tree; layers of a stack can have one too.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Storage, StorageDriver, StorageError, VerityError, block};
use crate::device::watch::DeviceWatch;
use crate::error::chain;
use crate::sys::device_mapper::{self, Target};

/// What options for a layer begin with.
const OPTIONS: &str = "X-kata.dmverity";
/// Driver option that has the description, as JSON.
const DESCRIPTION: &str = "verity_info=";
/// Driver option that says what kind of disk it is.
const SOURCE: &str = "source_type=";
/// First bytes of a superblock (cryptsetup's `lib/verity/verity.c`).
const MAGIC: &[u8; 8] = b"verity\0\0";
const SUPERBLOCK: u64 = 512;
const SECTOR: u64 = 512;

/// How a disk is to be checked.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Verity {
    #[serde(rename = "hashtype", default = "sha256")]
    algorithm: String,
    /// Hexadecimal.
    #[serde(rename = "hash")]
    root_hash: String,
    /// Hexadecimal; the superblock's where it is not said.
    #[serde(default)]
    salt: Option<String>,
    /// Size of a block of data, in bytes.
    #[serde(rename = "blocksize")]
    data_block: u64,
    /// Size of a block of the tree, in bytes.
    #[serde(rename = "hashsize")]
    hash_block: u64,
    /// Blocks of data.
    #[serde(rename = "blocknum")]
    data_blocks: u64,
    /// Where the tree, or its superblock, begins, in bytes.
    offset: u64,
}

fn sha256() -> String {
    "sha256".to_owned()
}

/// Digest algorithms that the guest's kernel has, with the length of their digests in bytes.
const ALGORITHMS: [(&str, usize); 2] = [("sha256", 32), ("sha512", 64)];

impl Verity {
    /// What the options of a layer say; none where it is not to be checked.
    pub(super) fn of_options(layer: &Storage) -> Result<Option<Verity>, StorageError> {
        let ours = layer.options.iter().filter_map(|option| option.strip_prefix(OPTIONS));
        let pairs: Vec<(&str, &str)> = ours.filter_map(|option| option.split_once('=')).collect();
        if pairs.is_empty() || pairs.contains(&("-enabled", "false")) {
            return Ok(None);
        }
        let failed = |reason: String| verity_error(layer, VerityError::Invalid(reason));
        let mut verity = Verity {
            algorithm: sha256(),
            root_hash: String::new(),
            salt: None,
            data_block: 4096,
            hash_block: 4096,
            data_blocks: 0,
            offset: 0,
        };
        for (name, value) in pairs {
            let number =
                || value.parse::<u64>().map_err(|_| failed(format!("{OPTIONS}{name}={value} is no number")));
            match name {
                "-enabled" => {}
                ".roothash" => verity.root_hash = value.to_owned(),
                ".salt" => verity.salt = Some(value.to_owned()),
                ".hashtype" | ".algorithm" => verity.algorithm = value.to_owned(),
                ".hashoffset" => verity.offset = number()?,
                ".blocksize" => verity.data_block = number()?,
                ".hashsize" => verity.hash_block = number()?,
                _ => return Err(failed(format!("option {OPTIONS}{name} is not known"))),
            }
        }
        // The tree follows the data.
        verity.data_blocks = verity.offset.checked_div(verity.data_block).unwrap_or_default();
        verity.check().map_err(|error| verity_error(layer, error))?;
        Ok(Some(verity))
    }

    fn of_description(storage: &Storage) -> Result<Verity, StorageError> {
        let failed = |reason: String| verity_error(storage, VerityError::Invalid(reason));
        let text = storage.driver_options.iter().find_map(|option| option.strip_prefix(DESCRIPTION));
        let text = text.ok_or_else(|| failed(format!("no driver option {DESCRIPTION}")))?;
        let verity: Verity =
            serde_json::from_str(text).map_err(|error| failed(format!("{DESCRIPTION}{text}: {error}")))?;
        verity.check().map_err(|error| verity_error(storage, error))?;
        Ok(verity)
    }

    fn check(&self) -> Result<(), VerityError> {
        let invalid = |reason: String| Err(VerityError::Invalid(reason));
        let algorithm = ALGORITHMS.iter().find(|(name, _)| *name == self.algorithm);
        let Some((_, length)) = algorithm else {
            return invalid(format!("algorithm {:?} is not one of sha256, sha512", self.algorithm));
        };
        let is_hex =
            |text: &str| text.len().is_multiple_of(2) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if self.root_hash.len() != 2 * length || !is_hex(&self.root_hash) {
            return invalid(format!(
                "root hash {:?} is not {} hexadecimal digits",
                self.root_hash,
                2 * length
            ));
        }
        if let Some(salt) = self.salt.as_ref().filter(|salt| !is_hex(salt) || salt.len() > 512) {
            return invalid(format!("salt {salt:?} is not hexadecimal, or longer than 256 bytes"));
        }
        // The device mapper takes no block that is larger than a page, which may be of 16 or 64 KiB.
        let most = rustix::param::page_size() as u64;
        let is_block = |size: u64| size.is_power_of_two() && (512..=most).contains(&size);
        if !is_block(self.data_block) || !is_block(self.hash_block) {
            let (data, hash) = (self.data_block, self.hash_block);
            return invalid(format!(
                "block sizes {data} and {hash} are not powers of two from 512 to {most}, which is a page of this kernel"
            ));
        }
        let data = self.data_blocks.checked_mul(self.data_block).filter(|bytes| *bytes > 0);
        if data.is_none_or(|data| data > self.offset) {
            return invalid(format!(
                "{} blocks of data do not end before the tree at {}",
                self.data_blocks, self.offset
            ));
        }
        Ok(())
    }

    /// The mapper's parameters for a device, given the bytes at the place where a superblock may be.
    fn parameters(&self, device: (u32, u32), superblock: &[u8]) -> String {
        let has_superblock = superblock.starts_with(MAGIC);
        let tree = if has_superblock { self.offset + SUPERBLOCK } else { self.offset };
        // The salt's length is at 80, the salt at 88.
        let length = superblock.get(80..82).map(|bytes| u16::from_le_bytes([bytes[0], bytes[1]]));
        let own = length.and_then(|length| superblock.get(88..88 + usize::from(length)));
        let own = own.filter(|salt| has_superblock && !salt.is_empty() && salt.len() <= 256);
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let salt = self.salt.clone().filter(|salt| !salt.is_empty()).or_else(|| own.map(hex));
        let (major, minor) = device;
        format!(
            "1 {major}:{minor} {major}:{minor} {} {} {} {} {} {} {}",
            self.data_block,
            self.hash_block,
            self.data_blocks,
            tree.div_ceil(self.hash_block),
            self.algorithm,
            self.root_hash,
            salt.as_deref().unwrap_or("-"),
        )
    }
}

fn verity_error(storage: &Storage, error: VerityError) -> StorageError {
    StorageError::Verity(storage.mount_point.display().to_string(), error)
}

/// Makes a checked device of a disk, for a mount point, and gives its node.
pub(super) fn open(disk: &Path, verity: &Verity, point: &Path) -> Result<PathBuf, StorageError> {
    let work = || {
        let io = |operation| move |source| VerityError::Io { operation, path: disk.to_owned(), source };
        let mut file = std::fs::File::open(disk).map_err(io("open"))?;
        let number = file.metadata().map_err(io("look at"))?.rdev();
        file.seek(SeekFrom::Start(verity.offset)).map_err(io("read the hash tree of"))?;
        let mut superblock = Vec::new();
        file.take(SUPERBLOCK).read_to_end(&mut superblock).map_err(io("read the hash tree of"))?;
        let parameters =
            verity.parameters((rustix::fs::major(number), rustix::fs::minor(number)), &superblock);
        let sectors = verity.data_blocks * verity.data_block / SECTOR;
        let name = name(point);
        let target = Target { kind: "verity", sectors, parameters: &parameters };
        let minor = device_mapper::create(&name, &target).map_err(|source| VerityError::Mapper {
            operation: "make",
            name,
            source,
        })?;
        Ok(PathBuf::from(format!("/dev/dm-{minor}")))
    };
    work().map_err(|error| StorageError::Verity(point.display().to_string(), error))
}

/// Removes the checked device of a mount point, once nobody uses it any more. None is no error.
pub(super) fn close(point: &Path) -> Result<(), StorageError> {
    let name = name(point);
    match device_mapper::remove(&name) {
        Err(error) if !matches!(error.raw_os_error(), Some(nix::libc::ENXIO | nix::libc::ENOENT)) => {
            let error = VerityError::Mapper { operation: "remove", name, source: error };
            Err(StorageError::Verity(point.display().to_string(), error))
        }
        _ => Ok(()),
    }
}

/// Mount points are unique, and longer than a name may be.
fn name(point: &Path) -> String {
    let mut hasher = DefaultHasher::new();
    point.hash(&mut hasher);
    format!("pith-{:016x}", hasher.finish())
}

/// See the module.
pub(super) struct Verified;

impl StorageDriver for Verified {
    fn name(&self) -> &'static str {
        "dmverity"
    }

    fn acquire(&self, storage: &Storage, devices: &DeviceWatch) -> Result<(), StorageError> {
        let known = |option: &&String| option.starts_with(DESCRIPTION) || option.starts_with(SOURCE);
        if let Some(option) = storage.driver_options.iter().find(|option| !known(option)) {
            return Err(storage.invalid(format!("driver option {option:?} is not supported")));
        }
        let kind = storage.driver_options.iter().find_map(|option| option.strip_prefix(SOURCE));
        let kind = match kind {
            None | Some("virtio_pci") => "blk",
            Some("virtio_mmio") => "mmioblk",
            Some("scsi") => "scsi",
            Some("pmem") => "nvdimm",
            Some(other) => return Err(storage.invalid(format!("{SOURCE}{other} is not supported"))),
        };
        let verity = Verity::of_description(storage)?;
        let node = open(&block::wait_for(storage, kind, devices)?, &verity, &storage.mount_point)?;
        let options: Vec<String> = ["ro".to_owned()].into_iter().chain(storage.mount_options()).collect();
        super::mount_at(&storage.fstype, &node.to_string_lossy(), &options, &storage.mount_point).inspect_err(
            |_| {
                if let Err(error) = close(&storage.mount_point) {
                    tracing::error!(error = %chain(&error), "a checked device stays");
                }
            },
        )
    }

    fn release(&self, storage: &Storage, _: bool) -> Result<(), StorageError> {
        super::unmount(&storage.mount_point)?;
        close(&storage.mount_point)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{ErrorKind, Kind as _};

    const HASH: &str = "d86104eee715a1b59b62148641f4ca73edf1be3006c4d481f03f55ac05640570";

    fn layer(options: &[&str]) -> Storage {
        Storage { options: options.iter().map(|&option| option.to_owned()).collect(), ..Storage::default() }
    }

    fn described(text: &str) -> Result<Verity, StorageError> {
        let driver_options = vec!["source_type=scsi".to_owned(), format!("verity_info={text}")];
        Verity::of_description(&Storage { driver_options, ..Storage::default() })
    }

    #[test]
    fn options_of_a_layer() {
        assert_eq!(Verity::of_options(&layer(&["ro", "X-kata.overlay-lower"])).unwrap(), None);
        let hash = format!("X-kata.dmverity.roothash={HASH}");
        let enabled = "X-kata.dmverity-enabled=true";
        let verity = Verity::of_options(&layer(&[enabled, &hash, "X-kata.dmverity.hashoffset=8192"]))
            .unwrap()
            .unwrap();
        assert_eq!((verity.data_blocks, verity.data_block), (2, 4096));
        assert_eq!(
            verity.parameters((254, 16), &[]),
            format!("1 254:16 254:16 4096 4096 2 2 sha256 {HASH} -")
        );
        let off = layer(&["X-kata.dmverity-enabled=false", &hash]);
        assert_eq!(Verity::of_options(&off).unwrap(), None);
        for bad in [
            &[enabled][..],
            &[enabled, &hash],
            &[enabled, &hash, "X-kata.dmverity.hashoffset=x"],
            &[enabled, &hash, "X-kata.dmverity.hashoffset=8192", "X-kata.dmverity.blocksize=0"],
            &[enabled, &hash, "X-kata.dmverity.hashoffset=8192", "X-kata.dmverity.salt=xyz"],
            &[enabled, &hash, "X-kata.dmverity.hashoffset=8192", "X-kata.dmverity.colour=red"],
            &[enabled, "X-kata.dmverity.roothash=ab cd", "X-kata.dmverity.hashoffset=8192"],
        ] {
            let error = Verity::of_options(&layer(bad)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{bad:?}");
        }
    }

    #[test]
    fn a_description_as_shims_send_it() {
        let text = |hashtype: &str, blocknum: u64| {
            format!(
                r#"{{"hashtype":"{hashtype}","hash":"{HASH}","blocknum":{blocknum},"blocksize":512,"hashsize":4096,"offset":1212416}}"#
            )
        };
        let verity = described(&text("sha256", 2361)).unwrap();
        assert_eq!(
            verity.parameters((8, 0), &[0; 512]),
            format!("1 8:0 8:0 512 4096 2361 296 sha256 {HASH} -")
        );
        assert!(described(&text("md5", 2361)).is_err());
        assert!(described(&text("sha256", 2369)).is_err(), "the data would reach into the tree");
        assert!(described(&text("sha256", u64::MAX)).is_err());
        assert!(described("{}").is_err());
    }

    #[test]
    fn a_superblock_moves_the_tree_and_has_the_salt() {
        let verity = Verity::of_options(&layer(&[
            &format!("X-kata.dmverity.roothash={HASH}"),
            "X-kata.dmverity.hashoffset=8192",
        ]));
        let verity = verity.unwrap().unwrap();
        let mut superblock = vec![0; 512];
        superblock[..8].copy_from_slice(MAGIC);
        superblock[80] = 2;
        superblock[88..90].copy_from_slice(&[0xab, 1]);
        let parameters = verity.parameters((254, 16), &superblock);
        assert_eq!(parameters, format!("1 254:16 254:16 4096 4096 2 3 sha256 {HASH} ab01"));
        superblock[80..82].copy_from_slice(&[0xff, 0xff]);
        assert!(verity.parameters((254, 16), &superblock).ends_with(" -"));
    }
}
