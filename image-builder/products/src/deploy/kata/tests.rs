//! Hosts as releases, kata-deploy and distributions leave them, reduced to the keys that count.

use std::path::{Path, PathBuf};

use toml::Table;

use super::*;
use crate::deploy::{Content, How, install, remove};
use crate::format::verity;
use crate::manifest::{DiskPart, Manifest};
use store::cache::write_atomically;
use store::digest::Digest;
use store::layout::Layout;

const GO_ON: How<'static> = How { force: false, dry_run: false, stop: &|| false };
const OPT: &str = "/opt/kata/share/defaults/kata-containers";
const ETC: &str = "/etc/kata-containers";

/// A host's files and a product directory.
struct FakeHost {
    dir: tempfile::TempDir,
    layout: Layout,
}

impl FakeHost {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().join("tree"), None);
        let names =
            ["vmlinuz", "vmlinux", "initrd.img", "disk-minimal-kata.img", "disk-minimal-kata-ext4.img"];
        for name in names {
            write_atomically(&layout.out().join(name), name.as_bytes()).unwrap();
        }
        let parameters = verity::hash(&[0; 2 * verity::BLOCK], Digest::of(b"")).0;
        let part = DiskPart {
            flavour: "minimal".into(),
            arch: layout.arch(),
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
        std::fs::create_dir(dir.path().join("host")).unwrap();
        Self { dir, layout }
    }

    /// With these files.
    fn with(files: &[(&str, &str)]) -> Self {
        let place = Self::new();
        for (path, text) in files {
            place.file(path, text);
        }
        place
    }

    fn host(&self) -> Root {
        Root::new(Some(self.dir.path().join("host")))
    }

    fn file(&self, path: &str, text: &str) -> PathBuf {
        let at = self.host().at(Path::new(path));
        write_atomically(&at, text.as_bytes()).unwrap();
        at
    }

    fn options(&self, hypervisor: Hypervisor, root: RootKind) -> Options {
        Options {
            hypervisor,
            flavour: "minimal".into(),
            root,
            root_fs: FileSystem::Erofs,
            kernel_params: Vec::new(),
            guest_seccomp: false,
            prefix: "/opt/pith".into(),
            config: "/etc/kata-containers/pith".into(),
            wanted: Wanted { host: self.host(), ..Wanted::default() },
            staging: Some(self.dir.path().join("stage")),
            name: "pith".into(),
        }
    }

    fn plan(&self, options: &Options) -> Result<Planned, DeployError> {
        plan(&Products::of(&self.layout), options)
    }

    fn initrd(&self, hypervisor: Hypervisor) -> Planned {
        self.plan(&self.options(hypervisor, RootKind::Initrd)).unwrap()
    }

    fn refused(&self, options: &Options) -> String {
        self.plan(options).unwrap_err().to_string()
    }
}

/// The text of a planned file.
fn text<'a>(planned: &'a Planned, name: &str) -> &'a str {
    let path = Path::new("/etc/kata-containers/pith").join(name);
    let file = planned.plan.files.iter().find(|file| file.path == path);
    match &file.unwrap_or_else(|| panic!("no {name}")).content {
        Content::Text(text) => text,
        Content::Copy { .. } => panic!("{name} is a copy"),
    }
}

/// The table that a plan lays over the host's own configuration.
fn fragment(planned: &Planned, table: &str) -> Table {
    let value: Table = text(planned, "config.d/50-pith.toml").parse().unwrap();
    value["hypervisor"][table].as_table().unwrap().clone()
}

fn go(table: &str) -> String {
    format!(
        "[hypervisor.{table}]\npath = \"/opt/kata/bin/vmm\"\nimage = \"stock.img\"\nkernel_params = \"a=1\"\n[runtime]\n\
         internetworking_model = \"tcfilter\"\n"
    )
}

fn rust(table: &str) -> String {
    go(table) + &format!("hypervisor_name = \"{table}\"\nagent_name = \"kata\"\n")
}

fn runtime_path(planned: &Planned) -> [Option<String>; 3] {
    let path = |file: &str, keys: &[&str]| {
        let table: Table = text(planned, file).parse().unwrap();
        let mut value = &Value::Table(table);
        for key in keys {
            value = value.get(*key)?;
        }
        Some(value.as_str()?.to_owned())
    };
    let containerd = |file: &str, plugin: &str| {
        path(file, &["plugins", plugin, "containerd", "runtimes", "pith", "runtime_path"])
    };
    [
        containerd("containerd.toml", "io.containerd.grpc.v1.cri"),
        containerd("containerd-v3.toml", "io.containerd.cri.v1.runtime"),
        path("crio.conf", &["crio", "runtime", "runtimes", "pith", "runtime_path"]),
    ]
}

