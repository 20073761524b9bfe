//! CopyFile: what the host puts into a guest with which it shares no file system.

use anyhow::Result;
use machine::vm::AgentClient;
use protocols::agent::CopyFileRequest;
use tests::{Code, Container, Guest, expect_code};

const SHARED: &str = "/run/kata-containers/shared/containers";
const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
const LINK: u32 = 0o120_000;

fn entry(name: &str, mode: u32, data: &[u8]) -> CopyFileRequest {
    CopyFileRequest {
        path: format!("{SHARED}/{name}"),
        file_size: data.len() as i64,
        file_mode: mode,
        dir_mode: 0o755,
        data: data.to_vec(),
        ..Default::default()
    }
}

async fn copy(guest: &Guest, request: &CopyFileRequest) -> ttrpc::Result<()> {
    guest.api().copy_file(AgentClient::call(), request).await.map(drop)
}

/// Sends a file in pieces, as shims do.
async fn copy_in_pieces(guest: &Guest, whole: &CopyFileRequest, piece: usize) -> ttrpc::Result<()> {
    for (number, data) in whole.data.chunks(piece).enumerate() {
        let offset = (number * piece) as i64;
        copy(guest, &CopyFileRequest { offset, data: data.to_vec(), ..whole.clone() }).await?;
    }
    Ok(())
}

/// A container that has a directory of the shared tree at `/vol`.
async fn with_volume(guest: &Guest, id: &str, name: &str) -> Result<Container> {
    let builder = guest.container(id).mount("/vol", "bind", &format!("{SHARED}/{name}"), &["rbind", "rw"]);
    builder.run().await
}

#[tokio::test]
async fn files_directories_and_links_arrive_with_owner_and_mode() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let owned = |request: CopyFileRequest| CopyFileRequest { uid: 33, gid: 44, ..request };
    copy(&guest, &entry("v1", DIRECTORY | 0o755, b"")).await?;
    copy(&guest, &owned(entry("v1/made/on/the/way", REGULAR | 0o640, b"text"))).await?;
    copy(&guest, &owned(entry("v1/setuid", REGULAR | 0o4755, b"x"))).await?;
    copy(&guest, &owned(entry("v1/link", LINK | 0o777, b"made/on"))).await?;
    copy(&guest, &entry("v1/empty", REGULAR | 0o600, b"")).await?;
    copy(&guest, &owned(entry("v1/made", DIRECTORY | 0o2750, b""))).await?;
    let container = with_volume(&guest, "c1", "v1").await?;
    let stat =
        "cd /vol; stat -c '%n %a %u:%g %s' made made/on made/on/the/way setuid empty; stat -c '%N %u' link";
    assert_eq!(
        container.sh(stat).await?,
        "made 2750 33:44 60\nmade/on 755 33:44 60\nmade/on/the/way 640 33:44 4\nsetuid 4755 33:44 1\nempty 600 0:0 0\n\
         'link' -> 'made/on' 33"
    );
    assert_eq!(container.sh("cat /vol/link/the/way").await?, "text");
    Ok(())
}

#[tokio::test]
async fn large_files_come_in_pieces_side_by_side() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    copy(&guest, &entry("v", DIRECTORY | 0o755, b"")).await?;
    let data = |seed: u32| -> Vec<u8> {
        (0..5 * 1024 * 1024u32)
            .map(|n| (n.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 13) as u8)
            .collect()
    };
    let (one, two) =
        (entry("v/a.conf", REGULAR | 0o644, &data(1)), entry("v/a.txt", REGULAR | 0o644, &data(2)));
    let (first, second) =
        tokio::join!(copy_in_pieces(&guest, &one, 1 << 20), copy_in_pieces(&guest, &two, 1 << 20));
    first?;
    second?;
    let container = with_volume(&guest, "c1", "v").await?;
    for (name, whole) in [("a.conf", &one.data), ("a.txt", &two.data)] {
        let cat = container.exec(["cat", &format!("/vol/{name}")]).run().await?;
        assert!(cat.stdout == *whole, "{name} differs: {} bytes", cat.stdout.len());
    }
    // A reader of the old file keeps it, whoever opens it anew has the new one.
    let reader = container
        .exec(["sh", "-c", "exec 3</vol/a.txt; echo open; read go; head -c 3 <&3 | wc -c"])
        .start()
        .await?;
    reader.read_until("open\n").await?;
    copy(&guest, &entry("v/a.txt", REGULAR | 0o644, b"new")).await?;
    assert_eq!(container.sh("cat /vol/a.txt").await?, "new");
    reader.write(b"go\n").await?;
    reader.read_until("3\n").await?;
    assert_eq!(container.sh("ls -A /vol").await?, "a.conf\na.txt");
    Ok(())
}

