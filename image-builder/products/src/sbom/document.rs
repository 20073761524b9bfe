//! The document: packages and how they relate, as SPDX 2.3 writes them in JSON.
//!
//! There is no kept crate that writes it; the part that is used here is a dozen fields.

use serde::Serialize;

use store::digest::Digest;

const NOTHING: &str = "NOASSERTION";
const ROOT: &str = "SPDXRef-DOCUMENT";

/// A list of what products are made of.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Document {
    #[serde(skip)]
    epoch: u32,
    spdx_version: &'static str,
    data_license: &'static str,
    #[serde(rename = "SPDXID")]
    id: &'static str,
    name: &'static str,
    document_namespace: String,
    creation_info: Creation,
    packages: Vec<Package>,
    relationships: Vec<Relation>,
}

#[derive(Debug, Clone, Serialize)]
struct Creation {
    created: String,
    creators: [String; 1],
}

/// Something with a name and a version.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Package {
    #[serde(rename = "SPDXID")]
    id: String,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version_info: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    package_file_name: Option<String>,
    download_location: &'static str,
    files_analyzed: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    checksums: Vec<Checksum>,
    license_concluded: &'static str,
    license_declared: String,
    copyright_text: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    external_refs: Vec<External>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Checksum {
    algorithm: &'static str,
    checksum_value: Digest,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct External {
    reference_category: &'static str,
    reference_type: &'static str,
    reference_locator: String,
}

/// How one relates to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Relationship {
    /// The document is about it.
    Describes,
    /// It is in there.
    Contains,
    /// It was compiled from that.
    GeneratedFrom,
    /// That is linked into it.
    StaticLink,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Relation {
    spdx_element_id: String,
    relationship_type: Relationship,
    related_spdx_element: String,
}

impl Document {
    /// An empty list.
    pub(super) fn new(epoch: u32) -> Self {
        let creators = [format!("Tool: image-builder-{}", env!("CARGO_PKG_VERSION"))];
        Self {
            epoch,
            spdx_version: "SPDX-2.3",
            data_license: "CC0-1.0",
            id: ROOT,
            name: "pith-guest",
            document_namespace: String::new(),
            creation_info: Creation { created: timestamp(epoch), creators },
            packages: Vec::new(),
            relationships: Vec::new(),
        }
    }

    /// The document as text. Its name follows from what it says.
    pub fn to_json(&self) -> String {
        let text = |document: &Self| serde_json::to_string_pretty(document).unwrap_or_default();
        let mut named = Self { document_namespace: String::new(), ..self.clone() };
        named.document_namespace = format!("urn:pith:sbom:sha256:{}", Digest::of(text(&named).as_bytes()));
        text(&named) + "\n"
    }

    /// When it was made, as far as it says, in seconds since 1970.
    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// How many packages there are, products included.
    pub fn len(&self) -> usize {
        self.packages.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.packages.is_empty()
    }

    pub(super) fn product_id(name: &str) -> String {
        identifier("Product", name, "")
    }

    pub(super) fn product(&mut self, name: &str, sha256: Digest) {
        let id = Self::product_id(name);
        let package =
            Package { package_file_name: Some(name.to_owned()), ..Package::new(&id, name, Some(sha256)) };
        self.packages.push(package);
        self.relate(ROOT.to_owned(), Relationship::Describes, id);
    }

    pub(super) fn krate(
        &mut self,
        name: &str,
        version: &str,
        licence: Option<&str>,
        sha256: Option<Digest>,
    ) -> String {
        let id = identifier("Crate", name, version);
        // Older manifests write a slash where SPDX has OR.
        let licence = licence.map_or(NOTHING.to_owned(), |text| text.replace('/', " OR "));
        self.package(Package {
            version_info: Some(version.to_owned()),
            license_declared: licence,
            external_refs: vec![External::purl(format!("pkg:cargo/{name}@{version}"))],
            ..Package::new(&id, name, sha256)
        })
    }

    pub(super) fn debian(&mut self, name: &str, version: &str) -> String {
        let id = identifier("Debian", name, version);
        self.package(Package {
            version_info: Some(version.to_owned()),
            external_refs: vec![External::purl(format!(
                "pkg:deb/debian/{name}@{}",
                version.replace('+', "%2B").replace(':', "%3A")
            ))],
            ..Package::new(&id, name, None)
        })
    }

    pub(super) fn linux(&mut self, version: &str, file: &str, sha256: Digest) -> String {
        let id = identifier("Source", "linux", version);
        self.package(Package {
            version_info: Some(version.to_owned()),
            package_file_name: Some(file.to_owned()),
            license_declared: "GPL-2.0-only WITH Linux-syscall-note".to_owned(),
            external_refs: vec![External::purl(format!("pkg:generic/linux@{version}"))],
            ..Package::new(&id, "linux", Some(sha256))
        })
    }

    pub(super) fn relate_product(&mut self, product: &str, relationship: Relationship, to: &str) {
        self.relate(Self::product_id(product), relationship, to.to_owned());
    }

    fn package(&mut self, package: Package) -> String {
        let id = package.id.clone();
        if !self.packages.iter().any(|known| known.id == id) {
            self.packages.push(package);
        }
        id
    }

    fn relate(&mut self, from: String, relationship_type: Relationship, to: String) {
        let relation = Relation { spdx_element_id: from, relationship_type, related_spdx_element: to };
        if !self.relationships.contains(&relation) {
            self.relationships.push(relation);
        }
    }
}

impl Package {
    fn new(id: &str, name: &str, sha256: Option<Digest>) -> Self {
        let checksum = |checksum_value| Checksum { algorithm: "SHA256", checksum_value };
        Self {
            id: id.to_owned(),
            name: name.to_owned(),
            version_info: None,
            package_file_name: None,
            download_location: NOTHING,
            files_analyzed: false,
            checksums: sha256.into_iter().map(checksum).collect(),
            license_concluded: NOTHING,
            license_declared: NOTHING.to_owned(),
            copyright_text: NOTHING,
            external_refs: Vec::new(),
        }
    }
}

impl External {
    fn purl(locator: String) -> Self {
        Self { reference_category: "PACKAGE-MANAGER", reference_type: "purl", reference_locator: locator }
    }
}

/// An identifier: letters, digits, dots and dashes.
fn identifier(kind: &str, name: &str, version: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
    let version = if version.is_empty() { String::new() } else { format!("-{version}") };
    format!("SPDXRef-{kind}-{name}{version}").chars().map(plain).collect()
}

/// Seconds since 1970 as SPDX writes a time (ISO 8601, UTC).
fn timestamp(epoch: u32) -> String {
    let (days, second) = (epoch / 86_400, epoch % 86_400);
    let (mut year, mut left) = (1970, days);
    let length = |year: u32| {
        if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) {
            366
        } else {
            365
        }
    };
    while left >= length(year) {
        left -= length(year);
        year += 1;
    }
    let february = length(year) - 337;
    let mut month = 1;
    for days in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if left < days {
            break;
        }
        left -= days;
        month += 1;
    }
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!("{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{:02}Z", left + 1, second % 60)
}
