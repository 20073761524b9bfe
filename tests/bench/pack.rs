//! What it takes to make an EROFS of a directory: ours and each `mkfs.erofs` that is found, which take turns.
//!
//! Promises that all make the same kind of file system (not compressed, blocks of 4096 bytes, all metadata kept) of the same
//! tree right after one another, so that a busy moment of the host hits all alike, and that processor time stands beside the
//! time on the wall. Must never assert a time: it prints.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use serde_json::json;
use store::cache::Cache;
use store::digest::Digest;
use tests::figures::Durations;

const USAGE: &str = "usage: bench-pack [--rounds N] [--mkfs PROGRAM]... [--against PROGRAM] [--json] [DIRECTORY]...\n\
    Packs each DIRECTORY as EROFS, in N rounds (9 unless told), and prints medians and ratios. Without DIRECTORY, three root file\n\
    systems are unpacked from Debian packages. mkfs.erofs on PATH takes turns with ours, and so does each PROGRAM of --mkfs.\n\
    --against takes the bench-pack of another tree. `bench-pack --large` packs an OCI image of 2 GiB, and prints the most memory\n\
    that this took. Build it with --release.";

/// One of those who take turns.
struct Contender {
    name: String,
    kind: Kind,
}

enum Kind {
    /// A bench-pack: only the file system.
    Pack(PathBuf),
    /// A bench-pack: as `pith run` does it, with a digest of the disk, in the cache, and waiting for the hardware.
    Prepare(PathBuf),
    Mkfs(PathBuf),
}

impl Contender {
    fn command(&self, tree: &Path, work: &Path) -> Command {
        let disk = work.join("disk");
        let (program, mode) = match &self.kind {
            Kind::Pack(program) => (program, Some("--pack")),
            Kind::Prepare(program) => (program, Some("--prepare")),
            Kind::Mkfs(program) => (program, None),
        };
        let mut command = Command::new(program);
        match mode {
            Some(mode) => command.arg(mode).arg(tree).arg(work),
            None => command.args(OPTIONS).arg(disk).arg(tree),
        };
        command.stdout(Stdio::null());
        command
    }
}

const OPTIONS: [&str; 3] = ["--quiet", "-U", "61d4a1a4-5d58-8b3c-9c2f-2b8f3d1f0a77"];

#[derive(Default)]
struct Taken {
    wall: Durations,
    processor: Durations,
    bytes: u64,
}

fn main() -> Result<()> {
    let (mut rounds, mut as_json, mut others, mut programs, mut trees) =
        (9, false, Vec::new(), Vec::new(), Vec::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut next = || arguments.next().map(PathBuf::from).context(USAGE);
        match argument.as_str() {
            "--pack" => return pack(&next()?, &next()?),
            "--prepare" => return prepare(&next()?, &next()?),
            "--large" => return large(),
            "--rounds" => rounds = next()?.to_str().and_then(|text| text.parse().ok()).context(USAGE)?,
            "--mkfs" => programs.push(next()?),
            "--against" => others.push(next()?),
            "--json" => as_json = true,
            "--help" | "-h" => {
                println!("{USAGE}");
                return Ok(());
            }
            option if option.starts_with('-') => bail!(USAGE),
            path => trees.push(PathBuf::from(path)),
        }
    }
    ensure!(rounds > 0, USAGE);
    if cfg!(debug_assertions) {
        eprintln!("this bench-pack is not optimised: build it with --release");
    }
    if trees.is_empty() {
        trees = default_trees()?;
    }
    let contenders = contenders(&others, programs)?;
    let mut figures = Vec::new();
    for tree in &trees {
        let taken = measure(tree, &contenders, rounds)?;
        let entries = below(tree)?.len();
        for (contender, Taken { wall, processor, bytes }) in contenders.iter().zip(&taken) {
            let ms = |times: &Durations| times.percentile(50).as_secs_f64() * 1e3;
            let ratio = |other: &Durations, own: &Durations| ms(own) / ms(other);
            figures.push(json!({
                "tree": tree,
                "entries": entries,
                "program": contender.name,
                "bytes": bytes,
                "cpu_ms": ms(processor),
                "wall_ms": ms(wall),
                "cpu_ratio": ratio(processor, &taken[0].processor),
                "wall_ratio": ratio(wall, &taken[0].wall),
            }));
        }
    }
    print(&figures, rounds, as_json)
}

