//! What the products are made of, for those who must know (SPDX 2.3, JSON).
//!
//! Owns the way from the manifest to a list of packages: the kernel's source, the crates that programs link, the Debian
//! packages that files came from. Promises that what is listed is what was linked or packed, by the lock file and by the
//! build tool's own word, and that the same products give the same bytes. Must never ask the network.

mod crates;
mod document;
mod error;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

pub use document::{Document, Package, Relationship};

use crate::install::{self, InstallError, Source};
use crate::manifest::{AgentPart, KernelPart, Manifest, SbomPart};
use crate::place::Place;
use crates::Crate;
pub use error::SbomError;
use store::arch::Arch;
use store::digest::Digest;
use store::layout::Layout;
use store::product::{PROFILE, Product, is_program};

/// What static programs have in them of the build machine's C library: where Debian has the library for a processor, its own or
/// that of a cross-compiler.
fn c_library(arch: Arch) -> BTreeMap<String, String> {
    let path = match arch == Arch::host() {
        true => format!("/usr/lib/{}/libc.a", arch.gnu()),
        false => format!("/usr/{}/lib/libc.a", arch.gnu()),
    };
    Place::machine().packages(std::iter::once(path.as_str()))
}

/// Lists what the products of a directory are made of; `epoch` (seconds since 1970) is when, as far as the list says.
///
/// # Errors
/// When there is no manifest, or cargo cannot be asked.
pub async fn list(layout: &Layout, epoch: u32) -> Result<Document, SbomError> {
    list_with(layout, epoch, &[]).await
}

/// A program of a release that is no product.
#[derive(Debug, Clone)]
pub struct HostProgram {
    /// Its name, which is that of its package.
    pub name: String,
    /// The digest of its file.
    pub sha256: Digest,
    /// The directory of its package or workspace, with the lock file by which it was built.
    pub source: PathBuf,
}

/// As [`list`], with programs that are no products.
///
/// # Errors
/// As [`list`].
pub async fn list_with(layout: &Layout, epoch: u32, programs: &[HostProgram]) -> Result<Document, SbomError> {
    let manifest = Manifest::read(layout);
    if manifest.products.is_empty() {
        return Err(SbomError::NoManifest(layout.out().to_path_buf()));
    }
    let mut linked = BTreeMap::new();
    let part = |name: &str| match name {
        "agent" => manifest.agent.as_ref(),
        other => manifest.agents.get(other),
    };
    for name in manifest.products.keys() {
        if let Some(AgentPart { features, target, .. }) = part(name) {
            let arch = Arch::ALL.into_iter().find(|arch| arch.rust() == target);
            let arch = arch.ok_or_else(|| SbomError::Target(name.clone(), target.clone()))?;
            let crates = crates::linked(layout.root(), "agent", features, target).await?;
            linked.insert(name.clone(), Linked { crates, c_library: c_library(arch) });
        }
    }
    let host = Arch::host();
    for HostProgram { name, source, .. } in programs {
        let crates = crates::linked(source, name, &BTreeSet::new(), host.rust()).await?;
        linked.insert(name.clone(), Linked { crates, c_library: c_library(host) });
    }
    let programs = programs.iter().map(|program| (program.name.clone(), program.sha256)).collect();
    Ok(describe(&manifest, &programs, &linked, epoch))
}

/// What a program links.
struct Linked {
    crates: Vec<Crate>,
    /// The Debian packages of the C library, with their versions.
    c_library: BTreeMap<String, String>,
}

/// Writes the list into the product directory and notes it in the manifest.
///
/// # Errors
/// When either cannot be written.
pub fn install(layout: &Layout, document: &Document) -> Result<(), InstallError> {
    let part = SbomPart { source_date_epoch: document.epoch() };
    let text = document.to_json();
    let files = [(Product::Sbom.file_name(layout.arch()), Source::Bytes(text.as_bytes()))];
    install::install(layout, &files, Some(&part))
}

