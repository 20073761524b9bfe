//! `cp`: files between a container and this host.
//!
//! What comes from a container is hostile: it is unpacked only below the destination, within bounds. A signal ends the copy,
//! and files that are not whole are removed.

mod archive;
mod place;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, IsTerminal as _, Read, Write};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use machine::vm::AgentClient;
use parcel::{Copied, Options, Owner};
use pods::run::courier::{Courier, There};
use pods::run::exec::{ExecStreams, WRITE};
use pods::run::quantity;
use pods::run::state::ContainerRecord;
use serde_json::json;
use store::progress::{Progress, Step, bytes};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::global::{Global, state};
use crate::signals::End as Signals;
use archive::Bounds;
use place::{End, Source, Target};

/// The most files of a copy out of a container.
const MOST_ENTRIES: u64 = 10_000_000;
/// How often the progress is shown.
const SHOWN: Duration = Duration::from_millis(200);
/// How long what was begun may take to be undone.
const UNDONE_WITHIN: Duration = Duration::from_secs(5);

/// Arguments of `cp`.
#[derive(Debug, Args)]
pub struct CopyArgs {
    /// Keep the numbers of owner and group. Without this, copies belong to the container's user, and on this host to you.
    #[arg(long)]
    keep_owner: bool,
    /// The most that is copied out of a container.
    #[arg(long, value_name = "SIZE", default_value = "64Gi", value_parser = quantity::bytes)]
    max_size: u64,
    /// What to copy: a path of this host, POD:PATH or POD/CONTAINER:PATH, or `-` for a tar archive on standard input. `PATH/.`
    /// copies what is in a directory.
    #[arg(value_name = "SRC", value_parser = place::parse)]
    source: End,
    /// Where to copy it. If this is a directory, the copy is made in it. `-` writes a tar archive to standard output.
    #[arg(value_name = "DST", value_parser = place::parse)]
    target: End,
}

