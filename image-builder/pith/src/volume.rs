//! `volume`: manages named directories of this host that outlive pods.
//!
//! `run -v NAME:PATH` creates one. Promises not to remove a volume that a pod uses. This includes pods that have ended and can
//! be started again.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use pods::run::state::{Phase, PodRecord};
use serde::Serialize;

use crate::global::{Global, columns, state};
use crate::request::{is_label, volumes};

/// In front of the name of a volume that is being removed; no volume's name has a dot.
const GOING: &str = ".removed-";

/// Arguments of `volume`.
#[derive(Debug, Args)]
pub struct VolumeArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List volumes, and the pods that use them.
    Ls(LsArgs),
    /// Make volumes. `run -v NAME:PATH` makes one, too.
    Create(NamesArgs),
    /// Remove volumes and all that is in them. A volume that a pod uses stays.
    Rm(RmArgs),
    /// Remove all volumes that no pod uses. A pod that has ended uses its volumes until `pith rm` removes it.
    Prune,
    /// Show where volumes are, how much they hold, and which pods use them, as JSON.
    Inspect(NamesArgs),
}

#[derive(Debug, Args)]
struct LsArgs {
    /// Print only names.
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, Args)]
struct NamesArgs {
    /// The volumes.
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
}

#[derive(Debug, Args)]
struct RmArgs {
    /// The volumes.
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    /// Also remove volumes of pods that have ended. If such a pod is started again, its volume is empty.
    #[arg(short, long)]
    force: bool,
}

/// A volume.
#[derive(Debug, Serialize)]
struct Volume {
    name: String,
    path: PathBuf,
    /// Pods that run.
    used_by: Vec<String>,
    /// Pods that have ended, and can be started again.
    kept_for: Vec<String>,
}

/// What takes a look into it to know.
#[derive(Debug, Serialize)]
struct Inspected {
    #[serde(flatten)]
    volume: Volume,
    /// When its top directory was changed last, in seconds since 1970.
    changed: Option<u64>,
    /// What it takes on disk.
    bytes: u64,
    files: u64,
}

impl VolumeArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// When there is no such volume, or when one is in use.
    pub fn execute(self, global: &Global) -> anyhow::Result<()> {
        let place = volumes(&|name| std::env::var_os(name))?;
        let pods = state().all()?;
        match self.verb {
            Verb::Ls(args) => {
                let all = list(&place, &pods)?;
                global.print(&all, || if args.quiet { names(&all).join("\n") } else { table(&all) })
            }
            Verb::Create(args) => {
                for name in &args.names {
                    ensure!(
                        is_label(name),
                        "{name:?} is no name of a volume; use lower-case letters, digits and hyphens"
                    );
                    let path = place.join(name);
                    ensure!(!path.exists(), "there is a volume {name:?} already");
                    fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
                }
                global.print(&args.names, || args.names.join("\n"))
            }
            Verb::Rm(args) => {
                // All are looked at before any is removed.
                for name in &args.names {
                    may_go(&find(&place, &pods, name)?, args.force)?;
                }
                remove(&place, args.names, global)
            }
            Verb::Prune => {
                let mut all = list(&place, &pods)?;
                all.retain(|volume| may_go(volume, false).is_ok());
                remove(&place, names(&all), global)
            }
            Verb::Inspect(args) => {
                let found: Vec<Inspected> = args
                    .names
                    .iter()
                    .map(|name| inspect(find(&place, &pods, name)?))
                    .collect::<anyhow::Result<_>>()?;
                // As `inspect` of pods: always JSON.
                Global { json: true, ..global.clone() }.print(&found, String::new)
            }
        }
    }
}

fn names(volumes: &[Volume]) -> Vec<String> {
    volumes.iter().map(|volume| volume.name.clone()).collect()
}

fn table(volumes: &[Volume]) -> String {
    let mut rows = vec![["VOLUME", "USED BY", "PATH"].map(str::to_owned)];
    for volume in volumes {
        let ended = volume.kept_for.iter().map(|pod| format!("{pod} (ended)"));
        let pods: Vec<String> = volume.used_by.iter().cloned().chain(ended).collect();
        rows.push([volume.name.clone(), pods.join(", "), volume.path.display().to_string()]);
    }
    columns(&rows)
}

