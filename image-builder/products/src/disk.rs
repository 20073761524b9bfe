//! Packs a flavour into a disk that a VM has as its root.
//!
//! ```text
//! recipe ─ tree ─ file system ─┬─ hash tree ─┬─ partitions ─ table ─ (DAX prefix) ─ disk
//!                              └─────────────┴─ root hash ─ words for the kernel's command line
//! ```
//! Promises that the same recipe, products and `SOURCE_DATE_EPOCH` give the same bytes: every name on the disk (file
//! system, disk, partitions, salt) follows from what is in it. Must never need root, a loop device or a mount.

use fs_image::{Tree, WriteError, erofs, ext4};
use uuid::Uuid;

use crate::format::label::{self, ALIGNMENT, Extent, LabelError, Role};
use crate::format::{dax, verity};
use crate::install::Packed;
use crate::manifest::{DiskPart, PartitionPart};
use crate::pack::{PackError, Ready, Size, pack as pack_recipe};
use crate::recipe::Choice;
use store::digest::Digest;
use store::layout::Layout;
use store::product::Product;
pub use store::product::{FileSystem, Form, MADE, cmdline_path};

/// What to pack and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The recipe.
    pub flavour: Choice,
    /// The disk's look.
    pub form: Form,
    /// What its root is formatted as.
    pub root_fs: FileSystem,
    /// The time of every entry.
    pub epoch: u32,
    /// Pack twice and compare.
    pub twice: bool,
}

/// A packed disk, not yet written; with it come its words for the kernel's command line, as a file `.cmdline`.
pub type Disk = Packed<DiskPart>;

/// Packs a disk.
///
/// # Errors
/// As they come; [`PackError::Budget`] names the largest files.
pub fn pack(layout: &Layout, options: &Options) -> Result<Disk, PackError> {
    let &Options { ref flavour, form, root_fs, epoch, twice } = options;
    let name = Product::Disk { flavour: flavour.name(), form, root_fs }.file_name(layout.arch());
    pack_recipe(layout, flavour, epoch, twice, |Ready { recipe, tree, entries }| {
        // The file system's name and the salt are of what is in it, so that no two contents share one.
        let listed = serde_json::to_vec(&entries).unwrap_or_default();
        let mut parts = vec![("entries", listed), ("epoch", epoch.to_le_bytes().to_vec())];
        if root_fs != FileSystem::default() {
            parts.push(("file system", root_fs.to_string().into_bytes()));
        }
        let identity = Digest::of_parts(parts.iter().map(|(name, value)| (*name, &value[..])));
        let advice = match root_fs {
            FileSystem::Erofs => "",
            FileSystem::Ext4 => "; EROFS may hold what ext4 cannot (--root-fs erofs)",
        };
        let failed = |source| PackError::Tree { product: name.clone(), advice, source };
        let (root, formatted_by) = file_system(tree, root_fs, identity.uuid(), epoch).map_err(failed)?;
        let size = recipe.disk_budget(layout.arch()).map(|budget| Size {
            bytes: root.len() as u64,
            budget,
            key: "disk",
        });
        let hashed = form.is_verified().then(|| verity::hash(&root, identity));
        let Assembled { image, partitions, cmdline } =
            assemble(form, root_fs, identity, root, hashed.as_ref())?;
        let part = DiskPart {
            flavour: flavour.name(),
            arch: layout.arch(),
            recipe_sha256: recipe.digest(),
            form: form.to_string(),
            file_system: root_fs.to_string(),
            formatted_by,
            source_date_epoch: epoch,
            partitions,
            verity: hashed.as_ref().map(|(parameters, _)| parameters.clone()),
            kernel_verity_params: hashed.as_ref().map(|(parameters, _)| parameters.to_string()),
            cmdline,
            packages: recipe.packages(layout)?,
            entries,
        };
        let beside = Some(("cmdline", format!("{}\n", part.cmdline)));
        Ok((Packed { name: name.clone(), image, beside, part }, size))
    })
}

/// The bytes of the file system, and the program that formatted it, where that is not this one.
fn file_system(
    tree: &Tree,
    root_fs: FileSystem,
    uuid: [u8; 16],
    epoch: u32,
) -> Result<(Vec<u8>, Option<String>), WriteError> {
    let file = tempfile::NamedTempFile::new()?;
    let formatted_by = match root_fs {
        FileSystem::Erofs => {
            erofs::write(tree, uuid, file.as_file())?;
            None
        }
        FileSystem::Ext4 => {
            ext4::write(tree, uuid, epoch, file.path())?;
            Some(ext4::version()?)
        }
    };
    Ok((std::fs::read(file.path())?, formatted_by))
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
