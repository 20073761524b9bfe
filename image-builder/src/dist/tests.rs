//! Tests of releases, with small products and programs that are scripts.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Output;

use super::*;

const MAINTAINER: &str = "Jane Doe <jane@example.org>";
const EPOCH: u32 = 1_700_000_000;

/// A stand-in for a program: it has manual pages and completions.
const SCRIPT: &str = "#!/bin/sh\n\
    case $1 in\n\
    completions) echo \"completes NAME in $2\" ;;\n\
    man) mkdir -p \"$2\" && echo '.TH NAME 1' >\"$2/NAME.1\" && echo '.TH NAME-run 1' >\"$2/NAME-run.1\" ;;\n\
    *) exit 3 ;;\n\
    esac\n";

/// A source tree with products and programs below `root`.
fn source(root: &Path) -> (Layout, Vec<PathBuf>) {
    let write = |name: &str, text: &str| {
        store::cache::write_atomically(&root.join(name), text.as_bytes()).unwrap();
    };
    for name in [
        "README.md",
        "LICENSE",
        "NOTICE",
        "SECURITY.md",
        "MAINTAINERS",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "agent/protocols/README.md",
        "agent/golden/one.json",
        "CHANGELOG.md",
        "docs/pith.md",
        "docs/boot.svg",
        "rootfs/flavour/minimal.toml",
        "kernel-config/kernel.toml",
    ] {
        write(name, &format!("this is {name}\n"));
    }
    write(
        "docs/oci.md",
        "[a](../agent/golden/one.json), [b](pith.md#x), [c](https://x.org/y), [d](#here), [e](../CHANGELOG.md)\n",
    );
    write("pith.whl", "the Python package\n");
    let layout = Layout::new(root.into(), None);
    for name in ["vmlinux", "initrd.img", "agent", "agent-policy", "probe"] {
        write(&format!("out/{name}"), &format!("{name} {}", "x".repeat(3000)));
        Manifest::update(&layout, |manifest| manifest.add_product(&layout, name)).unwrap();
    }
    let program = |name: &str| {
        write(&format!("bin/{name}"), &SCRIPT.replace("NAME", name));
        let path = root.join("bin").join(name);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    };
    write("bin/vhost-device-vsock", "a daemon\n");
    (layout, ["image-builder", "pith"].map(program).to_vec())
}

/// As [`Release::write`], without the list of ingredients, for which cargo would be asked.
fn pack(root: &Path, out: &Path) -> Result<Vec<String>, DistError> {
    let (layout, programs) = source(root);
    let release = Release {
        version: "1.2.3",
        epoch: EPOCH,
        maintainer: MAINTAINER,
        layout: &layout,
        programs: &programs,
        daemon: &root.join("bin/vhost-device-vsock"),
        others: &[root.join("pith.whl")],
    };
    release.pack(out, "{}\n")
}

fn tool(name: &str, arguments: &[&str]) -> Output {
    let output = Command::new(name).args(arguments).env("TZ", "UTC").output();
    let output = output.unwrap_or_else(|error| panic!("{name} is missing: {error}"));
    assert!(output.status.success(), "{name} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn packed_in_two_places_it_is_the_same() {
    let packed = [(); 2].map(|()| {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("dist");
        let names = pack(dir.path(), &out).unwrap();
        names.into_iter().map(|name| (std::fs::read(out.join(&name)).unwrap(), name)).collect::<Vec<_>>()
    });
    let names: Vec<_> = packed[0].iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "pith-1.2.3-x86_64-linux.tar.xz",
            "pith-1.2.3.spdx.json",
            "pith_1.2.3_amd64.deb",
            "pith.whl",
            "SHA256SUMS"
        ]
    );
    for ((one, name), (two, _)) in packed[0].iter().zip(&packed[1]) {
        assert!(one == two, "{name} differs");
    }
}

#[test]
fn the_checksums_are_those_of_the_files_and_nothing_else_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("dist");
    let mut names = pack(dir.path(), &out).unwrap();
    // A second time, over the first.
    assert_eq!(pack(dir.path(), &out).unwrap(), names);
    let output =
        Command::new("sha256sum").args(["--check", "--strict", "SHA256SUMS"]).current_dir(&out).output();
    assert_eq!(text(&output.unwrap()).lines().filter(|line| line.ends_with(": OK")).count(), 4);
    let mut found: Vec<_> =
        std::fs::read_dir(&out).unwrap().map(|entry| name_of(&entry.unwrap().path())).collect();
    found.sort();
    names.sort();
    assert_eq!(found, names);
}