/// All volumes by name.
fn list(place: &Path, pods: &[PodRecord]) -> anyhow::Result<Vec<Volume>> {
    let entries = match fs::read_dir(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("cannot list {}", place.display()))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list {}", place.display()))?;
        let name = entry.file_name().into_string().ok().filter(|name| is_label(name));
        if let Some(name) = name.filter(|_| entry.path().is_dir()) {
            found.push(volume(place, pods, name));
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn volume(place: &Path, pods: &[PodRecord], name: String) -> Volume {
    let path = place.join(&name);
    let using = |ended: bool| {
        let pods = pods.iter().filter(|pod| (pod.phase == Phase::Ended) == ended);
        let pods = pods.filter(|pod| pod.folders.iter().any(|folder| folder.starts_with(&path)));
        pods.map(|pod| pod.name.clone()).collect()
    };
    let (used_by, kept_for) = (using(false), using(true));
    Volume { name, path, used_by, kept_for }
}

fn find(place: &Path, pods: &[PodRecord], name: &str) -> anyhow::Result<Volume> {
    if is_label(name) && place.join(name).is_dir() {
        return Ok(volume(place, pods, name.to_owned()));
    }
    let known = names(&list(place, pods)?);
    let known = if known.is_empty() { "there is none".to_owned() } else { known.join(", ") };
    bail!("there is no volume {name:?}; volumes: {known}")
}

/// Whether it may be removed.
fn may_go(volume: &Volume, force: bool) -> anyhow::Result<()> {
    let Volume { name, used_by, kept_for, .. } = volume;
    if let Some(pod) = used_by.first() {
        bail!(
            "volume {name:?} is used by pod {pod:?}, which is running; end it first with `pith stop {pod}`"
        );
    }
    match kept_for.first() {
        Some(pod) if !force => bail!(
            "volume {name:?} is kept for pod {pod:?}, which has ended; remove that with `pith rm {pod}`, or use --force"
        ),
        _ => Ok(()),
    }
}

fn remove(place: &Path, names: Vec<String>, global: &Global) -> anyhow::Result<()> {
    // What an earlier command was killed over.
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(GOING) {
            fs::remove_dir_all(entry.path()).ok();
        }
    }
    for name in &names {
        let (path, going) = (place.join(name), place.join(format!("{GOING}{name}")));
        // Its name is free at once; a pod that is started now has an empty one.
        let gone = fs::rename(&path, &going).and_then(|()| fs::remove_dir_all(&going));
        gone.with_context(|| format!("cannot remove {}", path.display()))?;
    }
    global.print(&names, || names.join("\n"))
}

fn inspect(volume: Volume) -> anyhow::Result<Inspected> {
    let changed = fs::metadata(&volume.path).and_then(|metadata| metadata.modified()).ok();
    let changed = changed.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map(|time| time.as_secs());
    let (mut bytes, mut files) = (0, 0);
    let mut left = vec![volume.path.clone()];
    while let Some(directory) = left.pop() {
        let entries = match fs::read_dir(&directory) {
            // A pod may be at work in it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries.with_context(|| format!("cannot list {}", directory.display()))?,
        };
        for entry in entries.flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            bytes += metadata.blocks() * 512;
            if metadata.is_dir() { left.push(entry.path()) } else { files += 1 }
        }
    }
    Ok(Inspected { volume, changed, bytes, files })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, phase: &str, folder: &Path) -> PodRecord {
        let value = serde_json::json!({
            "name": name, "pid": 1, "phase": phase, "started": 0, "accel": null, "endpoint": null,
            "containers": [], "timings": pods::run::timing::Timings::default(), "folders": [folder],
        });
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn only_what_no_pod_uses_may_go() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("volumes");
        assert!(list(&place, &[]).unwrap().is_empty());
        for name in ["free", "ended", "busy", ".removed-x", "No-Volume"] {
            fs::create_dir_all(place.join(name)).unwrap();
        }
        fs::write(place.join("file"), "").unwrap();
        let pods =
            [pod("old", "ended", &place.join("ended")), pod("web", "running", &place.join("busy/part"))];
        let all = list(&place, &pods).unwrap();
        assert_eq!(names(&all), ["busy", "ended", "free"]);
        let error = |name: &str, force: bool| {
            let volume = find(&place, &pods, name).unwrap();
            may_go(&volume, force).err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert_eq!((error("free", false), error("ended", true)), (String::new(), String::new()));
        assert!(error("ended", false).contains("pith rm old"));
        assert!(error("busy", true).contains("pith stop web"));
        assert!(table(&all).contains("old (ended)"));
        remove(&place, vec!["free".to_owned()], &Global::default()).unwrap();
        assert!(!place.join("free").exists() && !place.join(".removed-x").exists());
        for name in ["free", "../volumes", "", "No-Volume"] {
            let error = find(&place, &pods, name).unwrap_err().to_string();
            assert!(error.contains("busy, ended"), "{error}");
        }
    }

    #[test]
    fn what_a_volume_holds_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("v/a/b")).unwrap();
        fs::write(dir.path().join("v/a/b/file"), vec![1; 100_000]).unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("v/out")).unwrap();
        let found = inspect(find(dir.path(), &[], "v").unwrap()).unwrap();
        assert_eq!(found.files, 2, "a link is not followed");
        assert!((100_000..1_000_000).contains(&found.bytes), "{}", found.bytes);
    }
}
