//! Images as stacks of erofs layers, and disks whose blocks are checked.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use protocols::agent::Storage;
use serde_json::json;
use tests::{Code, ContainerBuilder, Guest, Port, VOLUMES, expect_code, host_tool, seen, storage};

use crate::{before, ext4, q35, user_of};

/// An erofs with these files.
fn erofs(directory: &Path, name: &str, files: &[(&str, &str)]) -> Result<PathBuf> {
    let (source, disk) = (directory.join(format!("{name}-files")), directory.join(name));
    for (file, text) in files {
        let file = source.join(file);
        std::fs::create_dir_all(file.parent().context("a parent")?)?;
        std::fs::write(file, text)?;
    }
    host_tool("mkfs.erofs", &["--quiet", &disk.display().to_string(), &source.display().to_string()])?;
    Ok(disk)
}

/// Appends a hash tree with a superblock; gives where it begins and the root hash.
fn with_tree(disk: &Path) -> Result<(u64, String)> {
    let size = disk.metadata()?.len();
    assert_eq!(size % 4096, 0);
    let (name, offset) = (disk.display().to_string(), format!("--hash-offset={size}"));
    let told = host_tool(
        "veritysetup",
        &["format", &name, &name, &offset, &format!("--data-blocks={}", size / 4096)],
    )?;
    let hash = told.lines().find_map(|line| line.strip_prefix("Root hash:")).context("a root hash")?;
    Ok((size, hash.trim().to_owned()))
}

/// A layer as shims send it, for the stack at a volume.
fn layer(source: &str, fstype: &str, role: &str, more: &[&str]) -> Storage {
    let options = [&["X-kata.multi-layer=true", role], more].concat();
    storage("blk", source, fstype, &options, "stack")
}

fn user_of_stack(guest: &Guest, id: &str, layers: Vec<Storage>) -> ContainerBuilder {
    let builder = guest.container(id).request(|request| request.storages.extend(layers));
    builder.mount("/vol", "bind", &format!("{VOLUMES}/stack"), &["rbind", "rw"])
}

const LOWER: &str = "X-kata.overlay-lower";
const UPPER: &str = "X-kata.overlay-upper";
/// A third and a fourth place.
const MORE_PORTS: [&str; 4] = [
    "-device",
    "pcie-root-port,id=rp3,chassis=5,addr=0x16",
    "-device",
    "pcie-root-port,id=rp4,chassis=6,addr=0x17",
];
const THIRD: Port = Port { bus: "rp3", arguments: &[], path: "16/00", address: None };
const FOURTH: Port = Port { bus: "rp4", arguments: &[], path: "17/00", address: None };

#[tokio::test]
async fn layers_are_stacked_with_one_to_write_on() -> Result<()> {
    let guest = q35(Guest::builder().qemu(&MORE_PORTS), &[Port::ROOT, Port::SECOND]).await?;
    let (inspector, before) = before(&guest).await?;
    let directory = tempfile::tempdir()?;
    let top = erofs(directory.path(), "top", &[("who", "top"), ("a", "a of top")])?;
    let base = erofs(directory.path(), "base", &[("who", "base"), ("b", "b of base")])?;
    let upper = ext4(&directory.path().join("upper"), 16)?;
    guest.plug_disk(&Port::ROOT, "upper", &upper, false).await?;
    guest.plug_disk(&Port::SECOND, "top", &top, true).await?;
    guest.plug_disk(&THIRD, "base", &base, true).await?;
    let layers = vec![
        layer(Port::ROOT.path, "ext4", UPPER, &["X-kata.mkdir.path={{ mount 0 }}/upper/made:0755"]),
        layer(Port::SECOND.path, "erofs", LOWER, &["ro"]),
        layer(THIRD.path, "erofs", LOWER, &["ro"]),
    ];
    let container = user_of_stack(&guest, "c1", layers).run().await?;
    assert_eq!(
        container.sh("cat /vol/who; echo; cat /vol/a; echo; cat /vol/b").await?,
        "top\na of top\nb of base"
    );
    assert_eq!(container.sh("echo new > /vol/a; rm /vol/b; ls /vol").await?, "a\nmade\nwho");
    container.remove().await?;
    assert_eq!(inspector.settled(&before).await?, before);

    // The same without a layer to write on, and of one layer only.
    for (id, count, shows) in [("c2", 2, "a b who"), ("c3", 1, "a who")] {
        let places = [Port::SECOND.path, THIRD.path];
        let layers: Vec<_> =
            places[..count].iter().map(|path| layer(path, "erofs", LOWER, &["ro"])).collect();
        let container = user_of_stack(&guest, id, layers).run().await?;
        assert_eq!(container.sh("echo $(ls /vol)").await?, shows);
        assert_ne!(container.exec(["touch", "/vol/x"]).run().await?.status, 0);
        container.remove().await?;
    }
    assert_eq!(inspector.settled(&before).await?, before);
    let test = "layers::layers_are_stacked_with_one_to_write_on";
    seen("erofs.multi-layer", "two erofs layers under ext4, hot-plugged", test)?;
    seen("erofs.multi-layer", "two layers, and one, read-only", test)
}