#[test]
fn an_initrd_takes_the_place_of_the_hosts_image() {
    let place = FakeHost::with(&[(&format!("{ETC}/configuration.toml"), &go("qemu"))]);
    let mut options = place.options(Hypervisor::Qemu, RootKind::Initrd);
    options.kernel_params = vec!["agent.log=debug".into()];
    let planned = place.plan(&options).unwrap();
    let table = fragment(&planned, "qemu");
    let value = |key: &str| table[key].as_str().unwrap();
    assert_eq!(
        (value("kernel"), value("initrd"), value("image")),
        ("/opt/pith/vmlinuz", "/opt/pith/initrd.img", "")
    );
    assert_eq!((value("kernel_params"), value("kernel_verity_params")), ("a=1 agent.log=debug", ""));
    install(&planned.plan, GO_ON).unwrap();
    let stage = place.dir.path().join("stage");
    assert_eq!(std::fs::read(stage.join("opt/pith/vmlinuz")).unwrap(), b"vmlinuz");
    let config = stage.join("etc/kata-containers/pith");
    assert!(std::fs::read_to_string(config.join("configuration.toml")).unwrap().contains("stock.img"));
    assert!(config.join("manifest.json").is_file());
    let class: serde_json::Value =
        serde_saphyr::from_str(&std::fs::read_to_string(config.join("runtimeclass.yaml")).unwrap()).unwrap();
    assert_eq!((&class["handler"], &class["kind"]), (&"pith".into(), &"RuntimeClass".into()));
    remove(&planned.plan.root, &planned.plan.prefix, "pith", GO_ON).unwrap();
    assert!(!stage.exists(), "the staging directory was made by the installation, too");
}

#[test]
fn handlers_name_the_configuration_as_each_container_runtime_reads_it() {
    let place = FakeHost::with(&[
        (&format!("{OPT}/configuration.toml"), &go("qemu")),
        ("/opt/kata/bin/containerd-shim-kata-v2", ""),
    ]);
    let planned = place.initrd(Hypervisor::Qemu);
    let table = |file: &str| text(&planned, file).parse::<Table>().unwrap();
    let configuration = Some("/etc/kata-containers/pith/configuration.toml");
    for (file, plugin) in [
        ("containerd.toml", "io.containerd.grpc.v1.cri"),
        ("containerd-v3.toml", "io.containerd.cri.v1.runtime"),
    ] {
        let runtime = &table(file)["plugins"][plugin]["containerd"]["runtimes"]["pith"];
        assert_eq!(runtime["options"]["ConfigPath"].as_str(), configuration, "{file}");
        assert_eq!(runtime["runtime_type"].as_str(), Some("io.containerd.kata.v2"), "{file}");
    }
    // Only the file that is imported as a whole says its version; the other one goes into a file that has one.
    assert_eq!(table("containerd-v3.toml")["version"].as_integer(), Some(3));
    assert!(!table("containerd.toml").contains_key("version"));
    let crio = &table("crio.conf")["crio"]["runtime"]["runtimes"]["pith"];
    assert_eq!(crio["runtime_config_path"].as_str(), configuration);
    assert_eq!(crio["runtime_type"].as_str(), Some("vm"));
    let program = Some("/opt/kata/bin/containerd-shim-kata-v2".to_owned());
    assert_eq!(runtime_path(&planned), [program.clone(), program.clone(), program]);
}

/// Case H4.
#[test]
fn a_host_with_runtime_rs_only_gets_its_file_and_its_program() {
    let program = "/opt/kata/runtime-rs/bin/containerd-shim-kata-v2";
    for path in [
        format!("{OPT}/runtime-rs/configuration.toml"),
        format!("{ETC}/runtime-rs/configuration.toml"),
        "/usr/share/defaults/kata-containers/runtime-rs/configuration.toml".to_owned(),
        format!("{OPT}/runtime-rs/runtimes/qemu-runtime-rs/configuration-qemu-runtime-rs.toml"),
        format!("{OPT}/runtime-rs/configuration-qemu-runtime-rs.toml"),
    ] {
        for installed in [true, false] {
            let place = FakeHost::with(&[(&path, &rust("qemu"))]);
            if installed {
                place.file(program, "");
            }
            let planned = place.initrd(Hypervisor::Qemu);
            assert_eq!((planned.host.base.shim, &*planned.host.base.path), (Shim::Rust, Path::new(&path)));
            assert_eq!(runtime_path(&planned), std::array::from_fn(|_| Some(program.to_owned())), "{path}");
            assert_eq!(planned.notes.len(), if installed { 1 } else { 2 }, "{:?}", planned.notes);
        }
    }
    // The Go shim's files without its program are a leftover.
    let place = FakeHost::with(&[
        (&format!("{OPT}/configuration.toml"), &go("qemu")),
        (&format!("{OPT}/runtime-rs/configuration.toml"), &rust("qemu")),
        (program, ""),
    ]);
    assert_eq!(place.initrd(Hypervisor::Qemu).host.base.shim, Shim::Rust);
}

