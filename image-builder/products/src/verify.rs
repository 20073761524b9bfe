//! Builds again what lies in a directory, and compares.
//!
//! Owns the question whether products are what the source tree makes of its inputs. Promises that every product is built as
//! its manifest says it was, in a directory of its own that is gone afterwards, and that a product nobody can build again is
//! named and not passed over. Must never write into the directory it looks at.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use clap::ValueEnum as _;
use serde::Serialize;

use crate::agent::{self, AgentError};
use crate::disk;
use crate::format::compress::Compression;
use crate::initrd;
use crate::install::InstallError;
use crate::kernel::profile::known_profiles;
use crate::kernel::{self, KernelError};
use crate::manifest::{EntryPart, InitrdPart, Manifest};
use crate::pack::PackError;
use crate::recipe;
use crate::sbom::{self, SbomError};
use crate::uki::{self, UkiError};
use store::arch::Arch;
use store::cache::Cache;
use store::digest::Digest;
use store::layout::Layout;
use store::product::{FileSystem, Form, PROGRAMS, Product};
use store::progress::Progress;

/// Why products could not be compared.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// There is nothing to compare.
    #[error("{0} has no manifest.json that names products; `image-builder build` makes one")]
    NoManifest(PathBuf),
    /// The manifest says something that this version does not know.
    #[error(
        "{manifest}: {product} has the {field} {value:?}, which this version of image-builder does not know"
    )]
    Unknown {
        /// The manifest.
        manifest: PathBuf,
        /// The product.
        product: String,
        /// What is unknown.
        field: &'static str,
        /// Its value.
        value: String,
    },
    /// A product was made of what is not there any more.
    #[error(
        "{product} was made by {was}, but here is {is}; only the same compiler gives the same bytes, so install it \
         and try again"
    )]
    Compiler {
        /// The product.
        product: &'static str,
        /// What made it.
        was: String,
        /// What is here.
        is: String,
    },
    /// A file cannot be read, or no directory made.
    #[error("cannot {operation} {path}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The kernel could not be built again.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// A program could not be built again.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// An initrd or a disk could not be packed again.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// A unified kernel image could not be put together again.
    #[error(transparent)]
    Uki(#[from] UkiError),
    /// The list of ingredients could not be made again.
    #[error(transparent)]
    Sbom(#[from] SbomError),
    /// What was made again could not be put beside the rest.
    #[error(transparent)]
    Install(#[from] InstallError),
}

/// What became of one product.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// Built again, it has the same bytes.
    Same,
    /// Built again, it has others.
    Different {
        /// The first byte that differs, counted from 0; where the shorter one ends, if one is the beginning of the other.
        offset: u64,
        /// Bytes of the product.
        size: u64,
        /// Bytes of what was built.
        built: u64,
        /// The first entry of the root file system that differs, where the manifests tell.
        #[serde(skip_serializing_if = "Option::is_none")]
        entry: Option<String>,
    },
    /// It is not what its own manifest says, and was changed after it was made.
    Changed {
        /// What the manifest says.
        expected: Digest,
        /// What it is.
        found: Digest,
    },
    /// The manifest does not say how it is built.
    Unexplained,
}

/// What became of all products, by name.
pub type Report = Vec<(String, Outcome)>;

/// What to do beside comparing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Compile kernels again, even those in the cache.
    pub rebuild: bool,
}

/// Builds the products of `directory` again from the source tree of `layout`, and compares.
///
/// # Errors
/// When something cannot be built; a product that differs is no error but an [`Outcome`].
pub async fn verify(
    layout: &Layout,
    directory: &Path,
    options: Options,
    cache: &Cache,
    progress: Progress,
) -> Result<Report, VerifyError> {
    let given = layout.at(directory.to_path_buf());
    let manifest = Manifest::read(&given);
    if manifest.products.is_empty() {
        return Err(VerifyError::NoManifest(directory.to_path_buf()));
    }
    let scratch = tempfile::tempdir().map_err(|source| VerifyError::Io {
        operation: "make a directory in",
        path: std::env::temp_dir(),
        source,
    })?;
    let fresh = layout.at(scratch.path().join("out"));
    rebuild(&manifest, &given, &fresh, options, cache, progress).await?;
    let built = Manifest::read(&fresh);
    let outcome = |name: &String| -> Result<Outcome, VerifyError> {
        let (product, again) = (given.out().join(name), fresh.out().join(name));
        let (found, _) = Digest::of_file(&product).map_err(read(&product))?;
        let expected = manifest.products[name].sha256;
        if found != expected {
            return Ok(Outcome::Changed { expected, found });
        }
        if !again.is_file() {
            return Ok(Outcome::Unexplained);
        }
        Ok(match first_difference(&product, &again)? {
            None => Outcome::Same,
            Some((offset, size, built_size)) => {
                let entry = entries(&manifest, name)
                    .zip(entries(&built, name))
                    .and_then(|(old, new)| different_entry(old, new));
                Outcome::Different { offset, size, built: built_size, entry }
            }
        })
    };
    manifest.products.keys().map(|name| Ok((name.clone(), outcome(name)?))).collect()
}

