//! A guest for the shims of Kata Containers, beside the one they came with.
//!
//! ```text
//! PREFIX/                     vmlinuz or vmlinux, initrd.img or a disk, manifest.json
//! CONFIG/configuration.toml   a copy of the host's own
//! CONFIG/config.d/50-pith.toml   what differs: kernel, initrd or image, hashes
//! CONFIG/containerd.toml      a runtime handler, to be put into containerd's configuration
//! CONFIG/runtimeclass.yaml    for Kubernetes
//! ```
//! Both shims read `config.d` beside the configuration they are given, in alphabetical order, and let it override (Kata
//! Containers, `src/runtime/README.md`). The host's own file and runtime stay as they are.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::{DeployError, Plan, Products, RootKind};
use crate::disk::{FileSystem, Form};

/// Where distributions and Kata's own releases put their configuration, the first that is there counts.
const BASES: [&str; 3] = [
    "/etc/kata-containers/configuration.toml",
    "/opt/kata/share/defaults/kata-containers/configuration.toml",
    "/usr/share/defaults/kata-containers/configuration.toml",
];

/// Which VMM the shim starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Hypervisor {
    /// QEMU, by both shims.
    #[default]
    Qemu,
    /// Cloud Hypervisor, by the Go shim.
    Clh,
    /// Cloud Hypervisor, by runtime-rs.
    CloudHypervisor,
    /// Dragonball, by runtime-rs.
    Dragonball,
    /// Firecracker, by both shims.
    Firecracker,
}

impl Hypervisor {
    /// The table of the configuration that is its.
    fn table(self) -> &'static str {
        match self {
            Self::Qemu => "qemu",
            Self::Clh => "clh",
            Self::CloudHypervisor => "cloud-hypervisor",
            Self::Dragonball => "dragonball",
            Self::Firecracker => "firecracker",
        }
    }

    /// Only QEMU loads a bzImage; all load the ELF file, but QEMU's users are used to the smaller one.
    fn kernel(self) -> &'static str {
        if self == Self::Qemu { "vmlinuz" } else { "vmlinux" }
    }
}

/// What to install and where.
#[derive(Debug, Clone)]
pub struct Options {
    /// The VMM.
    pub hypervisor: Hypervisor,
    /// The recipe's name.
    pub flavour: String,
    /// What the root is in.
    pub root: RootKind,
    /// What a disk's root is formatted as.
    pub root_fs: FileSystem,
    /// Words for the kernel's command line.
    pub kernel_params: Vec<String>,
    /// Where the products go.
    pub prefix: PathBuf,
    /// Where the configuration goes.
    pub config: PathBuf,
    /// The host's own configuration.
    pub base: Option<PathBuf>,
    /// A directory that stands for `/` while files are written, for packages.
    pub staging: Option<PathBuf>,
    /// The name of the runtime handler and of the RuntimeClass.
    pub name: String,
}

