//! Packs a flavour into a disk that a VM has as its root.
//!
//! ```text
//! recipe ─ tree ─ file system ─┬─ hash tree ─┬─ partitions ─ table ─ (DAX prefix) ─ disk
//!                              └─────────────┴─ root hash ─ words for the kernel's command line
//! ```
//! Promises that the same recipe, products and `SOURCE_DATE_EPOCH` give the same bytes: every name on the disk (file
//! system, disk, partitions, salt) follows from what is in it. Must never need root, a loop device or a mount.

use std::fmt;
use std::path::{Path, PathBuf};

use fs_image::{Tree, WriteError, erofs, ext4};
use uuid::Uuid;

use crate::cache::{self, CacheError};
use crate::digest::Digest;
use crate::format::label::{self, ALIGNMENT, Extent, LabelError, Role};
use crate::format::{dax, verity};
use crate::initrd;
use crate::layout::Layout;
use crate::manifest::{DiskPart, EntryPart, Manifest, ManifestError, PartitionPart};
use crate::progress::bytes;
use crate::recipe::{Recipe, RecipeError};

/// Why there is no disk.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The recipe is wrong or something it names is missing.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// The file system cannot be made.
    #[error("cannot make the root file system; what {root_fs} cannot hold, another may (--root-fs)")]
    FileSystem {
        /// Which.
        root_fs: FileSystem,
        /// Why.
        source: WriteError,
    },
    /// The partition table cannot be made.
    #[error(transparent)]
    Label(#[from] LabelError),
    /// The disk is too large.
    #[error(
        "the {flavour} root file system has {}, over its budget of {} (`disk` in the recipe); the largest files:\n{culprits}",
        bytes(*.size), bytes(*.budget)
    )]
    Budget {
        /// The recipe's name.
        flavour: String,
        /// Its size.
        size: u64,
        /// The bound.
        budget: u64,
        /// One line per large file.
        culprits: String,
    },
    /// Two packings of the same input differ.
    #[error("packed twice from the same input, the disk came out different; this is a bug in image-builder")]
    Irreproducible,
    /// It cannot be written.
    #[error("cannot write the disk")]
    Write(#[from] CacheError),
    /// The manifest cannot be written.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

/// What a disk looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord, clap::ValueEnum)]
pub enum Form {
    /// As Kata's shims expect: an MBR, the root in partition 1 at 1 MiB, its hashes in partition 2.
    #[default]
    Kata,
    /// The same behind a prefix with which an NVDIMM maps it into the guest (DAX).
    KataDax,
    /// A GPT with the root and its hashes, found by their names.
    Gpt,
    /// A GPT with the root alone, unchecked.
    Plain,
}

impl Form {
    /// Whether the guest refuses what was changed on it.
    pub fn is_verified(self) -> bool {
        self != Self::Plain
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kata => "kata",
            Self::KataDax => "kata-dax",
            Self::Gpt => "gpt",
            Self::Plain => "plain",
        })
    }
}

/// What the root is formatted as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord, clap::ValueEnum)]
pub enum FileSystem {
    /// EROFS, which every kernel of ours mounts and image-builder writes itself.
    #[default]
    Erofs,
    /// ext4, for kernels with CONFIG_EXT4_FS (of ours: the profile `kata`, not `sandbox`); needs e2fsprogs.
    Ext4,
}

impl fmt::Display for FileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Erofs => "erofs",
            Self::Ext4 => "ext4",
        })
    }
}

/// What `disk --all` makes of every flavour: each form, and of the one for shims the other file system, too.
pub const MADE: [(Form, FileSystem); 5] = [
    (Form::Kata, FileSystem::Erofs),
    (Form::KataDax, FileSystem::Erofs),
    (Form::Gpt, FileSystem::Erofs),
    (Form::Plain, FileSystem::Erofs),
    (Form::Kata, FileSystem::Ext4),
];

/// What to pack and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The recipe's name.
    pub flavour: String,
    /// The disk's look.
    pub form: Form,
    /// What its root is formatted as.
    pub root_fs: FileSystem,
    /// The time of every entry.
    pub epoch: u32,
    /// Pack twice and compare.
    pub twice: bool,
}