#[test]
fn of_two_shims_the_version_decides_unless_one_is_named() {
    for (version, first) in [(None, Shim::Go), (Some("3.30.0\n"), Shim::Go), (Some("4.1.0\n"), Shim::Rust)] {
        let place = FakeHost::with(&[
            (&format!("{OPT}/configuration.toml"), &go("qemu")),
            (&format!("{OPT}/runtime-rs/configuration.toml"), &rust("qemu")),
            ("/opt/kata/bin/containerd-shim-kata-v2", ""),
            ("/opt/kata/runtime-rs/bin/containerd-shim-kata-v2", ""),
        ]);
        if let Some(version) = version {
            place.file("/opt/kata/VERSION", version);
        }
        assert_eq!(place.initrd(Hypervisor::Qemu).host.base.shim, first, "{version:?}");
        for shim in [Shim::Go, Shim::Rust] {
            let mut options = place.options(Hypervisor::Qemu, RootKind::Initrd);
            options.wanted.shim = Some(shim);
            assert_eq!(place.plan(&options).unwrap().host.base.shim, shim);
        }
    }
}

#[test]
fn each_vmm_has_its_file_in_the_layout_of_kata_deploy() {
    for (hypervisor, shim, name, table) in [
        (Hypervisor::Qemu, Shim::Go, "qemu", "qemu"),
        (Hypervisor::CloudHypervisor, Shim::Go, "clh", "clh"),
        (Hypervisor::Qemu, Shim::Rust, "qemu-runtime-rs", "qemu"),
        (Hypervisor::CloudHypervisor, Shim::Rust, "clh-runtime-rs", "clh"),
        (Hypervisor::CloudHypervisor, Shim::Rust, "cloud-hypervisor", "cloud-hypervisor"),
        (Hypervisor::Dragonball, Shim::Rust, "dragonball", "dragonball"),
    ] {
        let (below, all) = match shim {
            Shim::Go => (OPT.to_owned(), go(table)),
            Shim::Rust => (format!("{OPT}/runtime-rs"), rust(table)),
        };
        // The default that the same kata-deploy leaves is for another VMM, and must not be taken.
        let other = if table == "qemu" { "firecracker" } else { "qemu" };
        let default = if shim == Shim::Go { go(other) } else { rust(other) };
        let path = format!("{below}/runtimes/{name}/configuration-{name}.toml");
        let place = FakeHost::with(&[(&format!("{below}/configuration.toml"), &default), (&path, &all)]);
        let planned = place.initrd(hypervisor);
        assert_eq!(planned.host.base.path, Path::new(&path));
        assert_eq!(fragment(&planned, table)["initrd"].as_str(), Some("/opt/pith/initrd.img"));
    }
}

/// Case H5.
#[test]
fn cloud_hypervisor_is_called_as_the_installed_version_calls_it() {
    let path = format!("{OPT}/runtime-rs/configuration.toml");
    for (table, version, good) in [
        ("clh", Some("4.1.0"), true),
        ("clh", Some("3.30.0"), true),
        ("clh", None, true),
        ("cloud-hypervisor", Some("3.29.0"), true),
        ("cloud-hypervisor", None, true),
        // A file of another version: nobody would read the table, and the pod would boot Kata's own guest.
        ("cloud-hypervisor", Some("4.1.0"), false),
        ("clh", Some("3.20.0"), false),
    ] {
        let place = FakeHost::with(&[(&path, &rust(table))]);
        let mut options = place.options(Hypervisor::CloudHypervisor, RootKind::Initrd);
        options.wanted.version = version.map(|version| version.parse().unwrap());
        match place.plan(&options) {
            Ok(planned) => {
                assert!(good, "{table} {version:?}");
                assert_eq!(fragment(&planned, table)["kernel"].as_str(), Some("/opt/pith/vmlinux"));
            }
            Err(error) => {
                assert!(!good && error.to_string().contains(&format!("[hypervisor.{table}]")), "{error}");
            }
        }
    }
    // Two tables, and nothing that says which one counts.
    let both = go("clh") + "agent_name = \"kata\"\n[hypervisor.cloud-hypervisor]\npath = \"\"\n";
    let place = FakeHost::with(&[(&path, &both)]);
    let options = place.options(Hypervisor::CloudHypervisor, RootKind::Initrd);
    assert!(place.refused(&options).contains("--kata-version"));
    // runtime-rs starts what `hypervisor_name` says; another table is never read.
    let place = FakeHost::with(&[(&path, &(rust("qemu") + "[hypervisor.clh]\npath = \"\"\n"))]);
    let options = place.options(Hypervisor::CloudHypervisor, RootKind::Initrd);
    assert!(place.refused(&options).contains("no configuration of Kata Containers for Cloud Hypervisor"));
}