#[tokio::test]
async fn a_config_map_is_swapped_in_one_step() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    copy(&guest, &entry("cm", DIRECTORY | 0o755, b"")).await?;
    copy(&guest, &entry("cm/..1/key", REGULAR | 0o644, b"one")).await?;
    copy(&guest, &entry("cm/..data", LINK | 0o777, b"..1")).await?;
    copy(&guest, &entry("cm/key", LINK | 0o777, b"..data/key")).await?;
    let container = with_volume(&guest, "c1", "cm").await?;
    let watch =
        "n=0; while :; do v=$(cat /vol/key) || echo MISSED; [ \"$v\" = two ] && { echo two; exit 0; }; done";
    let watcher = container.exec(["sh", "-c", watch]).start().await?;
    copy(&guest, &entry("cm/..2/key", REGULAR | 0o644, b"two")).await?;
    copy(&guest, &entry("cm/..data", LINK | 0o777, b"..2")).await?;
    let seen = watcher.finish().await?;
    assert_eq!((seen.status, seen.stdout.as_slice()), (0, &b"two\n"[..]));
    Ok(())
}

#[tokio::test]
async fn a_container_cannot_lead_a_copy_out_of_its_volume() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    copy(&guest, &entry("v1", DIRECTORY | 0o755, b"")).await?;
    copy(&guest, &entry("v2/secret", REGULAR | 0o600, b"kept")).await?;
    let container = with_volume(&guest, "c1", "v1").await?;
    container.sh("cd /vol; ln -s ../v2 next; ln -s /etc etc; ln -s ../../../../../etc up").await?;
    for name in ["v1/next/secret", "v1/etc/passwd", "v1/up/hosts"] {
        expect_code(copy(&guest, &entry(name, REGULAR | 0o644, b"bad")).await, Code::INVALID_ARGUMENT);
    }
    // It swaps a directory for a link as fast as it can, while copies go through that name.
    let swap = "cd /vol; while :; do mkdir d; rm -rf d; ln -s ../v2 d; rm d; done 2>/dev/null";
    let swapper = container.exec(["sh", "-c", swap]).start().await?;
    for _ in 0..200 {
        // Either answer is right; what counts is where the bytes went.
        drop(copy(&guest, &entry("v1/d/secret", REGULAR | 0o644, b"bad")).await);
    }
    container.signal(swapper.exec_id(), 9).await?;
    let other = with_volume(&guest, "c2", "v2").await?;
    assert_eq!(other.sh("cat /vol/secret; ls -A /vol").await?, "keptsecret");
    Ok(())
}

#[tokio::test]
async fn copies_that_make_no_sense_are_refused_and_leave_nothing() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    copy(&guest, &entry("v", DIRECTORY | 0o755, b"")).await?;
    let at = |path: &str| CopyFileRequest { path: path.into(), ..entry("", REGULAR, b"x") };
    for path in [
        "",
        "relative",
        "/etc/passwd",
        SHARED,
        &format!("{SHARED}/"),
        &format!("{SHARED}/../../x"),
        &format!("{SHARED}x/y"),
        &format!("{SHARED}/v/a\0b"),
        &format!("{SHARED}/v/{}", "n".repeat(300)),
    ] {
        expect_code(copy(&guest, &at(path)).await, Code::INVALID_ARGUMENT);
    }
    let good = entry("v/f", REGULAR | 0o644, b"12345");
    for bad in [
        CopyFileRequest { offset: -1, ..good.clone() },
        CopyFileRequest { offset: 2, ..good.clone() },
        CopyFileRequest { file_size: -5, ..good.clone() },
        CopyFileRequest { file_size: 4, ..good.clone() },
        CopyFileRequest { offset: i64::MAX, file_size: i64::MAX, ..good.clone() },
        CopyFileRequest { file_mode: 0o020_600, ..good.clone() },
    ] {
        expect_code(copy(&guest, &bad).await, Code::INVALID_ARGUMENT);
    }
    let text = expect_code(copy(&guest, &at("/etc/passwd")).await, Code::INVALID_ARGUMENT);
    assert!(text.contains("/etc/passwd"), "{text}");
    let container = with_volume(&guest, "c1", "v").await?;
    assert_eq!(container.sh("ls -A /vol").await?, "");
    Ok(())
}