/// A packed disk, not yet written.
#[derive(Debug, Clone)]
pub struct Disk {
    image: Vec<u8>,
    part: DiskPart,
    form: Form,
    root_fs: FileSystem,
}

/// Packs a disk.
///
/// # Errors
/// As they come; [`DiskError::Budget`] names the largest files.
pub fn pack(layout: &Layout, options: &Options) -> Result<Disk, DiskError> {
    let recipe = Recipe::load(layout, &options.flavour)?;
    let first = pack_recipe(layout, &recipe, options)?;
    if options.twice && pack_recipe(layout, &recipe, options)?.image != first.image {
        return Err(DiskError::Irreproducible);
    }
    Ok(first)
}

fn pack_recipe(layout: &Layout, recipe: &Recipe, options: &Options) -> Result<Disk, DiskError> {
    let Options { form, root_fs, epoch, .. } = *options;
    let mut tree = recipe.tree(layout)?;
    tree.set_times(epoch.into());
    let failed = |source| DiskError::FileSystem { root_fs, source };
    let entries = EntryPart::list(&tree).map_err(|error| failed(error.into()))?;
    // The file system's name and the salt are of what is in it, so that no two contents share one.
    let listed = serde_json::to_vec(&entries).unwrap_or_default();
    let mut parts = vec![("entries", listed), ("epoch", epoch.to_le_bytes().to_vec())];
    if root_fs != FileSystem::default() {
        parts.push(("file system", root_fs.to_string().into_bytes()));
    }
    let identity = Digest::of_parts(parts.iter().map(|(name, value)| (*name, &value[..])));
    let (root, formatted_by) = file_system(&tree, root_fs, identity.uuid(), epoch).map_err(failed)?;
    let (size, budget) = (root.len() as u64, recipe.disk_budget());
    if let Some(budget) = budget.filter(|budget| size > *budget) {
        let culprits = initrd::culprits(&tree);
        return Err(DiskError::Budget { flavour: recipe.name().to_string(), size, budget, culprits });
    }
    let hashed = form.is_verified().then(|| verity::hash(&root, identity));
    let Assembled { image, partitions, cmdline } = assemble(form, root_fs, identity, root, hashed.as_ref())?;
    let part = DiskPart {
        flavour: recipe.name().to_string(),
        recipe_sha256: recipe.digest(),
        form: form.to_string(),
        file_system: root_fs.to_string(),
        formatted_by,
        source_date_epoch: epoch,
        partitions,
        verity: hashed.as_ref().map(|(parameters, _)| parameters.clone()),
        kernel_verity_params: hashed.as_ref().map(|(parameters, _)| parameters.to_string()),
        cmdline,
        packages: recipe.packages()?,
        entries,
    };
    Ok(Disk { image, part, form, root_fs })
}

/// The bytes of the file system, and the program that formatted it, where that is not this one.
fn file_system(
    tree: &Tree,
    root_fs: FileSystem,
    uuid: [u8; 16],
    epoch: u32,
) -> Result<(Vec<u8>, Option<String>), WriteError> {
    match root_fs {
        FileSystem::Erofs => {
            let mut root = Vec::new();
            erofs::write(tree, uuid, &mut root)?;
            Ok((root, None))
        }
        FileSystem::Ext4 => {
            let file = tempfile::NamedTempFile::new()?;
            ext4::write(tree, uuid, epoch, file.path())?;
            Ok((std::fs::read(file.path())?, Some(ext4::version()?)))
        }
    }
}

struct Assembled {
    image: Vec<u8>,
    partitions: Vec<PartitionPart>,
    cmdline: String,
}