/// Builds into `fresh` all that the manifest explains.
async fn rebuild(
    manifest: &Manifest,
    given: &Layout,
    fresh: &Layout,
    options: Options,
    cache: &Cache,
    progress: Progress,
) -> Result<(), VerifyError> {
    let unknown = |product: &str, field, value: &str| VerifyError::Unknown {
        manifest: given.manifest(),
        product: product.to_owned(),
        field,
        value: value.to_owned(),
    };
    // What was made of files outside the source tree has the names of these; the manifest does not say where they are.
    let (profiles, flavours) = (known_profiles(&fresh.kernel_config()), recipe::known(fresh));
    for part in manifest.kernel.iter().chain(manifest.kernels.values()) {
        let profile = part.profile.clone();
        if !profiles.contains(&profile) {
            continue;
        }
        let options = kernel::Options { profile, rebuild: options.rebuild, ..kernel::Options::default() };
        let built = kernel::build(&fresh.kernel_config(), &options, cache, progress).await?;
        if built.record.toolchain != part.toolchain {
            let (was, is) = (part.toolchain.to_string(), built.record.toolchain.to_string());
            return Err(VerifyError::Compiler { product: "the kernel", was, is });
        }
        built.install(fresh)?;
    }
    for part in manifest.agent.iter().chain(manifest.agents.values()) {
        let arch = part.arch().ok_or_else(|| unknown("the agent", "target", &part.target))?;
        let built = agent::build(&fresh.for_arch(arch), &part.features, progress).await?;
        if built.compiler != part.compiler {
            let (was, is) = (part.compiler.clone(), built.compiler);
            return Err(VerifyError::Compiler { product: "the agent", was, is });
        }
    }
    for arch in Arch::ALL {
        let fresh = fresh.for_arch(arch);
        for name in PROGRAMS {
            if manifest.products.contains_key(&Product::Program(name.to_owned()).file_name(arch)) {
                agent::build_program(&fresh, name, progress).await?;
            }
        }
    }
    for part in manifest.initrd.iter().chain(manifest.flavours.values()) {
        let InitrdPart { flavour, arch, compression, source_date_epoch: epoch, .. } = part;
        if !flavours.contains(flavour) {
            continue;
        }
        let known = Compression::from_str(compression, false);
        let compression = known.map_err(|_| unknown(flavour, "compression", compression))?;
        let options = initrd::Options {
            flavour: flavour.as_str().into(),
            compression,
            epoch: *epoch,
            twice: false,
            cache: None,
        };
        let fresh = fresh.for_arch(*arch);
        initrd::pack(&fresh, &options)?.install(&fresh)?;
    }
    for (name, part) in manifest.disks.iter().filter(|(_, part)| flavours.contains(&part.flavour)) {
        let form = Form::from_str(&part.form, false).map_err(|_| unknown(name, "form", &part.form))?;
        let root_fs = FileSystem::from_str(&part.file_system, false)
            .map_err(|_| unknown(name, "file system", &part.file_system))?;
        let (flavour, epoch) = (part.flavour.as_str().into(), part.source_date_epoch);
        let options = disk::Options { flavour, form, root_fs, epoch, twice: false };
        let fresh = fresh.for_arch(part.arch);
        disk::pack(&fresh, &options)?.install(&fresh)?;
    }
    for part in manifest.ukis.values().filter(|part| flavours.contains(&part.flavour)) {
        let options =
            uki::Options { flavour: part.flavour.clone(), cmdline: part.cmdline.clone(), stub: None };
        let fresh = fresh.for_arch(part.arch);
        uki::pack(&fresh, &options)?.install(&fresh)?;
    }
    if let Some(part) = &manifest.sbom {
        let document = sbom::list(fresh, part.source_date_epoch).await?;
        sbom::install(fresh, &document)?;
    }
    Ok(())
}