fn print(figures: &[serde_json::Value], rounds: usize, as_json: bool) -> Result<()> {
    if as_json {
        println!("{}", serde_json::to_string_pretty(&json!({ "rounds": rounds, "figures": figures }))?);
        return Ok(());
    }
    println!(
        "EROFS of directories, medians of {rounds} rounds taking turns; a ratio is ours to the program's"
    );
    println!("mkfs.erofs is called with {}", OPTIONS.join(" "));
    println!(
        "{:<16} {:>7} {:<34} {:>11} {:>8} {:>6} {:>8} {:>6}",
        "tree", "entries", "program", "bytes", "CPU ms", "ratio", "wall ms", "ratio"
    );
    for figure in figures {
        let tree = Path::new(figure["tree"].as_str().unwrap_or_default());
        println!(
            "{:<16} {:>7} {:<34} {:>11} {:>8.1} {:>6.2} {:>8.1} {:>6.2}",
            tree.file_name().unwrap_or_default().to_string_lossy(),
            figure["entries"].as_u64().unwrap_or_default(),
            figure["program"].as_str().unwrap_or_default(),
            figure["bytes"].as_u64().unwrap_or_default(),
            figure["cpu_ms"].as_f64().unwrap_or_default(),
            figure["cpu_ratio"].as_f64().unwrap_or_default(),
            figure["wall_ms"].as_f64().unwrap_or_default(),
            figure["wall_ratio"].as_f64().unwrap_or_default(),
        );
    }
    Ok(())
}

fn default_trees() -> Result<Vec<PathBuf>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/trees.sh");
    let output = Command::new(&script).stderr(Stdio::inherit()).output().context("running trees.sh")?;
    ensure!(output.status.success(), "{} failed", script.display());
    Ok(String::from_utf8(output.stdout)?.lines().map(PathBuf::from).collect())
}

/// Ours first.
fn contenders(others: &[PathBuf], programs: Vec<PathBuf>) -> Result<Vec<Contender>> {
    let own = std::env::current_exe()?;
    let mut found = vec![
        Contender { name: "image-builder".to_owned(), kind: Kind::Pack(own.clone()) },
        Contender { name: "image-builder, digest and fsync".to_owned(), kind: Kind::Prepare(own) },
    ];
    for other in others {
        let name = format!("image-builder of {}", other.display());
        found.push(Contender { name, kind: Kind::Pack(other.clone()) });
    }
    let of_the_path = Path::new("mkfs.erofs").to_path_buf();
    for program in [of_the_path].into_iter().chain(programs) {
        // Some versions say -V is no option, and then what version they are all the same.
        let said = Command::new(&program).arg("-V").output();
        let said = said.with_context(|| format!("{}; install erofs-utils", program.display()))?;
        let said = [said.stdout, said.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        let version = said.lines().find(|line| line.contains("mkfs.erofs")).unwrap_or_default().to_owned();
        found.push(Contender { name: version, kind: Kind::Mkfs(program) });
    }
    Ok(found)
}

fn measure(tree: &Path, contenders: &[Contender], rounds: usize) -> Result<Vec<Taken>> {
    let tree = tree.canonicalize().with_context(|| format!("{}", tree.display()))?;
    let mut taken: Vec<Taken> = contenders.iter().map(|_| Taken::default()).collect();
    // One more than is counted: the first brings the tree into the page cache.
    for round in 0..=rounds {
        for turn in 0..contenders.len() {
            // Who goes first changes as well.
            let at = (round + turn) % contenders.len();
            let work = tempfile::tempdir()?;
            let mut command = contenders[at].command(&tree, work.path());
            let (before, begun) = (processor()?, Instant::now());
            let status = command.status().with_context(|| contenders[at].name.clone())?;
            let (wall, processor) = (begun.elapsed(), processor()? - before);
            ensure!(status.success(), "{} failed: {status}", contenders[at].name);
            taken[at].bytes = largest(work.path())?;
            if round > 0 {
                taken[at].wall.push(wall);
                taken[at].processor.push(processor);
            }
        }
        eprintln!("{}: round {round} of {rounds}", tree.display());
    }
    Ok(taken)
}

/// What all children took so far, in the kernel and outside.
fn processor() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let time = usage.user_time() + usage.system_time();
    Ok(Duration::new(u64::try_from(time.tv_sec())?, u32::try_from(time.tv_usec())? * 1000))
}