/// Plans the files. With `base`, the configuration is a copy of that one.
///
/// # Errors
/// When a product or the host's own configuration is missing.
pub fn plan(products: &Products<'_>, options: &Options) -> Result<Plan, DeployError> {
    let Options { hypervisor, flavour, prefix, config, name, .. } = options;
    if *hypervisor == Hypervisor::Firecracker && options.root == RootKind::Initrd {
        return Err(DeployError::Impossible(
            "Kata's shims boot Firecracker from an image only; add --root-as disk",
        ));
    }
    options.root.admits(options.root_fs)?;
    let staged = |path: &Path| match &options.staging {
        Some(staging) => staging.join(path.strip_prefix("/").unwrap_or(path)),
        None => path.to_path_buf(),
    };
    let mut plan = Plan::default();
    let kernel = products.kernel(hypervisor.kernel(), crate::kernel::SHIPPED)?;
    let mut table = Table::new();
    let mut take = |plan: &mut Plan, key: &str, product: PathBuf| {
        let path = prefix.join(product.file_name().unwrap_or_default());
        table.insert(key.into(), path.display().to_string().into());
        plan.copy(product, staged(&path));
    };
    take(&mut plan, "kernel", kernel);
    match options.root {
        RootKind::Initrd => {
            take(&mut plan, "initrd", products.initrd(flavour)?);
            table.insert("image".into(), "".into());
            table.insert("kernel_verity_params".into(), "".into());
        }
        RootKind::Disk => {
            let (disk, part) = products.disk(flavour, Form::Kata, options.root_fs)?;
            take(&mut plan, "image", disk);
            table.insert("initrd".into(), "".into());
            table.insert("rootfs_type".into(), part.file_system.clone().into());
            table.insert("disable_image_nvdimm".into(), true.into());
            let params = part.kernel_verity_params.clone().unwrap_or_default();
            table.insert("kernel_verity_params".into(), params.into());
        }
    }
    if !options.kernel_params.is_empty() {
        table.insert("kernel_params".into(), options.kernel_params.join(" ").into());
    }
    plan.copy(products.layout.manifest(), staged(&prefix.join("manifest.json")));
    let base = options.base.clone().or_else(|| BASES.iter().map(PathBuf::from).find(|path| path.is_file()));
    let base = base.ok_or_else(|| DeployError::NoBase { places: BASES.map(str::to_owned).to_vec() })?;
    let main = std::fs::read_to_string(&base).map_err(DeployError::io("read", &base))?;
    let main_path = config.join("configuration.toml");
    plan.text(staged(&main_path), format!("# The host's own, from {}.\n{main}", base.display()));
    let fragment = Table::from_iter([(
        "hypervisor".to_owned(),
        Value::Table(Table::from_iter([(hypervisor.table().to_owned(), Value::Table(table))])),
    )]);
    plan.text(staged(&config.join("config.d/50-pith.toml")), fragment.to_string());
    plan.text(staged(&config.join("containerd.toml")), containerd(name, &main_path));
    plan.text(staged(&config.join("runtimeclass.yaml")), runtime_class(name));
    Ok(plan)
}

/// A runtime handler, in the second version of containerd's configuration.
fn containerd(name: &str, configuration: &Path) -> String {
    format!(
        "# For /etc/containerd/config.toml, version 2. In version 3 the plugin is called \"io.containerd.cri.v1.runtime\".\n\
         [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.{name}]\n\
         runtime_type = \"io.containerd.kata.v2\"\n\
         privileged_without_host_devices = true\n\
         pod_annotations = [\"io.katacontainers.*\"]\n\n\
         [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.{name}.options]\n\
         ConfigPath = \"{}\"\n",
        configuration.display()
    )
}