#[test]
fn the_tarball_has_the_programs_beside_the_products() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("dist");
    let names = pack(dir.path(), &out).unwrap();
    let archive = out.join(&names[0]).display().to_string();
    let list = text(&tool("tar", &["--list", "--verbose", "--numeric-owner", "--full-time", "-f", &archive]));
    let lines: Vec<_> = list.lines().collect();
    let line = |path: &str| {
        let found = lines.iter().find(|line| line.ends_with(&format!(" pith-1.2.3/{path}")));
        found.unwrap_or_else(|| panic!("no {path} in\n{list}"))
    };
    for path in [
        "bin/pith",
        "bin/image-builder",
        "lib/pith/agent",
        "lib/pith/agent-policy",
        "lib/pith/vhost-device-vsock",
    ] {
        assert!(line(path).starts_with("-rwxr-xr-x 0/0 "), "{}", line(path));
    }
    for path in [
        "lib/pith/vmlinux",
        "lib/pith/manifest.json",
        "share/man/man1/pith-run.1.gz",
        "share/man/man1/image-builder.1.gz",
        "share/bash-completion/completions/pith",
        "share/zsh/vendor-completions/_pith",
        "share/fish/vendor_completions.d/image-builder.fish",
        "share/pith/rootfs/flavour/minimal.toml",
        "share/pith/kernel-config/kernel.toml",
        "share/doc/pith/README.md",
        "share/doc/pith/docs/pith.md",
        "share/doc/pith/MAINTAINERS",
        "share/doc/pith/agent/protocols/README.md",
        "share/doc/pith/agent/golden/one.json",
        "share/doc/pith/CHANGELOG.md",
        "share/doc/pith/sbom.spdx.json.gz",
    ] {
        assert!(line(path).starts_with("-rw-r--r-- 0/0 "), "{}", line(path));
    }
    assert!(!list.contains("probe"), "{list}");
    assert!(lines.iter().all(|line| line.contains(" 2023-11-14 22:13:20 ")), "{list}");
    tool("tar", &["--extract", "-f", &archive, "-C", &dir.path().display().to_string()]);
    let layout = Layout::new(dir.path().into(), Some(dir.path().join("pith-1.2.3/lib/pith")));
    let manifest = Manifest::read(&layout);
    assert_eq!(
        manifest.products.keys().collect::<Vec<_>>(),
        ["agent", "agent-policy", "initrd.img", "vmlinux"]
    );
    let page = dir.path().join("pith-1.2.3/share/man/man1/pith-run.1.gz");
    assert_eq!(text(&tool("gzip", &["-dc", &page.display().to_string()])), ".TH pith-run 1\n");
}