#[tokio::test]
async fn layers_on_partitions_of_one_disk() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let layers = [
        erofs(directory.path(), "top", &[("who", "top")])?,
        erofs(directory.path(), "base", &[("who", "base"), ("b", "b of base")])?,
    ];
    let disk = directory.path().join("disk");
    std::fs::File::create(&disk)?.set_len(8 << 20)?;
    let table = directory.path().join("table");
    std::fs::write(&table, "label: gpt\nstart=2048, size=4096\nstart=8192, size=4096\n")?;
    let (name, table) = (disk.display().to_string(), table.display().to_string());
    host_tool("sh", &["-c", "sfdisk --quiet \"$0\" < \"$1\"", &name, &table])?;
    for (layer, sector) in layers.iter().zip([2048, 8192]) {
        let (from, to, seek) = (layer.display(), disk.display(), format!("seek={sector}"));
        host_tool("dd", &[&format!("if={from}"), &format!("of={to}"), "conv=notrunc", "status=none", &seek])?;
    }
    let guest = q35(Guest::builder(), &[Port::ROOT]).await?;
    guest.plug_disk(&Port::ROOT, "all", &disk, true).await?;
    let on = |number: u32| {
        let partition = format!("X-kata.partition-number={number}");
        layer(Port::ROOT.path, "erofs", LOWER, &["ro", "X-kata.gpt-partitioned=true", &partition])
    };
    let container = user_of_stack(&guest, "c1", vec![on(1), on(2)]).run().await?;
    assert_eq!(container.sh("cat /vol/who; echo; cat /vol/b").await?, "top\nb of base");
    container.remove().await?;
    expect_code(
        user_of_stack(&guest, "c2", vec![on(1), on(200)]).try_create().await.map(drop),
        Code::INVALID_ARGUMENT,
    );
    seen(
        "erofs.multi-layer",
        "layers on GPT partitions of one disk",
        "layers::layers_on_partitions_of_one_disk",
    )
}

