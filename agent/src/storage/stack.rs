//! `erofs.multi-layer`: an image whose layers are file systems of their own, stacked, with a writable one on top or none.
//!
//! A shim sends one storage per layer, all for one mount point, and says in options that are no mount options what each
//! is: `X-kata.overlay-lower` (topmost first) or `X-kata.overlay-upper`, and `X-kata.multi-layer=true` for all. [`combine`]
//! makes one storage of them. A lower layer can be one partition of a disk, and be checked by dm-verity.
//!
//! ```text
//!  POINT-layers/lower-0, lower-1, …    erofs, each on its disk, partition or dm-verity device
//!  POINT-layers/upper/{upper,work}     ext4, or whatever the request says
//!  POINT                               overlay of these
//! ```

use std::path::{Component, Path, PathBuf};

use super::verity::{self, Verity};
use super::{Storage, StorageDriver, StorageError, block};
use crate::device::watch::DeviceWatch;
use crate::device::{DeviceError, address::Address};
use crate::error::chain;

const NAME: &str = "erofs.multi-layer";
/// What options of ours begin with.
const OURS: &str = "X-kata.";
const MEMBER: &str = "X-kata.multi-layer=true";
const LOWER: &str = "X-kata.overlay-lower";
const UPPER: &str = "X-kata.overlay-upper";
const MAKE_DIRECTORY: &str = "X-kata.mkdir.path=";
const IS_PARTITIONED: &str = "X-kata.gpt-partitioned=true";
const PARTITION: &str = "X-kata.partition-number=";
/// How a directory names the writable layer.
const UPPER_MOUNT: &str = "{{ mount 0 }}";

/// Makes one storage of the layers of each stack; other storages stay as they are, in their order.
///
/// # Errors
/// [`StorageError::Invalid`] for a layer that is neither upper nor lower, and for stacks without a lower layer or with
/// two writable ones.
pub(crate) fn combine(storages: Vec<Storage>) -> Result<Vec<Storage>, StorageError> {
    let mut out: Vec<Storage> = Vec::new();
    for storage in storages {
        let is_layer = storage.driver == NAME || storage.options.iter().any(|option| option == MEMBER);
        if !is_layer {
            out.push(storage);
            continue;
        }
        let is_its = |one: &&mut Storage| one.driver == NAME && one.mount_point == storage.mount_point;
        match out.iter_mut().find(is_its) {
            Some(stack) => stack.layers.push(storage),
            None => out.push(Storage {
                driver: NAME.to_owned(),
                mount_point: storage.mount_point.clone(),
                fs_group: storage.fs_group,
                shared: storage.shared,
                layers: vec![storage],
                ..Storage::default()
            }),
        }
    }
    out.iter().filter(|storage| storage.driver == NAME).try_for_each(|stack| Layers::of(stack).map(drop))?;
    Ok(out)
}

/// The layers of a stack, sorted.
struct Layers<'a> {
    upper: Option<&'a Storage>,
    /// Topmost first.
    lower: Vec<&'a Storage>,
}

impl Layers<'_> {
    fn of(stack: &Storage) -> Result<Layers<'_>, StorageError> {
        let has = |layer: &Storage, word: &str| layer.options.iter().any(|option| option == word);
        let mut layers = Layers { upper: None, lower: Vec::new() };
        for layer in &stack.layers {
            match (has(layer, UPPER), has(layer, LOWER)) {
                (true, false) if layers.upper.is_some() => {
                    return Err(stack.invalid(format!("two layers say {UPPER}")));
                }
                (true, false) => layers.upper = Some(layer),
                (false, true) => layers.lower.push(layer),
                // Shims that say nothing mean the type.
                (false, false) if layer.fstype == "erofs" => layers.lower.push(layer),
                (false, false) if layer.fstype == "ext4" && layers.upper.is_none() => {
                    layers.upper = Some(layer)
                }
                _ => {
                    let source = &layer.source;
                    return Err(
                        stack.invalid(format!("the layer {source:?} says neither {UPPER} nor {LOWER}"))
                    );
                }
            }
        }
        if layers.lower.is_empty() {
            return Err(stack.invalid(format!("no layer says {LOWER}")));
        }
        Ok(layers)
    }
}

/// See the module.
pub(super) struct Stack;