/// Puts the partitions and their table together, and says what a kernel must be told to use them.
fn assemble(
    form: Form,
    root_fs: FileSystem,
    identity: Digest,
    root: Vec<u8>,
    hashed: Option<&(verity::Parameters, Vec<u8>)>,
) -> Result<Assembled, LabelError> {
    let at = |start: u64, content: &[u8]| Extent {
        start,
        len: (content.len() as u64).next_multiple_of(ALIGNMENT),
    };
    let mut partitions = vec![("root", at(ALIGNMENT, &root))];
    if let Some((_, hashes)) = hashed {
        partitions.push(("root-verity", at(partitions[0].1.start + partitions[0].1.len, hashes)));
    }
    let end = partitions.last().map_or(0, |(_, extent)| extent.start + extent.len);
    // A GPT has its copy behind the partitions; what an NVDIMM holds must be a multiple of the prefix.
    let end = match form {
        Form::Kata => end,
        Form::KataDax => end.next_multiple_of(dax::PREFIX as u64),
        Form::Gpt | Form::Plain => end + ALIGNMENT,
    };
    let mut disk = vec![0; usize::try_from(end).map_err(|_| LabelError::Mbr)?];
    let contents = [Some(&root), hashed.map(|(_, hashes)| hashes)];
    for ((_, extent), content) in partitions.iter().zip(contents.into_iter().flatten()) {
        let start = usize::try_from(extent.start).map_err(|_| LabelError::Mbr)?;
        disk[start..start + content.len()].copy_from_slice(content);
    }
    let extents: Vec<Extent> = partitions.iter().map(|(_, extent)| *extent).collect();
    let uuid = |part: &str| Uuid::from_bytes(Digest::of_parts([(part, &identity.as_bytes()[..])]).uuid());
    let names: Vec<String> = match form {
        Form::Kata | Form::KataDax => {
            let signature = u32::from_le_bytes(*identity.as_bytes().first_chunk().unwrap_or(&[0; 4]));
            disk[..512].copy_from_slice(&label::mbr(signature, &extents)?);
            (1..).zip(&extents).map(|(number, _)| format!("PARTUUID={signature:08x}-{number:02x}")).collect()
        }
        Form::Gpt | Form::Plain => {
            // The names of the partitions are halves of the root hash, as the Discoverable Partitions Specification has
            // it; without a root hash, of the content.
            let halves = hashed.map(|(parameters, _)| *parameters.root_hash.as_bytes());
            let half = |index: usize| match halves {
                Some(hash) => Uuid::from_slice(&hash[16 * index..16 * index + 16]).unwrap_or_default(),
                None => uuid("root"),
            };
            let roles = [Role::Root, Role::RootVerity];
            let entries: Vec<_> = extents
                .iter()
                .enumerate()
                .map(|(index, extent)| (roles[index], half(index), *extent))
                .collect();
            label::gpt(&mut disk, uuid("disk"), &entries)?;
            entries.iter().map(|(_, name, _)| format!("PARTUUID={name}")).collect()
        }
    };
    let mut shift = 0;
    if form == Form::KataDax {
        // Drivers that do not know of the prefix see a disk whose first partition begins that much later.
        let mut prefix = dax::prefix(disk.len() as u64);
        shift = prefix.len() as u64;
        let shifted: Vec<_> =
            extents.iter().map(|extent| Extent { start: extent.start + shift, ..*extent }).collect();
        let signature: [u8; 4] = disk[440..444].try_into().unwrap_or_default();
        prefix[..512].copy_from_slice(&label::mbr(u32::from_le_bytes(signature), &shifted)?);
        prefix.append(&mut disk);
        disk = prefix;
    }
    let cmdline = match hashed {
        Some((parameters, _)) => {
            format!("{} root=/dev/dm-0 rootfstype={root_fs} ro", parameters.boot_table(&names[0], &names[1]))
        }
        None => format!("root={} rootfstype={root_fs} ro rootwait", names[0]),
    };
    let partitions = partitions
        .into_iter()
        .map(|(name, Extent { start, len })| PartitionPart {
            name: name.to_string(),
            start: start + shift,
            size: len,
        })
        .collect();
    Ok(Assembled { image: disk, partitions, cmdline })
}

impl Disk {
    /// The disk's bytes.
    pub fn image(&self) -> &[u8] {
        &self.image
    }

    /// What went into it.
    pub fn part(&self) -> &DiskPart {
        &self.part
    }

    /// Writes the disk and its words for the kernel's command line into the product directory, and notes it in the
    /// manifest. Gives the product's name.
    ///
    /// # Errors
    /// When any cannot be written.
    pub fn install(&self, layout: &Layout) -> Result<String, DiskError> {
        let path = layout.disk(&self.part.flavour, self.form, self.root_fs);
        let names = self.write(&path)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Manifest::update(layout, |manifest| {
            manifest.disks.insert(name.clone(), self.part.clone());
            for path in &names {
                manifest.add_product(layout, &path.file_name().unwrap_or_default().to_string_lossy())?;
            }
            Ok(())
        })?;
        Ok(name)
    }