#[tokio::test]
async fn a_layer_that_was_changed_is_not_read() -> Result<()> {
    let guest = q35(
        Guest::builder().qemu(&MORE_PORTS).cmdline(&["agent.hotplug_timeout=1"]),
        &[Port::ROOT, Port::SECOND],
    )
    .await?;
    let (inspector, before) = before(&guest).await?;
    let directory = tempfile::tempdir()?;
    let text = "sixteen letters.".repeat(1 << 14);
    let good = erofs(directory.path(), "good", &[("file", &text), ("who", "checked")])?;
    let (offset, hash) = with_tree(&good)?;
    let bad = directory.path().join("bad");
    let mut bytes = std::fs::read(&good)?;
    bytes[usize::try_from(offset)? - 4096 * 20] ^= 1;
    std::fs::write(&bad, bytes)?;
    let base = erofs(directory.path(), "base", &[("b", "b of base")])?;
    guest.plug_disk(&Port::ROOT, "good", &good, true).await?;
    guest.plug_disk(&Port::SECOND, "bad", &bad, true).await?;
    guest.plug_disk(&THIRD, "base", &base, true).await?;
    let checked = |path: &str, hash: &str| {
        let (hash, offset) =
            (format!("X-kata.dmverity.roothash={hash}"), format!("X-kata.dmverity.hashoffset={offset}"));
        let words = ["ro", "X-kata.dmverity-enabled=true", &hash, &offset, "X-kata.dmverity.blocksize=4096"];
        vec![layer(path, "erofs", LOWER, &words), layer(THIRD.path, "erofs", LOWER, &["ro"])]
    };
    let container = user_of_stack(&guest, "c1", checked(Port::ROOT.path, &hash)).run().await?;
    assert_eq!(
        container.sh("cat /vol/who; echo; cat /vol/b; echo; wc -c < /vol/file").await?,
        "checked\nb of base\n262144"
    );
    assert_eq!(inspector.sh("ls /sys/block | grep -c dm-").await?, "1");
    container.remove().await?;
    assert_eq!(inspector.sh("ls /sys/block | grep -c dm-; true").await?, "0");

    // One bit of the file's is another: its block is not given out, the others are.
    let container = user_of_stack(&guest, "c2", checked(Port::SECOND.path, &hash)).run().await?;
    assert_eq!(container.sh("cat /vol/who").await?, "checked");
    let read = container.exec(["sh", "-c", "cat /vol/file > /dev/null"]).run().await?;
    assert!(String::from_utf8_lossy(&read.stderr).contains("Input/output error"), "{read:?}");
    container.remove().await?;

    // With another hash nothing can be read, so nothing is mounted, and nothing is left.
    let wrong = hash.replace(&hash[..1], if hash.starts_with('0') { "1" } else { "0" });
    let refused = user_of_stack(&guest, "c3", checked(Port::ROOT.path, &wrong)).try_create().await;
    let (_, text) = tests::refusal(refused.map(drop));
    assert!(text.contains("stack"), "{text}");
    assert_eq!(inspector.sh("ls /sys/block | grep -c dm-; true").await?, "0");
    assert_eq!(inspector.settled(&before).await?, before);
    let test = "layers::a_layer_that_was_changed_is_not_read";
    seen("erofs.multi-layer", "a layer checked by dm-verity, a changed block refused", test)
}

#[tokio::test]
async fn a_checked_volume() -> Result<()> {
    let guest = q35(Guest::builder().qemu(&MORE_PORTS), &[]).await?;
    let directory = tempfile::tempdir()?;
    let disk = erofs(directory.path(), "disk", &[("who", "checked")])?;
    let (offset, hash) = with_tree(&disk)?;
    guest.plug_disk(&FOURTH, "disk", &disk, true).await?;
    let volume = |hash: &str| {
        let info = json!({
            "hashtype": "sha256", "hash": hash, "blocknum": offset / 4096, "blocksize": 4096, "hashsize": 4096,
            "offset": offset,
        });
        Storage {
            driver_options: vec!["source_type=virtio_pci".to_owned(), format!("verity_info={info}")],
            ..storage("dmverity", FOURTH.path, "erofs", &["ro"], "checked")
        }
    };
    let container = user_of(&guest, "c1", volume(&hash)).run().await?;
    assert_eq!(container.sh("cat /vol/who").await?, "checked");
    let refused = user_of(&guest, "c2", Storage { mount_point: format!("{VOLUMES}/x"), ..volume("beef") });
    let text = expect_code(refused.try_create().await.map(drop), Code::INVALID_ARGUMENT);
    assert!(text.contains("beef"), "{text}");
    container.remove().await?;
    seen("dmverity", "storage, erofs with a hash tree, hot-plugged", "layers::a_checked_volume")
}