#[test]
fn a_version_that_is_not_known_is_refused_by_the_options_name() {
    let place = FakeHost::with(&[
        (&format!("{OPT}/configuration.toml"), &go("qemu")),
        ("/opt/kata/VERSION", "5.0.0"),
    ]);
    let options = place.options(Hypervisor::Qemu, RootKind::Initrd);
    assert!(place.refused(&options).contains("--kata-version"));
    place.file("/opt/kata/VERSION", "main");
    let refused = place.refused(&options);
    assert!(
        refused.contains("/opt/kata/VERSION says \"main\"") && refused.contains("--kata-version"),
        "{refused}"
    );
    let mut told = options;
    told.wanted.version = Some(KataVersion { major: 4, minor: 1 });
    assert!(place.plan(&told).is_ok());
}

/// Case H7.
#[test]
fn what_is_no_configuration_of_kata_is_refused_with_the_reason() {
    for (text, reason) in [
        ("root:x:0:0:root:/root:/bin/bash\n", "it is no TOML: line 1"),
        ("a = 1\nb = \n", "it is no TOML: line 2"),
        ("version = 2\n[plugins]\n", "no table such as [hypervisor.qemu]"),
        ("[hypervisor]\nqemu = 1\n", "no table such as [hypervisor.qemu]"),
        ("[hypervisor.nonsense]\npath = \"\"\n", "no table such as [hypervisor.qemu]"),
        ("", "no table such as [hypervisor.qemu]"),
        (&go("firecracker"), "it is for firecracker, not for QEMU"),
    ] {
        let place = FakeHost::new();
        let path = place.file("/somewhere/file", text);
        let mut options = place.options(Hypervisor::Qemu, RootKind::Initrd);
        options.wanted.base = Some(path.clone());
        let refused = place.refused(&options);
        assert!(refused.contains(&*path.to_string_lossy()) && refused.contains(reason), "{refused}");
        // Where it was not named but found, the search says why it was not taken.
        let place = FakeHost::with(&[(&format!("{ETC}/configuration.toml"), text)]);
        let refused = place.refused(&place.options(Hypervisor::Qemu, RootKind::Initrd));
        assert!(refused.contains("--base"), "{refused}");
    }
    let place = FakeHost::new();
    let mut options = place.options(Hypervisor::Qemu, RootKind::Initrd);
    for path in ["/dev/zero", "/"] {
        options.wanted.base = Some(path.into());
        assert!(place.refused(&options).contains("no regular file"));
    }
    let path = place.file("/somewhere/file", &rust("qemu"));
    options.wanted = Wanted { base: Some(path), shim: Some(Shim::Go), ..options.wanted };
    assert!(place.refused(&options).contains("it is of runtime-rs"));
}

#[test]
fn the_hosts_own_drop_ins_go_on_to_count() {
    let at = format!("{OPT}/runtimes/qemu");
    let place = FakeHost::with(&[
        (&format!("{at}/configuration-qemu.toml"), &go("qemu")),
        (&format!("{at}/config.d/30-kernel-params.toml"), "[hypervisor.qemu]\nkernel_params = \"b=2\"\n"),
        (&format!("{at}/config.d/zz-last.toml"), "[hypervisor.qemu]\nkernel = \"theirs\"\n"),
    ]);
    // As kata-deploy leaves it: a link in the place of the file, and the drop-ins beside the file itself.
    std::os::unix::fs::symlink(
        "runtimes/qemu/configuration-qemu.toml",
        place.host().at(Path::new(OPT)).join("configuration.toml"),
    )
    .unwrap();
    std::fs::create_dir(place.host().at(Path::new("/etc"))).unwrap();
    let mut options = place.options(Hypervisor::Qemu, RootKind::Initrd);
    options.wanted.base = Some(place.host().at(Path::new(OPT)).join("configuration.toml"));
    options.kernel_params = vec!["c=3".into()];
    let planned = place.plan(&options).unwrap();
    assert_eq!(fragment(&planned, "qemu")["kernel_params"].as_str(), Some("b=2 c=3"));
    assert!(text(&planned, "config.d/10-host-30-kernel-params.toml").contains("b=2"));
    let names: Vec<_> = planned
        .plan
        .files
        .iter()
        .filter(|file| file.path.parent().is_some_and(|parent| parent.ends_with("config.d")))
        .map(|file| file.path.file_name().unwrap().to_owned())
        .collect();
    assert!(names.is_sorted() && names.last().unwrap() == "50-pith.toml", "ours counts last: {names:?}");
}