impl CopyArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// When the pod does not run, when something cannot be read or written, or when there is more than the bounds allow.
    pub async fn execute(self, global: &Global) -> anyhow::Result<ExitCode> {
        let (word, name) = match (&self.source, &self.target) {
            (End::Container { .. }, End::Container { .. }) => bail!(
                "one of SRC and DST must be on this host; between containers, use `pith cp A:PATH - | pith cp - B:PATH`"
            ),
            (End::Container { pod, container, .. }, _) | (_, End::Container { pod, container, .. }) => {
                (pod, container.as_deref())
            }
            _ => bail!("neither SRC nor DST is in a container; write POD:PATH, or POD/CONTAINER:PATH"),
        };
        ensure!(
            self.target != End::Stream || !io::stdout().is_terminal(),
            "a tar archive is not for a terminal; redirect standard output to a file or a program"
        );
        let mut signals = Signals::listen()?;
        let (_, record) = state().find(word)?;
        let container = record.container(name.or(record.container_in(word)))?;
        let client = AgentClient::connect(record.endpoint()?).await?;
        let courier = Courier::start(&client, &record, container).await?;
        let mut shown = Shown::new(global.progress());
        let result = match (&self.source, &self.target) {
            (End::Container { path, .. }, target) => {
                self.get(&courier, path, target, &mut shown, &mut signals).await
            }
            (source, End::Container { path, .. }) => {
                self.put(&courier, source, container, path, &mut shown, &mut signals).await
            }
            _ => unreachable!("one end is in a container"),
        };
        courier.end().await;
        let done = match result? {
            Ended::Done(done) => done,
            Ended::Signal(number) => {
                eprintln!("stopped by signal {number}; files that were not whole were removed");
                return Ok(ExitCode::from(128 + number));
            }
        };
        shown.done(&done);
        if done.skipped > 0 && !global.json {
            eprintln!("pith: {} devices, FIFOs and sockets were not copied", done.skipped);
        }
        if global.json && self.target != End::Stream {
            let value = json!({"entries": done.entries, "bytes": done.bytes, "skipped": done.skipped});
            global.print(&value, String::new)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Out of a container.
    async fn get(
        &self,
        courier: &Courier,
        path: &str,
        target: &End,
        shown: &mut Shown,
        signals: &mut Signals,
    ) -> anyhow::Result<Ended> {
        let is_directory = match courier.look(path).await? {
            There::Directory => true,
            There::File => false,
            There::Other => bail!("{path} in the container is neither a file nor a directory"),
            There::Nothing => bail!("there is no {path} in the container"),
        };
        let source = Source::new(path, is_directory);
        let bounds = Bounds { bytes: self.max_size, entries: MOST_ENTRIES };
        let (ours, theirs) = UnixStream::pair().context("cannot make a pair of sockets")?;
        theirs.set_nonblocking(true).context("cannot set up a socket")?;
        let theirs = tokio::net::UnixStream::from_std(theirs).context("cannot set up a socket")?;
        let input = Counted { stream: ours, count: Arc::clone(&shown.count) };
        let mut taker: JoinHandle<anyhow::Result<Copied>> = match target {
            End::Here(path) => {
                let path = path.to_str().context("DST is not UTF-8")?;
                let Target { directory, name } = place::target(&source, path, place::look(Path::new(path))?)?;
                let into = File::open(&directory).with_context(|| format!("cannot open {directory}"))?;
                let owner = if self.keep_owner { Owner::Stream } else { Owner::Own };
                let options = Options {
                    owner,
                    // A container must not leave programs here that run as somebody else.
                    set_id: false,
                    most_bytes: bounds.bytes,
                    most_entries: bounds.entries,
                };
                tokio::task::spawn_blocking(move || {
                    let mut input = io::BufReader::with_capacity(64 << 10, input);
                    let name = name.as_deref().map(OsStr::new);
                    Ok(parcel::unpack(&mut input, into.as_fd(), name, &options)?)
                })
            }
            _ => tokio::task::spawn_blocking(move || {
                let mut input = io::BufReader::with_capacity(64 << 10, input);
                let mut out = io::BufWriter::with_capacity(64 << 10, io::stdout().lock());
                archive::to_tar(&mut input, &mut out, source.name.as_deref(), bounds)
            }),
        };
        let streams = ExecStreams { stdout: Box::new(theirs), ..ExecStreams::none() };
        let order = ["pack", path];
        let mut pack = Box::pin(courier.run(&order, streams));
        let (taken, words) = tokio::select! {
            taken = &mut taker => {
                let taken = joined(taken);
                // Whoever failed first has the better reason: its own end may be why the other one failed.
                let words = if taken.is_err() { tokio::time::timeout(UNDONE_WITHIN, pack).await.ok() } else { None };
                (taken, words)
            }
            packed = &mut pack => {
                // All that it wrote is on its way, and then the end.
                drop(pack);
                (joined(taker.await), Some(packed))
            }
            number = signals.next() => {
                drop(pack);
                drop(tokio::time::timeout(UNDONE_WITHIN, taker).await);
                return Ok(Ended::Signal(number));
            }
            () = shown.show() => unreachable!("it goes on for ever"),
        };
        match (taken, words) {
            (Ok(done), _) => Ok(Ended::Done(done)),
            (Err(_), Some(Ok((code, words)))) if code != 0 && !words.is_empty() => bail!("{words}"),
            (Err(error), _) => Err(error),
        }
    }

    /// Into a container.
    async fn put(
        &self,
        courier: &Courier,
        source: &End,
        container: &ContainerRecord,
        path: &str,
        shown: &mut Shown,
        signals: &mut Signals,
    ) -> anyhow::Result<Ended> {
        let there = courier.look(path).await?;
        let (to_guest, mut from_here) = mpsc::channel::<Vec<u8>>(4);
        let out = Pieces { to: to_guest, count: Arc::clone(&shown.count) };
        let (target, giver): (Target, JoinHandle<anyhow::Result<Copied>>) = match source {
            End::Here(from) => {
                let text = from.to_str().context("SRC is not UTF-8")?;
                let file = File::open(from).with_context(|| format!("cannot read {text}"))?;
                let kind = file.metadata().with_context(|| format!("cannot look at {text}"))?.file_type();
                ensure!(kind.is_dir() || kind.is_file(), "{text} is neither a file nor a directory");
                let target = place::target(&Source::new(text, kind.is_dir()), path, there)?;
                let giver = tokio::task::spawn_blocking(move || {
                    let mut out = io::BufWriter::with_capacity(WRITE, out);
                    Ok(parcel::pack(file.into(), &mut out)?)
                });
                (target, giver)
            }
            _ => {
                ensure!(
                    there == There::Directory,
                    "{path} in the container is not a directory; an archive is unpacked in a directory that is there"
                );
                let giver = tokio::task::spawn_blocking(move || {
                    let mut out = io::BufWriter::with_capacity(WRITE, out);
                    archive::from_tar(&mut io::stdin().lock(), &mut out)
                });
                (Target { directory: path.to_owned(), name: None }, giver)
            }
        };
        let owner = if self.keep_owner {
            "-".to_owned()
        } else {
            format!("{}:{}", container.process.uid, container.process.gid)
        };
        // In between, so that the guest's input can end while the other thread stands in a read.
        let (pass, passed) = mpsc::channel(1);
        let relay = tokio::spawn(async move {
            while let Some(piece) = from_here.recv().await {
                if pass.send(piece).await.is_err() {
                    return;
                }
            }
        });
        let mut order = vec!["unpack", &owner, &target.directory];
        order.extend(target.name.as_deref());
        let mut unpack =
            Box::pin(courier.run(&order, ExecStreams { stdin: Some(passed), ..ExecStreams::none() }));
        let (code, words) = tokio::select! {
            unpacked = &mut unpack => unpacked?,
            number = signals.next() => {
                // Its input ends here, and it removes what is not whole.
                relay.abort();
                drop(tokio::time::timeout(UNDONE_WITHIN, unpack).await);
                return Ok(Ended::Signal(number));
            }
            () = shown.show() => unreachable!("it goes on for ever"),
        };
        relay.abort();
        if code == 0 {
            return joined(giver.await).map(Ended::Done);
        }
        // It may stand in a read of standard input that nobody ends.
        let given = tokio::time::timeout(SHOWN, giver).await.ok().map(joined);
        match given {
            // What could not be read here; that the guest took no more is told by the guest.
            Some(Err(error)) if !is_refusal(&error) => Err(error),
            _ if words.is_empty() => bail!("the copy failed with status {code}"),
            _ => bail!("{words}"),
        }
    }
}

/// How a copy ended.
enum Ended {
    Done(Copied),
    Signal(u8),
}

/// Whether an error is that the other end takes no more.
fn is_refusal(error: &anyhow::Error) -> bool {
    let is = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    match error.downcast_ref() {
        Some(parcel::TreeError::Stream(error)) => is(error),
        Some(_) => false,
        None => error.downcast_ref().is_some_and(is),
    }
}

fn joined<T>(result: Result<anyhow::Result<T>, tokio::task::JoinError>) -> anyhow::Result<T> {
    result.unwrap_or_else(|error| Err(anyhow::Error::from(error).context("the copy has failed")))
}

/// How far a copy has come, as the user sees it.
struct Shown {
    step: Step,
    count: Arc<AtomicU64>,
}

impl Shown {
    fn new(progress: Progress) -> Self {
        Self { step: progress.step("copy", None), count: Arc::default() }
    }

    /// Shows it again and again.
    async fn show(&mut self) {
        loop {
            tokio::time::sleep(SHOWN).await;
            self.step.say(&bytes(self.count.load(Ordering::Relaxed)));
        }
    }

    fn done(self, done: &Copied) {
        self.step.done(&format!("{} files, {}", done.entries, bytes(done.bytes)));
    }
}

/// Counts what is read.
struct Counted {
    stream: UnixStream,
    count: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.stream.read(buffer)?;
        self.count.fetch_add(got as u64, Ordering::Relaxed);
        Ok(got)
    }
}

/// Sends what is written in pieces that the guest takes.
struct Pieces {
    to: mpsc::Sender<Vec<u8>>,
    count: Arc<AtomicU64>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = &bytes[..bytes.len().min(WRITE)];
        self.to.blocking_send(piece.to_vec()).map_err(|_| io::ErrorKind::BrokenPipe)?;
        self.count.fetch_add(piece.len() as u64, Ordering::Relaxed);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