#[test]
fn dpkg_reads_the_package_and_its_checksums_fit() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("dist");
    let names = pack(dir.path(), &out).unwrap();
    let package = out.join(&names[2]).display().to_string();
    let field = |name: &str| text(&tool("dpkg-deb", &["--field", &package, name])).trim_end().to_owned();
    for (name, expected) in [
        ("Package", "pith"),
        ("Version", "1.2.3"),
        ("Architecture", "amd64"),
        ("Maintainer", MAINTAINER),
        ("Depends", "qemu-system-x86"),
        ("Section", "admin"),
        ("Priority", "optional"),
    ] {
        assert_eq!(field(name), expected, "{name}");
    }
    assert!(field("Description").starts_with(&format!("{SUMMARY}\n ")), "{}", field("Description"));
    let list = text(&tool("dpkg-deb", &["--contents", &package]));
    assert!(list.starts_with("drwxr-xr-x root/root         0 2023-11-14 22:13 ./\n"), "{list}");
    assert!(list.contains(" ./usr/lib/pith/initrd.img\n") && !list.contains("./pith"), "{list}");
    let root = dir.path().join("root");
    tool("dpkg-deb", &["--extract", &package, &root.display().to_string()]);
    tool("dpkg-deb", &["--control", &package, &dir.path().join("control").display().to_string()]);
    let sums = dir.path().join("control/md5sums").display().to_string();
    let checked =
        Command::new("md5sum").args(["--check", "--strict", &sums]).current_dir(&root).output().unwrap();
    assert!(checked.status.success(), "{}", text(&checked));
    let files = text(&tool("find", &[&root.display().to_string(), "-type", "f"])).lines().count();
    assert_eq!(text(&checked).lines().count(), files);
    // Whole KiB of files, and one for each directory.
    let size: u64 = field("Installed-Size").parse().unwrap();
    assert!((files as u64..200).contains(&size), "{size}");
    let documents = root.join("usr/share/doc/pith");
    assert!(std::fs::read_to_string(documents.join("copyright")).unwrap().contains("License: Apache-2.0"));
    let changes = text(&tool("gzip", &["-dc", &documents.join("changelog.Debian.gz").display().to_string()]));
    assert!(changes.starts_with("pith (1.2.3) stable; urgency=medium\n\n  * "), "{changes}");
    assert!(
        changes.ends_with("\n -- Jane Doe <jane@example.org>  Tue, 14 Nov 2023 22:13:20 +0000\n"),
        "{changes}"
    );
    let changes = text(&tool("gzip", &["-dc", &documents.join("changelog.gz").display().to_string()]));
    assert_eq!(changes, "this is CHANGELOG.md\n");
}

#[test]
fn what_is_wrong_is_named_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let (layout, programs) = source(dir.path());
    let out = dir.path().join("dist");
    let pack = |maintainer: &str, programs: &[PathBuf]| {
        let daemon = &dir.path().join("bin/vhost-device-vsock");
        let release =
            Release { version: "1", epoch: 0, maintainer, layout: &layout, programs, daemon, others: &[] };
        let error = release.pack(&out, "{}").unwrap_err();
        let left = std::fs::read_dir(&out).map_or(0, Iterator::count);
        assert_eq!(left, 0, "{error}");
        error.to_string()
    };
    for maintainer in ["", "Jane", "jane@example.org", "Jane <jane>", "A\nB <a@b>", "<a@b>", "A <a@b> x"] {
        let error = pack(maintainer, &programs);
        assert!(error.contains("is no maintainer"), "{maintainer:?}: {error}");
    }
    let broken = dir.path().join("bin/broken");
    std::fs::write(&broken, "#!/bin/sh\necho no such verb >&2; exit 4\n").unwrap();
    std::fs::set_permissions(&broken, std::fs::Permissions::from_mode(0o755)).unwrap();
    let error = pack(MAINTAINER, &[broken]);
    assert!(error.contains("broken completions bash failed") && error.contains("no such verb"), "{error}");
    std::fs::write(layout.initrd(), "another").unwrap();
    let error = pack(MAINTAINER, &programs);
    assert!(error.contains("initrd.img is not what manifest.json says"), "{error}");
    std::fs::remove_file(layout.manifest()).unwrap();
    let error = pack(MAINTAINER, &programs);
    assert!(error.contains("manifest.json names no product"), "{error}");
}

#[test]
fn links_of_the_documents_lead_to_files_of_the_package() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let layout = Layout::new(root.clone(), None);
    let none = Path::new("");
    let release = Release {
        version: "1",
        epoch: 0,
        maintainer: MAINTAINER,
        layout: &layout,
        programs: &[],
        daemon: none,
        others: &[],
    };
    let tree = release.texts("").unwrap();
    let files: Vec<String> =
        tree.walk().iter().map(|(path, _)| String::from_utf8_lossy(path).into_owned()).collect();
    let documents = format!("/{DOCUMENTS}/");
    let mut checked = 0;
    for name in
        files.iter().filter_map(|path| path.strip_prefix(&documents)).filter(|name| name.ends_with(".md"))
    {
        for link in links(name, &std::fs::read_to_string(root.join(name)).unwrap()) {
            assert!(
                files.contains(&format!("{documents}{link}")),
                "{name} links to {link}, which is not there"
            );
            checked += 1;
        }
    }
    assert!(checked > 100, "only {checked} links were found");
    assert_eq!(links("docs/a.md", "[x](../b.md#c) [y](d/../e.md)[z](mailto:a@b)"), ["b.md", "docs/e.md"]);
}