/// What the manifest lists of the root file system in a product.
fn entries<'a>(manifest: &'a Manifest, product: &str) -> Option<&'a [EntryPart]> {
    let mut initrds = manifest.initrd.iter().chain(manifest.flavours.values());
    let initrd = initrds.find(|part| part.product() == product);
    let disk = || manifest.disks.get(product).map(|part| part.entries.as_slice());
    initrd.map(|part| part.entries.as_slice()).or_else(disk)
}

fn different_entry(old: &[EntryPart], new: &[EntryPart]) -> Option<String> {
    let at = old.iter().zip(new).position(|(old, new)| old != new).unwrap_or(old.len().min(new.len()));
    old.get(at).or_else(|| new.get(at)).map(|entry| entry.path.clone())
}

/// Where two files begin to differ, and the sizes of both; nothing when they do not.
fn first_difference(one: &Path, two: &Path) -> Result<Option<(u64, u64, u64)>, VerifyError> {
    let open = |path: &Path| -> Result<_, VerifyError> {
        let file = File::open(path).map_err(read(path))?;
        let size = file.metadata().map_err(read(path))?.len();
        Ok((BufReader::with_capacity(1 << 16, file), size))
    };
    let ((mut left, left_size), (mut right, right_size)) = (open(one)?, open(two)?);
    let mut offset = 0;
    let (mut ours, mut theirs) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let piece = fill(&mut left, &mut ours).map_err(read(one))?;
        let other = fill(&mut right, &mut theirs).map_err(read(two))?;
        let most = piece.min(other);
        // Whole pieces first: byte by byte, a build without optimisation takes seconds for a disk.
        if ours[..most] != theirs[..most]
            && let Some(at) = ours[..most].iter().zip(&theirs[..most]).position(|(a, b)| a != b)
        {
            return Ok(Some((offset + at as u64, left_size, right_size)));
        }
        if piece != other {
            return Ok(Some((offset + most as u64, left_size, right_size)));
        }
        if piece == 0 {
            return Ok(None);
        }
        offset += piece as u64;
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

fn read(path: &Path) -> impl FnOnce(io::Error) -> VerifyError {
    let path = path.to_path_buf();
    move |source| VerifyError::Io { operation: "read", path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_that_differs_is_found_wherever_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        let whole: Vec<u8> = (0..200_000_u32).map(|n| (n / 3) as u8).collect();
        std::fs::write(&one, &whole).unwrap();
        for at in [0, 65_535, 65_536, 199_999] {
            let mut other = whole.clone();
            other[at] ^= 1;
            std::fs::write(&two, other).unwrap();
            let found = first_difference(&one, &two).unwrap();
            assert_eq!(found, Some((at as u64, 200_000, 200_000)));
        }
        std::fs::write(&two, &whole[..70_000]).unwrap();
        assert_eq!(first_difference(&one, &two).unwrap(), Some((70_000, 200_000, 70_000)));
        std::fs::write(&two, &whole).unwrap();
        assert_eq!(first_difference(&one, &two).unwrap(), None);
    }

    #[test]
    fn the_first_entry_that_differs_is_named() {
        let entry = |path: &str, mode: &str| EntryPart {
            path: path.into(),
            kind: "file".into(),
            mode: mode.into(),
            size: None,
            sha256: None,
            target: None,
            link: None,
            xattrs: Default::default(),
        };
        let old = [entry("/a", "1"), entry("/b", "1")];
        assert_eq!(different_entry(&old, &[entry("/a", "1"), entry("/b", "2")]), Some("/b".into()));
        assert_eq!(different_entry(&old, &old[..1]), Some("/b".into()));
        assert_eq!(different_entry(&old, &old), None);
    }

    #[tokio::test]
    async fn a_directory_without_products_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().into(), None);
        let cache = Cache::new(dir.path().join("cache"));
        let result = verify(&layout, dir.path(), Options::default(), &cache, Progress::Silent).await;
        assert!(matches!(result, Err(VerifyError::NoManifest(path)) if path == dir.path()));
    }
}