impl StorageDriver for Stack {
    fn name(&self) -> &'static str {
        NAME
    }

    fn acquire(&self, stack: &Storage, devices: &DeviceWatch) -> Result<(), StorageError> {
        assemble(stack, devices).inspect_err(|_| {
            if let Err(error) = take_apart(stack) {
                tracing::error!(error = %chain(&error), "layers stay mounted");
            }
        })
    }

    fn release(&self, stack: &Storage, _: bool) -> Result<(), StorageError> {
        take_apart(stack)
    }
}

/// Where the layers of a stack are mounted.
fn directory(stack: &Storage) -> PathBuf {
    let mut name = stack.mount_point.file_name().unwrap_or_default().to_owned();
    name.push("-layers");
    stack.mount_point.with_file_name(name)
}

fn lower_point(stack: &Storage, index: usize) -> PathBuf {
    directory(stack).join(format!("lower-{index}"))
}

fn assemble(stack: &Storage, devices: &DeviceWatch) -> Result<(), StorageError> {
    let layers = Layers::of(stack)?;
    let mut options = Vec::new();
    if let Some(upper) = layers.upper {
        let point = directory(stack).join("upper");
        let node = disk(upper, devices)?;
        super::mount_at(&upper.fstype, &node.to_string_lossy(), &mount_options(upper), &point)?;
        for path in wanted_directories(upper)? {
            super::make_directory(&point.join(path))?;
        }
        for (option, name) in [("upperdir", "upper"), ("workdir", "work")] {
            let directory = point.join(name);
            super::make_directory(&directory)?;
            options.push(format!("{option}={}", directory.display()));
        }
    }
    for (index, lower) in layers.lower.iter().enumerate() {
        let point = lower_point(stack, index);
        let node = disk(lower, devices)?;
        let node = match Verity::of_options(lower)? {
            Some(verity) => verity::open(&node, &verity, &point)?,
            None => node,
        };
        let options: Vec<String> = ["ro".to_owned()].into_iter().chain(mount_options(lower)).collect();
        super::mount_at(&lower.fstype, &node.to_string_lossy(), &options, &point)?;
    }
    if layers.upper.is_none() && layers.lower.len() == 1 {
        // An overlay wants two.
        let source = lower_point(stack, 0);
        super::make_directory(&stack.mount_point)?;
        return super::mount_on("bind", &source.to_string_lossy(), &["bind".to_owned()], &stack.mount_point);
    }
    let points: Vec<String> =
        (0..layers.lower.len()).map(|index| lower_point(stack, index).display().to_string()).collect();
    options.push(format!("lowerdir={}", points.join(":")));
    super::mount_at("overlay", "overlay", &options, &stack.mount_point)
}

/// Undoes whatever [`assemble`] did of a stack.
fn take_apart(stack: &Storage) -> Result<(), StorageError> {
    super::unmount(&stack.mount_point)?;
    let layers = Layers::of(stack)?;
    for index in (0..layers.lower.len()).rev() {
        let point = lower_point(stack, index);
        super::unmount(&point)?;
        verity::close(&point)?;
    }
    if layers.upper.is_some() {
        super::unmount(&directory(stack).join("upper"))?;
    }
    super::remove_mount_point(&directory(stack));
    Ok(())
}

/// The node of a layer's disk, or of a partition on it.
fn disk(layer: &Storage, devices: &DeviceWatch) -> Result<PathBuf, StorageError> {
    layer.no_driver_options()?;
    let node = block::wait_for(layer, &layer.driver, devices)?;
    let Some(number) = partition(layer)? else { return Ok(node) };
    let on_device = |error: DeviceError| StorageError::Device(layer.mount_point.display().to_string(), error);
    let name = partition_name(&node.to_string_lossy(), number);
    let address = Address::node(&name).map_err(on_device)?;
    devices.disk(&address).map_err(on_device)
}

fn partition(layer: &Storage) -> Result<Option<u32>, StorageError> {
    let number = layer.options.iter().find_map(|option| option.strip_prefix(PARTITION));
    let is_partitioned = layer.options.iter().any(|option| option == IS_PARTITIONED);
    match number.map(str::parse::<u32>) {
        Some(Ok(number)) if (1..=128).contains(&number) => Ok(Some(number)),
        None if !is_partitioned => Ok(None),
        _ => {
            Err(layer
                .invalid(format!("a layer on a partition needs {PARTITION} with a number from 1 to 128")))
        }
    }
}

/// The kernel puts a `p` between a name that ends in a digit and the partition's number.
fn partition_name(disk: &str, number: u32) -> String {
    let separator = if disk.ends_with(|last: char| last.is_ascii_digit()) { "p" } else { "" };
    format!("{disk}{separator}{number}")
}