#[test]
fn seccomp_in_the_guest_is_switched_on_by_an_option() {
    let place = FakeHost::with(&[(&format!("{ETC}/configuration.toml"), &go("qemu"))]);
    let mut options = place.options(Hypervisor::Qemu, RootKind::Initrd);
    assert!(!text(&place.plan(&options).unwrap(), "config.d/50-pith.toml").contains("seccomp"));
    options.guest_seccomp = true;
    let planned = place.plan(&options).unwrap();
    let drop_in: Table = text(&planned, "config.d/50-pith.toml").parse().unwrap();
    assert_eq!(drop_in["runtime"]["disable_guest_seccomp"].as_bool(), Some(false));
}

#[test]
fn a_disk_comes_with_its_hashes() {
    let version = Some(KataVersion { major: 4, minor: 1 });
    for (hypervisor, shim, table, driver) in [
        (Hypervisor::Firecracker, Shim::Go, "firecracker", None),
        (Hypervisor::Firecracker, Shim::Rust, "firecracker", Some("virtio-blk-mmio")),
        (Hypervisor::Qemu, Shim::Rust, "qemu", Some("virtio-blk-pci")),
    ] {
        let (path, all) = match shim {
            Shim::Go => (format!("{ETC}/configuration.toml"), go(table)),
            Shim::Rust => (format!("{ETC}/runtime-rs/configuration.toml"), rust(table)),
        };
        let place = FakeHost::with(&[(&path, &all)]);
        let mut options = place.options(hypervisor, RootKind::Disk);
        options.wanted.version = version;
        let made = fragment(&place.plan(&options).unwrap(), table);
        assert_eq!(made["image"].as_str(), Some("/opt/pith/disk-minimal-kata.img"));
        assert!(made["kernel_verity_params"].as_str().unwrap().starts_with("root_hash="));
        assert_eq!((made["rootfs_type"].as_str(), made["initrd"].as_str()), (Some("erofs"), Some("")));
        assert_eq!(made.get("vm_rootfs_driver").and_then(Value::as_str), driver);
        assert_eq!(made.contains_key("disable_image_nvdimm"), shim == Shim::Go);
        options.root_fs = FileSystem::Ext4;
        let made = fragment(&place.plan(&options).unwrap(), table);
        assert_eq!(made["image"].as_str(), Some("/opt/pith/disk-minimal-kata-ext4.img"));
        assert_eq!(made["rootfs_type"].as_str(), Some("ext4"));
    }
}

#[test]
fn a_shim_that_would_not_pass_the_hashes_on_gets_no_disk() {
    let path = format!("{ETC}/configuration.toml");
    let place = FakeHost::with(&[(&path, &go("qemu"))]);
    let mut options = place.options(Hypervisor::Qemu, RootKind::Disk);
    assert!(place.refused(&options).contains("--kata-version"));
    options.wanted.version = Some(KataVersion { major: 3, minor: 20 });
    assert!(place.refused(&options).contains("nobody would check the disk"));
    place.file(&path, &go("qemu").replace("image", "kernel_verity_params = \"\"\nimage"));
    options.wanted.version = None;
    assert!(place.plan(&options).is_ok(), "a configuration that has the key is of a version that knows it");
}

#[test]
fn what_cannot_be_is_refused_with_the_way_out() {
    let place = FakeHost::with(&[(&format!("{ETC}/configuration.toml"), &go("qemu"))]);
    let options = place.options(Hypervisor::Firecracker, RootKind::Initrd);
    assert!(place.refused(&options).contains("--root-as disk"));
    let qemu = Options { hypervisor: Hypervisor::Qemu, ..options };
    assert!(place.refused(&Options { root_fs: FileSystem::Ext4, ..qemu.clone() }).contains("--root-as disk"));
    let other = Options { flavour: "debug".into(), ..qemu.clone() };
    let refused = place.refused(&other);
    assert!(refused.ends_with("image-builder initrd --flavour debug"), "{refused}");
    std::fs::write(place.layout.vmlinuz(), "changed").unwrap();
    assert!(place.refused(&qemu).contains("build it anew"));
}
