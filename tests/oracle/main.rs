//! The oracle: the same bundles through our runtime, crun and runc, in the same guest. What a probe sees inside must be
//! the same, but for the differences that are listed with their reason.
//!
//! crun and runc are Debian's packages of the machine that runs the tests.

mod bundle;
mod differences;
mod document;
mod engine;
mod report;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use products::place::Place;
use tests::{Guest, GuestBuilder};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use bundle::Bundle;
use differences::{KNOWN, Known, OF_ENGINES};
use report::{Difference, Reports, Run};

/// How long one run may say nothing: emulation is slow, and a runtime may take its whole minute.
const SILENCE: Duration = Duration::from_secs(120);

/// How long a guest whose console has ended may take to switch itself off.
const GRACE: Duration = Duration::from_secs(5);

/// Runtimes that ours is compared with.
const OTHERS: [&str; 2] = ["crun", "runc"];
/// Ours, with a root that is moved onto `/` in the place of pivot_root(2): what a guest does whose root cannot be pivoted.
const MOVED: &str = "moved";

/// The guest that runs bundles by all runtimes, and once more in each way that `more` names for `run.sh`.
fn guest(bundles: &[Bundle], more: &str) -> Result<GuestBuilder> {
    let words = ["agent.debug_console", "agent.debug_console_vport=1026"];
    let mut builder = Guest::builder().flavour("debug").cpus(2).memory(1024).cmdline(&words);
    // The two share libraries.
    let mut files = Place::machine().closure("crun", &["/usr/bin/crun".into()])?;
    files.extend(Place::machine().closure("runc", &["/usr/sbin/runc".into()])?);
    for (path, node) in files {
        builder = builder.node(&path, node);
    }
    for name in ["jail", "probe"] {
        builder = builder.program(&format!("/oracle/{name}"), name)?;
    }
    builder = builder.file("/oracle/run.sh", include_str!("run.sh")).file("/oracle/more", more);
    for bundle in bundles {
        let file = |name: &str| format!("/oracle/bundle/{}/{name}", bundle.name);
        builder = builder
            .file(&file("config.json"), &bundle.spec.to_string())
            .file(&file("prepare"), &bundle.prepare)
            .file(&file("after"), &bundle.after);
    }
    Ok(builder)
}

/// How much of a text an error shows, in bytes.
const TAIL: usize = 2000;

/// The end of a text.
fn tail(text: &[u8]) -> String {
    String::from_utf8_lossy(&text[text.len().saturating_sub(TAIL)..]).into_owned()
}

/// Runs all of it; gives what was printed. The copy has what came so far even if the run fails.
async fn run(guest: &Guest, mut copy: Option<File>) -> Result<String> {
    let mut console = guest.vm().dial(1026).await?;
    // What is typed is echoed: the first mark must not be taken for the last.
    console.write_all(b"stty -echo; sh /oracle/run.sh; echo @@'over'\n").await?;
    let mut all = Vec::new();
    let mut buffer = vec![0; 65536];
    loop {
        let count = tokio::time::timeout(SILENCE, console.read(&mut buffer)).await;
        let count = count.with_context(|| format!("waiting for more after {}", tail(&all)))??;
        if count == 0 {
            let state = if guest.vm().wait_off(GRACE).await { "is off" } else { "still runs" };
            let log = guest.vm().console_log();
            bail!(
                "the console ended, the guest {state}; its log ends with\n{}\nafter\n{}",
                tail(log.as_bytes()),
                tail(&all)
            );
        }
        all.extend_from_slice(&buffer[..count]);
        if let Some(copy) = &mut copy {
            copy.write_all(&buffer[..count])?;
        }
        if all.windows(6).rev().take(buffer.len() + 6).any(|window| window == b"@@over") {
            return Ok(String::from_utf8_lossy(&all).replace('\r', ""));
        }
    }
}

#[tokio::test]
async fn bundles_are_seen_alike_by_whoever_runs_them() -> Result<()> {
    compare(bundle::all(), &[KNOWN], true).await
}

#[tokio::test]
async fn bundles_of_real_engines_are_seen_alike_by_whoever_runs_them() -> Result<()> {
    let all = engine::all();
    if std::env::var_os("ORACLE_ENGINES").is_some() || std::env::var_os("ORACLE").is_some() {
        return compare(all, &[OF_ENGINES, KNOWN], true).await;
    }
    let count = all.len();
    let some: Vec<Bundle> = all.into_iter().filter(|bundle| SOME.contains(&bundle.name)).collect();
    ensure!(some.len() == SOME.len(), "a spec of SOME is not there");
    println!("{} of {count} specs of engines; `make oracle` runs all", SOME.len());
    compare(some, &[OF_ENGINES, KNOWN], false).await
}