fn describe(
    manifest: &Manifest,
    programs: &BTreeMap<String, Digest>,
    linked: &BTreeMap<String, Linked>,
    epoch: u32,
) -> Document {
    let mut document = Document::new(epoch);
    // Other programs are for those who develop; no guest has them.
    let listed = Product::Sbom.file_name(Arch::host());
    let in_guests = |name: &String| *name != listed && !is_program(name);
    for (name, product) in manifest.products.iter().filter(|(name, _)| in_guests(name)) {
        document.product(name, product.sha256);
    }
    for (name, sha256) in programs {
        document.product(name, *sha256);
    }
    let kernels = manifest.kernel.iter().map(|part| (PROFILE, part));
    let others = manifest.kernels.iter().map(|(profile, part)| (profile.as_str(), part));
    for (profile, part) in kernels.chain(others) {
        kernel(&mut document, manifest, profile, part);
    }
    for (name, Linked { crates, c_library }) in linked {
        for Crate { name: krate, version, licence, sha256 } in crates {
            let package = document.krate(krate, version, licence.as_deref(), *sha256);
            document.relate_product(name, Relationship::StaticLink, &package);
        }
        for (package, version) in c_library {
            let package = document.debian(package, version);
            document.relate_product(name, Relationship::StaticLink, &package);
        }
    }
    let initrds = manifest.initrd.iter().chain(manifest.flavours.values());
    let initrds = initrds.map(|part| (part.product(), &part.packages, &part.entries));
    let disks = manifest.disks.iter().map(|(name, part)| (name.clone(), &part.packages, &part.entries));
    for (product, packages, entries) in initrds.chain(disks) {
        for (package, version) in packages {
            let package = document.debian(package, version);
            document.relate_product(&product, Relationship::Contains, &package);
        }
        // The agent is known by its bytes: flavours with cargo features have one of their own, and so has each processor.
        for name in manifest.agent.iter().map(|_| "agent").chain(manifest.agents.keys().map(String::as_str)) {
            let agent = manifest.products.get(name).map(|file| file.sha256);
            if agent.is_some() && entries.iter().any(|entry| entry.sha256 == agent) {
                document.relate_product(&product, Relationship::Contains, &Document::product_id(name));
            }
        }
    }
    for (product, part) in &manifest.ukis {
        let kernel = Product::kernel(part.arch.image(), part.arch.profile());
        for name in [kernel, Product::initrd(&part.flavour)].map(|product| product.file_name(part.arch)) {
            if manifest.products.contains_key(&name) {
                document.relate_product(product, Relationship::Contains, &Document::product_id(&name));
            }
        }
        for (package, version) in &part.packages {
            let package = document.debian(package, version);
            document.relate_product(product, Relationship::Contains, &package);
        }
    }
    document
}