/// Options for the file system; ours are for us.
fn mount_options(layer: &Storage) -> Vec<String> {
    layer.mount_options().into_iter().filter(|option| !option.starts_with(OURS)).collect()
}

/// Directories that are to be made in the writable layer, relative to it.
fn wanted_directories(upper: &Storage) -> Result<Vec<PathBuf>, StorageError> {
    let specs = upper.options.iter().filter_map(|option| option.strip_prefix(MAKE_DIRECTORY));
    let parse = |spec: &str| {
        // A mode may follow; overlay takes the modes of the layers below.
        let path = spec.split(':').next().unwrap_or_default();
        let inner = path.strip_prefix(UPPER_MOUNT).map(|path| path.trim_start_matches('/')).map(Path::new);
        let is_inside = |path: &&Path| path.components().all(|part| matches!(part, Component::Normal(_)));
        inner.filter(is_inside).map(Path::to_owned).ok_or_else(|| {
            upper.invalid(format!(
                "{MAKE_DIRECTORY}{spec} is not a path below {UPPER_MOUNT}, the writable layer"
            ))
        })
    };
    specs.map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(source: &str, fstype: &str, options: &[&str]) -> Storage {
        Storage {
            driver: "blk".into(),
            source: source.into(),
            fstype: fstype.into(),
            options: options.iter().map(|&option| option.to_owned()).collect(),
            mount_point: "/run/kata-containers/c1/rootfs".into(),
            ..Storage::default()
        }
    }

    #[test]
    fn layers_become_one_storage_in_the_place_of_the_first() {
        let other = Storage { driver: "local".into(), mount_point: "/run/x".into(), ..Storage::default() };
        let upper = layer("02", "ext4", &["rw", UPPER, MEMBER]);
        let lower = ["03", "04"].map(|source| layer(source, "erofs", &["ro", LOWER, MEMBER]));
        let [first, second] = lower;
        let combined = combine(vec![upper, other.clone(), first, second]).unwrap();
        assert_eq!(combined.len(), 2);
        assert_eq!(combined[1], other);
        let layers = Layers::of(&combined[0]).unwrap();
        assert_eq!(layers.upper.unwrap().source, "02");
        assert_eq!(layers.lower.iter().map(|layer| layer.source.as_str()).collect::<Vec<_>>(), ["03", "04"]);
        assert_eq!(mount_options(layers.lower[0]), ["ro"]);
        assert_eq!(lower_point(&combined[0], 1), Path::new("/run/kata-containers/c1/rootfs-layers/lower-1"));
    }

    #[test]
    fn stacks_that_make_no_sense_are_refused() {
        let upper = || layer("02", "ext4", &[UPPER, MEMBER]);
        let lower = || layer("03", "erofs", &[LOWER, MEMBER]);
        assert!(combine(vec![upper(), lower()]).is_ok());
        assert!(combine(vec![lower(), lower()]).is_ok(), "read-only");
        assert!(combine(vec![upper()]).is_err());
        assert!(combine(vec![upper(), upper(), lower()]).is_err());
        assert!(combine(vec![layer("02", "xfs", &[MEMBER]), lower()]).is_err());
        assert!(combine(vec![layer("02", "erofs", &[MEMBER, UPPER, LOWER])]).is_err());
    }

    #[test]
    fn partitions_are_named_as_the_kernel_does() {
        assert_eq!(partition_name("/dev/vda", 3), "/dev/vda3");
        assert_eq!(partition_name("/dev/nvme0n1", 3), "/dev/nvme0n1p3");
        let number = |options: &[&str]| partition(&layer("02", "erofs", options)).map_err(drop);
        assert_eq!(number(&[]), Ok(None));
        assert_eq!(number(&[IS_PARTITIONED, "X-kata.partition-number=2"]), Ok(Some(2)));
        assert_eq!(number(&[IS_PARTITIONED]), Err(()));
        assert_eq!(number(&[IS_PARTITIONED, "X-kata.partition-number=0"]), Err(()));
    }

    #[test]
    fn directories_stay_in_the_writable_layer() {
        let made = |path: &str| {
            let upper = layer("02", "ext4", &[&format!("{MAKE_DIRECTORY}{path}")]);
            wanted_directories(&upper).map_err(drop)
        };
        assert_eq!(made("{{ mount 0 }}/upper/a:0755"), Ok(vec!["upper/a".into()]));
        for bad in ["/etc", "{{ mount 0 }}/../x", "{{ mount 1 }}/x", ""] {
            assert_eq!(made(bad), Err(()), "{bad}");
        }
    }
}