/// Everything below a directory.
fn below(directory: &Path) -> Result<Vec<std::fs::Metadata>> {
    let mut found = Vec::new();
    let mut pending = vec![directory.to_path_buf()];
    while let Some(at) = pending.pop() {
        for entry in std::fs::read_dir(at)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                pending.push(entry.path());
            }
            found.push(metadata);
        }
    }
    Ok(found)
}

/// Bytes of the largest file below a directory: the file system.
fn largest(directory: &Path) -> Result<u64> {
    let found = below(directory)?;
    Ok(found.iter().filter(|found| found.is_file()).map(std::fs::Metadata::len).max().unwrap_or_default())
}

fn pack(tree: &Path, work: &Path) -> Result<()> {
    let cache = Cache::new(work.join("cache"));
    images::image::pack(&tree.to_string_lossy(), &work.join("disk"), &cache)?;
    Ok(())
}

fn prepare(tree: &Path, work: &Path) -> Result<()> {
    images::image::prepare(&tree.to_string_lossy(), &Cache::new(work.join("cache")))?;
    Ok(())
}

/// Packs an image of 2 GiB in twenty files, and prints how much memory this process had at the most.
fn large() -> Result<()> {
    const FILES: u64 = 20;
    const EACH: u64 = (2 << 30) / FILES;
    let work = tempfile::tempdir()?;
    let image = work.path().join("image");
    let blobs = image.join("blobs/sha256");
    std::fs::create_dir_all(&blobs)?;
    let layer = work.path().join("layer.tar");
    let mut archive = tar::Builder::new(std::fs::File::create(&layer)?);
    for number in 0..FILES {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(EACH);
        let content = std::io::Read::take(std::io::repeat(7), EACH);
        archive.append_data(&mut header, format!("large/{number}"), content)?;
    }
    archive.into_inner()?.flush()?;
    let (diff_id, size) = Digest::of_file(&layer)?;
    std::fs::rename(&layer, blobs.join(diff_id.to_string()))?;
    let document = |value: serde_json::Value| -> Result<(String, usize)> {
        let bytes = value.to_string();
        let digest = Digest::of(bytes.as_bytes());
        std::fs::write(blobs.join(digest.to_string()), &bytes)?;
        Ok((format!("sha256:{digest}"), bytes.len()))
    };
    let config = document(json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{diff_id}")]},
    }))?;
    let manifest = document(json!({
        "schemaVersion": 2,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config.0, "size": config.1},
        "layers": [{
            "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": format!("sha256:{diff_id}"), "size": size,
        }],
    }))?;
    let index = json!({"schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": manifest.0, "size": manifest.1,
    }]});
    std::fs::write(image.join("index.json"), index.to_string())?;
    std::fs::write(image.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    // Another process: this one has made the image.
    let packed = work.path().join("packed");
    std::fs::create_dir(&packed)?;
    let mut child = Command::new(std::env::current_exe()?).arg("--pack").arg(&image).arg(&packed).spawn()?;
    ensure!(child.wait()?.success(), "packing failed");
    let most = getrusage(UsageWho::RUSAGE_CHILDREN)?.max_rss();
    println!("an OCI image of {FILES} files, {} bytes: at the most {most} KiB of memory", EACH * FILES);
    Ok(())
}