    /// Writes the disk to a file, and beside it, under the same name with `.cmdline`, what a kernel must be told to use it.
    /// Gives both.
    ///
    /// # Errors
    /// When one cannot be written.
    pub fn write(&self, path: &Path) -> Result<[PathBuf; 2], DiskError> {
        let words = cmdline_path(path);
        cache::write_atomically(path, &self.image)?;
        cache::write_atomically(&words, format!("{}\n", self.part.cmdline).as_bytes())?;
        Ok([path.to_path_buf(), words])
    }
}

/// Where the words for the kernel's command line are that belong to a disk.
pub fn cmdline_path(disk: &Path) -> PathBuf {
    disk.with_extension("cmdline")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assembled(form: Form, root: &[u8]) -> Assembled {
        let hashed = form.is_verified().then(|| verity::hash(root, Digest::of(b"id")));
        assemble(form, FileSystem::Erofs, Digest::of(b"id"), root.to_vec(), hashed.as_ref()).unwrap()
    }

    fn content(blocks: usize) -> Vec<u8> {
        (0..blocks * verity::BLOCK).map(|n| (n / 7) as u8).collect()
    }

    #[test]
    fn the_root_is_where_shims_expect_it() {
        let root = content(300);
        let Assembled { image, partitions, cmdline } = assembled(Form::Kata, &root);
        assert!(image[1 << 20..][..root.len()] == root);
        assert_eq!((partitions[0].start, partitions[0].size), (1 << 20, 2 << 20));
        assert_eq!((partitions[1].start, partitions[1].size), (3 << 20, 1 << 20));
        assert_eq!(image.len(), 4 << 20);
        let (parameters, hashes) = verity::hash(&root, Digest::of(b"id"));
        assert!(image[3 << 20..][..hashes.len()] == hashes);
        assert!(
            cmdline.contains(&parameters.root_hash.to_string())
                && cmdline.ends_with("root=/dev/dm-0 rootfstype=erofs ro")
        );
    }

    #[test]
    fn the_prefix_hides_a_disk_that_is_whole_behind_it() {
        let root = content(300);
        let (plain, behind) = (assembled(Form::Kata, &root), assembled(Form::KataDax, &root));
        assert!(behind.image[dax::PREFIX..][..plain.image.len()] == plain.image);
        assert_eq!(behind.image.len() % dax::PREFIX, 0);
        assert_eq!(behind.cmdline, plain.cmdline);
        assert_eq!(behind.partitions[0].start, 3 << 20);
        assert_eq!(behind.image[454..458], ((3u32 << 20) / 512).to_le_bytes());
    }

    #[test]
    fn a_gpt_names_its_partitions_by_the_root_hash() {
        let root = content(2);
        let Assembled { image, cmdline, .. } = assembled(Form::Gpt, &root);
        let hash = verity::hash(&root, Digest::of(b"id")).0.root_hash;
        assert!(image[1024..].windows(4).any(|window| window == {
            let mut first: [u8; 4] = *hash.as_bytes().first_chunk().unwrap();
            first.reverse();
            first
        }));
        let halves: Vec<_> =
            cmdline.split("PARTUUID=").skip(1).map(|rest| rest[..36].replace('-', "")).collect();
        assert_eq!(halves.concat(), hash.to_string());
    }

    #[test]
    fn the_kernel_is_told_what_the_root_is_formatted_as() {
        let root = content(2);
        let hashed = verity::hash(&root, Digest::of(b"id"));
        for (form, hashed) in [(Form::Plain, None), (Form::Gpt, Some(&hashed))] {
            let made = assemble(form, FileSystem::Ext4, Digest::of(b"id"), root.clone(), hashed).unwrap();
            assert!(made.cmdline.contains(" rootfstype=ext4 ro"), "{}", made.cmdline);
        }
    }

    #[test]
    fn a_plain_disk_has_one_partition_and_no_hashes() {
        let Assembled { image, partitions, cmdline } = assembled(Form::Plain, &content(2));
        assert_eq!((partitions.len(), image.len()), (1, 3 << 20));
        assert!(cmdline.starts_with("root=PARTUUID=") && !cmdline.contains("dm-mod"), "{cmdline}");
    }
}