fn runtime_class(name: &str) -> String {
    format!(
        "apiVersion: node.k8s.io/v1\nkind: RuntimeClass\nmetadata:\n  name: {name}\nhandler: {name}\n\
         # What a pod costs beside its containers: the VMM, and the guest's kernel and agent.\n\
         overhead:\n  podFixed:\n    memory: 130Mi\n    cpu: 100m\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::write_atomically;
    use crate::deploy::Content;
    use crate::digest::Digest;
    use crate::format::verity;
    use crate::layout::Layout;
    use crate::manifest::{DiskPart, Manifest};

    fn layout(dir: &Path) -> Layout {
        let layout = Layout::new(dir.into(), None);
        let names =
            ["vmlinuz", "vmlinux", "initrd.img", "disk-minimal-kata.img", "disk-minimal-kata-ext4.img"];
        for name in names {
            write_atomically(&layout.out().join(name), name.as_bytes()).unwrap();
        }
        let parameters = verity::hash(&[0; 2 * verity::BLOCK], Digest::of(b"")).0;
        let part = DiskPart {
            flavour: "minimal".into(),
            recipe_sha256: Digest::of(b""),
            form: "kata".into(),
            file_system: "erofs".into(),
            formatted_by: None,
            source_date_epoch: 0,
            partitions: Vec::new(),
            kernel_verity_params: Some(parameters.to_string()),
            verity: Some(parameters),
            cmdline: String::new(),
            packages: std::collections::BTreeMap::new(),
            entries: Vec::new(),
        };
        Manifest::update(&layout, |manifest| {
            let ext4 = DiskPart { file_system: "ext4".into(), ..part.clone() };
            manifest.disks.insert("disk-minimal-kata-ext4.img".into(), ext4);
            manifest.disks.insert("disk-minimal-kata.img".into(), part);
            names.iter().try_for_each(|name| manifest.add_product(&layout, name))
        })
        .unwrap();
        layout
    }

    fn options(dir: &Path, hypervisor: Hypervisor, root: RootKind) -> Options {
        let base = dir.join("stock.toml");
        std::fs::write(&base, "[hypervisor.qemu]\nimage = \"stock.img\"\n").unwrap();
        Options {
            hypervisor,
            flavour: "minimal".into(),
            root,
            root_fs: FileSystem::Erofs,
            kernel_params: vec!["agent.log=debug".into()],
            prefix: "/opt/pith".into(),
            config: "/etc/kata-containers/pith".into(),
            base: Some(base),
            staging: Some(dir.join("stage")),
            name: "pith".into(),
        }
    }

    /// The table that a plan lays over the host's own configuration.
    fn fragment(plan: &Plan, table: &str) -> Table {
        let file = plan.files.iter().find(|file| file.path.ends_with("config.d/50-pith.toml")).unwrap();
        let Content::Text(text) = &file.content else { panic!("{file:?}") };
        let value: Table = text.parse().unwrap();
        value["hypervisor"][table].as_table().unwrap().clone()
    }

    #[test]
    fn an_initrd_takes_the_place_of_the_hosts_image() {
        let dir = tempfile::tempdir().unwrap();
        let layout = layout(dir.path());
        let plan =
            plan(&Products::of(&layout), &options(dir.path(), Hypervisor::Qemu, RootKind::Initrd)).unwrap();
        let table = fragment(&plan, "qemu");
        let text = |key: &str| table[key].as_str().unwrap();
        assert_eq!(
            (text("kernel"), text("initrd"), text("image")),
            ("/opt/pith/vmlinuz", "/opt/pith/initrd.img", "")
        );
        assert_eq!((text("kernel_params"), text("kernel_verity_params")), ("agent.log=debug", ""));
        plan.install().unwrap();
        let stage = dir.path().join("stage");
        assert_eq!(std::fs::read(stage.join("opt/pith/vmlinuz")).unwrap(), b"vmlinuz");
        let config = stage.join("etc/kata-containers/pith");
        assert!(std::fs::read_to_string(config.join("configuration.toml")).unwrap().contains("stock.img"));
        let handler = std::fs::read_to_string(config.join("containerd.toml")).unwrap();
        assert!(
            handler.parse::<Table>().is_ok()
                && handler.contains("/etc/kata-containers/pith/configuration.toml")
        );
        let class: serde_json::Value =
            serde_saphyr::from_str(&std::fs::read_to_string(config.join("runtimeclass.yaml")).unwrap())
                .unwrap();
        assert_eq!((&class["handler"], &class["kind"]), (&"pith".into(), &"RuntimeClass".into()));
        plan.remove().unwrap();
        assert!(!stage.join("opt/pith").exists() && !config.exists());
    }

    #[test]
    fn a_disk_comes_with_its_hashes() {
        let dir = tempfile::tempdir().unwrap();
        let layout = layout(dir.path());
        let options = options(dir.path(), Hypervisor::Firecracker, RootKind::Disk);
        let table = fragment(&plan(&Products::of(&layout), &options).unwrap(), "firecracker");
        assert_eq!(table["kernel"].as_str(), Some("/opt/pith/vmlinux"));
        assert_eq!(table["image"].as_str(), Some("/opt/pith/disk-minimal-kata.img"));
        assert!(table["kernel_verity_params"].as_str().unwrap().starts_with("root_hash="));
        assert_eq!((table["rootfs_type"].as_str(), table["initrd"].as_str()), (Some("erofs"), Some("")));
        let ext4 = Options { root_fs: FileSystem::Ext4, ..options };
        let table = fragment(&plan(&Products::of(&layout), &ext4).unwrap(), "firecracker");
        assert_eq!(table["image"].as_str(), Some("/opt/pith/disk-minimal-kata-ext4.img"));
        assert_eq!(table["rootfs_type"].as_str(), Some("ext4"));
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let layout = layout(dir.path());
        let refused = |options: &Options| plan(&Products::of(&layout), options).unwrap_err().to_string();
        let options = options(dir.path(), Hypervisor::Firecracker, RootKind::Initrd);
        assert!(refused(&options).contains("--root-as disk"));
        let qemu = Options { hypervisor: Hypervisor::Qemu, ..options };
        assert!(refused(&Options { root_fs: FileSystem::Ext4, ..qemu.clone() }).contains("--root-as disk"));
        let other = Options { flavour: "debug".into(), ..qemu.clone() };
        assert!(refused(&other).ends_with("image-builder initrd --flavour debug"), "{}", refused(&other));
        std::fs::write(layout.vmlinuz(), "changed").unwrap();
        assert!(refused(&qemu).contains("build it anew"));
    }
}