fn kernel(document: &mut Document, manifest: &Manifest, profile: &str, part: &KernelPart) {
    let version = part.release.split('-').next().unwrap_or(&part.release);
    let source = document.linux(version, &part.source, part.source_sha256);
    for file in ["vmlinuz", "Image", "vmlinux"] {
        let name = Product::kernel(file, profile).file_name(Arch::X86_64);
        if manifest.products.contains_key(&name) {
            document.relate_product(&name, Relationship::GeneratedFrom, &source);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{EntryPart, InitrdPart, Product as File};

    fn manifest() -> Manifest {
        let product = |name: &str| (name.to_owned(), File { size: 1, sha256: Digest::of(name.as_bytes()) });
        let agent = AgentPart {
            version: "1.0.0".into(),
            compiler: "rustc".into(),
            target: "t".into(),
            profile: "guest".into(),
            features: BTreeSet::new(),
            lock_sha256: Digest::of(b""),
        };
        let init = |agent: &str| EntryPart {
            path: "/init".into(),
            kind: "file".into(),
            mode: "0755".into(),
            size: Some(1),
            sha256: Some(Digest::of(agent.as_bytes())),
            target: None,
            link: None,
            xattrs: BTreeMap::new(),
        };
        let initrd = |flavour: &str, arch, agent: &str, packages: &[(&str, &str)]| InitrdPart {
            flavour: flavour.into(),
            arch,
            recipe_sha256: Digest::of(b""),
            compression: "zstd".into(),
            source_date_epoch: 0,
            unpacked_size: 1,
            packages: packages.iter().map(|(name, version)| ((*name).into(), (*version).into())).collect(),
            entries: vec![init(agent)],
        };
        Manifest {
            agents: [
                ("agent-policy".to_owned(), agent.clone()),
                (
                    "agent-aarch64".to_owned(),
                    AgentPart { target: Arch::Aarch64.rust().into(), ..agent.clone() },
                ),
            ]
            .into(),
            agent: Some(agent),
            initrd: Some(initrd("minimal", Arch::X86_64, "agent", &[])),
            flavours: [
                ("policy".to_owned(), initrd("policy", Arch::X86_64, "agent-policy", &[])),
                ("standard".to_owned(), initrd("standard", Arch::X86_64, "agent", &[("libc6", "2.36")])),
                ("minimal-aarch64".to_owned(), initrd("minimal", Arch::Aarch64, "agent-aarch64", &[])),
            ]
            .into(),
            products: [
                "agent",
                "agent-policy",
                "initrd.img",
                "initrd-policy.img",
                "initrd-standard.img",
                "agent-aarch64",
                "initrd-aarch64.img",
                "jail",
                "jail-aarch64",
                "sbom.spdx.json",
            ]
            .map(product)
            .into(),
            ..Manifest::default()
        }
    }

    fn json(epoch: u32) -> serde_json::Value {
        let krate = |name: &str, licence: &str| Crate {
            name: name.into(),
            version: "1.2.3".into(),
            licence: Some(licence.into()),
            sha256: Some(Digest::of(name.as_bytes())),
        };
        let libc = |package: &str| [(package.to_owned(), "2.36-9".to_owned())].into();
        let linked = |crates, package| Linked { crates, c_library: libc(package) };
        let serde = || krate("serde", "MIT/Apache-2.0");
        let linked = [
            ("agent".to_owned(), linked(vec![serde(), krate("ring_", "ISC")], "libc6-dev")),
            ("agent-aarch64".to_owned(), linked(vec![serde()], "libc6-dev-arm64-cross")),
            ("pith".to_owned(), linked(vec![serde()], "libc6-dev")),
        ]
        .into();
        let programs = [("pith".to_owned(), Digest::of(b"pith"))].into();
        let text = describe(&manifest(), &programs, &linked, epoch).to_json();
        assert_eq!(text, describe(&manifest(), &programs, &linked, epoch).to_json());
        serde_json::from_str(&text).unwrap()
    }

    fn related(json: &serde_json::Value, from: &str, kind: &str) -> Vec<String> {
        let all = json["relationships"].as_array().unwrap().iter();
        all.filter(|r| r["spdxElementId"] == from && r["relationshipType"] == kind)
            .map(|r| r["relatedSpdxElement"].as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn programs_link_crates_and_images_contain_programs_and_packages() {
        let json = json(0);
        assert_eq!(
            related(&json, "SPDXRef-Product-agent", "STATIC_LINK"),
            ["SPDXRef-Crate-serde-1.2.3", "SPDXRef-Crate-ring--1.2.3", "SPDXRef-Debian-libc6-dev-2.36-9"]
        );
        assert_eq!(related(&json, "SPDXRef-Product-initrd.img", "CONTAINS"), ["SPDXRef-Product-agent"]);
        assert_eq!(
            related(&json, "SPDXRef-Product-initrd-policy.img", "CONTAINS"),
            ["SPDXRef-Product-agent-policy"]
        );
        assert_eq!(
            related(&json, "SPDXRef-Product-initrd-standard.img", "CONTAINS"),
            ["SPDXRef-Debian-libc6-2.36", "SPDXRef-Product-agent"]
        );
        assert_eq!(
            related(&json, "SPDXRef-Product-pith", "STATIC_LINK"),
            ["SPDXRef-Crate-serde-1.2.3", "SPDXRef-Debian-libc6-dev-2.36-9"]
        );
        assert_eq!(
            related(&json, "SPDXRef-Product-initrd-aarch64.img", "CONTAINS"),
            ["SPDXRef-Product-agent-aarch64"]
        );
        assert_eq!(
            related(&json, "SPDXRef-Product-agent-aarch64", "STATIC_LINK"),
            ["SPDXRef-Crate-serde-1.2.3", "SPDXRef-Debian-libc6-dev-arm64-cross-2.36-9"]
        );
        assert_eq!(related(&json, "SPDXRef-DOCUMENT", "DESCRIBES").len(), 8);
    }

    #[test]
    fn every_element_is_declared_once_and_every_reference_leads_to_one() {
        let json = json(0);
        let ids: Vec<_> =
            json["packages"].as_array().unwrap().iter().map(|p| p["SPDXID"].as_str().unwrap()).collect();
        let unique: BTreeSet<_> = ids.iter().copied().chain(["SPDXRef-DOCUMENT"]).collect();
        assert_eq!(unique.len(), ids.len() + 1, "{ids:?}");
        for relation in json["relationships"].as_array().unwrap() {
            for key in ["spdxElementId", "relatedSpdxElement"] {
                assert!(unique.contains(relation[key].as_str().unwrap()), "{relation}");
            }
        }
        let plain = |id: &&str| id.chars().all(|c| c.is_ascii_alphanumeric() || "-.".contains(c));
        assert!(unique.iter().all(plain), "{unique:?}");
        let serde = json["packages"].as_array().unwrap().iter().find(|p| p["name"] == "serde").unwrap();
        assert_eq!(serde["licenseDeclared"], "MIT OR Apache-2.0");
        assert_eq!(serde["externalRefs"][0]["referenceLocator"], "pkg:cargo/serde@1.2.3");
    }

    #[test]
    fn the_date_is_the_one_given() {
        assert_eq!(json(0)["creationInfo"]["created"], "1970-01-01T00:00:00Z");
        assert_eq!(json(1_709_210_096)["creationInfo"]["created"], "2024-02-29T12:34:56Z");
        assert_ne!(json(0)["documentNamespace"], json(1)["documentNamespace"]);
    }
}