/// The specs of engines that always run: some of each engine.
const SOME: [&str; 8] = [
    "containerd-1.6.20-userns",
    "containerd-1.7.24-privileged",
    "containerd-2.1.9-cdi",
    "containerd-2.1.9-seccomp",
    "docker-28.5.2-tmpfs",
    "docker-28.5.2-userns",
    "podman-5.4.2-init",
    "podman-5.8.6-plain",
];

/// Runs bundles by all runtimes. Each difference must be in one of the lists. If the bundles are all that the first list is of,
/// whatever is in it must be a difference; otherwise ours runs each bundle once more with a moved root, which must make no
/// difference.
async fn compare(mut bundles: Vec<Bundle>, lists: &[&[Known]], is_all: bool) -> Result<()> {
    // For people: only the bundles whose name has one of these in it, with commas between them.
    let only = std::env::var("ORACLE").ok();
    bundles.retain(|bundle| {
        only.as_ref().is_none_or(|only| only.split(',').any(|part| bundle.name.contains(part)))
    });
    let names: BTreeSet<_> = bundles.iter().map(|bundle| bundle.name).collect();
    assert_eq!(names.len(), bundles.len(), "two bundles have the same name");
    if bundles.is_empty() {
        println!("no bundle of this list has {only:?} in its name");
        return Ok(());
    }
    let text = match std::env::var_os("ORACLE_INPUT") {
        // For people who edit the list: what a former run has printed.
        Some(path) => std::fs::read_to_string(path)?.replace('\r', ""),
        None => {
            let copy = std::env::var_os("ORACLE_OUTPUT").map(File::create).transpose()?;
            let more = if is_all { "" } else { MOVED };
            run(&guest(&bundles, more)?.boot().await?, copy).await?
        }
    };
    let reports = Reports::parse(&text)?;
    let known_ones: Vec<&Known> = lists.iter().copied().flatten().collect();
    let mut unknown = Vec::new();
    let mut seen = BTreeSet::new();
    println!("{:<36} {:<10} {:<10}", "bundle", "crun", "runc");
    for bundle in &bundles {
        let ours = reports.run(bundle.name, "jail")?;
        let mut cells = Vec::new();
        for other in OTHERS {
            let theirs = reports.run(bundle.name, other)?;
            let (mut known, mut new) = (0, 0);
            for difference in reports.compare(bundle, ours, theirs) {
                match known_ones.iter().position(|entry| entry.covers(bundle.name, other, &difference)) {
                    Some(index) => {
                        seen.insert(index);
                        known += 1;
                    }
                    None => {
                        new += 1;
                        unknown.push((bundle.name, other, difference));
                    }
                }
            }
            cells.push(match (new, known) {
                (0, 0) => "same".to_owned(),
                (0, known) => format!("{known} listed"),
                (new, _) => format!("{new} NEW"),
            });
        }
        println!("{:<36} {:<10} {:<10}", bundle.name, cells[0], cells[1]);
        check_ours(bundle, ours)?;
        if !is_all {
            let moved = reports.run(bundle.name, MOVED)?;
            let differences = reports.compare(bundle, ours, moved);
            ensure!(differences.is_empty(), "{} with a moved root: {differences:?}", bundle.name);
            check_ours(bundle, moved)?;
        }
    }
    for (bundle, other, Difference { place, ours, theirs }) in &unknown {
        println!("\n{bundle}, {other}, {place}\n  jail {ours}\n  {other} {theirs}");
    }
    println!("\n{} bundles; {} differences that are not listed", bundles.len(), unknown.len());
    ensure!(unknown.is_empty(), "{} differences are not listed", unknown.len());
    if is_all && only.is_none() {
        let stale = lists[0].iter().enumerate().filter(|(index, _)| !seen.contains(index));
        let stale: Vec<&Known> = stale.map(|(_, entry)| entry).collect();
        ensure!(stale.is_empty(), "no difference any more: {stale:?}");
    }
    Ok(())
}

/// What must be so whatever others do: nothing is left, and what cannot be run says why.
fn check_ours(bundle: &Bundle, run: &Run) -> Result<()> {
    ensure!(run.left.is_empty(), "{} leaves {:?} behind", bundle.name, run.left);
    if bundle.is_refused {
        ensure!(
            run.status == 125 && run.said.starts_with("jail: "),
            "{}: status {}, {:?}",
            bundle.name,
            run.status,
            run.said
        );
    }
    Ok(())
}
