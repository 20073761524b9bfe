//! What the agent's work takes: calls, execs, statistics, streams and lives of containers, in a guest of this tree and, if told,
//! in one of another tree, which take turns.
//!
//! Promises that the two do each piece of work right after one another, so that a busy moment of the host hits both alike. Must
//! never assert a time: it prints.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use machine::vm::AgentClient;
use protocols::health::CheckRequest;
use serde_json::json;
use tests::figures::Durations;
use tests::{Container, ContainerBuilder, Guest, Machine, Options, dockers_profile};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;

const USAGE: &str = "usage: bench-work [--rounds N] [--against DIR] [--only WORDS] [--json]\n\
    Prints medians of N rounds (40 unless told) of what the agent does, in milliseconds: by the clock, and\n\
    of the machine's processor time.\n\
    With --against, a guest of the products in DIR (the out/ of another tree) takes turns with ours, and ratios are to it.\n\
    With --only, just the work whose name has one of the WORDS in it, which commas separate.";

/// One kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Check,
    Stats,
    Exec,
    ExecUnderProfile,
    Life,
    CreateFull,
    CreateMany,
    ReadSmall,
    ReadLarge,
    ReadPassed,
    Bare,
    Write,
}

/// Bytes that go through a standard stream.
const BULK: usize = 64 << 20;
/// Bytes of a call of a shim's.
const SMALL: usize = 32 << 10;
/// Bytes of a call of who wants it fast.
const LARGE: usize = 1 << 20;
/// Containers whose statistics are asked for.
const CROWD: usize = 50;
/// Containers that are created at once.
const MANY: usize = 100;
/// The vsock port of the bare copy.
const COPY_PORT: u32 = 5000;

impl Work {
    const ALL: [Work; 12] = [
        Work::Check,
        Work::Stats,
        Work::Exec,
        Work::ExecUnderProfile,
        Work::Life,
        Work::CreateFull,
        Work::CreateMany,
        Work::ReadSmall,
        Work::ReadLarge,
        Work::ReadPassed,
        Work::Bare,
        Work::Write,
    ];

    fn name(self) -> &'static str {
        match self {
            Work::Check => "Check",
            Work::Stats => "statistics of 50 containers",
            Work::Exec => "exec, to its end",
            Work::ExecUnderProfile => "exec under Docker's profile",
            Work::Life => "life: create, start, output, remove",
            Work::CreateFull => "create with containerd's spec",
            Work::CreateMany => "100 creates at once",
            Work::ReadSmall => "64 MiB of output, 32 KiB a call",
            Work::ReadLarge => "64 MiB of output, 1 MiB a call",
            Work::ReadPassed => "64 MiB of output, passed stream",
            Work::Bare => "64 MiB, bare copy over the vsock",
            Work::Write => "64 MiB of input, 32 KiB a call",
        }
    }

    /// How often it is done in one round, one after the other; what is noted is the mean. What takes long is done once, and
    /// only in one round of so many.
    fn repeats(self) -> usize {
        match self {
            Work::Check => 50,
            Work::Exec | Work::ExecUnderProfile | Work::Life | Work::CreateFull => 4,
            _ => 1,
        }
    }

    /// It is done in one round of this many.
    fn period(self) -> usize {
        match self {
            Work::CreateMany
            | Work::ReadSmall
            | Work::ReadLarge
            | Work::ReadPassed
            | Work::Bare
            | Work::Write => 4,
            _ => 1,
        }
    }
}

/// A guest that takes its turns.
struct Contender {
    guest: Guest,
    free: Container,
    bound: Container,
    crowd: Vec<Container>,
    /// For names of what is made.
    made: usize,
    /// By the clock.
    times: [Durations; Work::ALL.len()],
    /// Of the processors, for the whole machine: however busy the host is, others' work does not count.
    costs: [Durations; Work::ALL.len()],
}

impl Contender {
    async fn boot(against: Option<&PathBuf>, wanted: &[Work]) -> Result<Contender> {
        // The probe is ours for both: only the guests differ.
        let builder = Guest::builder()
            .machine(Machine::Microvm)
            .memory(768)
            .cmdline(&["agent.passfd_listener_port=1027"])
            .program("/probe", "probe")?;
        let guest = match against {
            Some(directory) => builder.products(directory),
            None => builder,
        };
        let guest = guest.boot().await?;
        guest.sandbox().await?;
        let free = guest.container("free").mount("/probe", "bind", "/probe", &["bind", "ro"]).run().await?;
        drop(free.exec(["/probe", "--copy", &COPY_PORT.to_string(), &BULK.to_string()]).start().await?);
        let profile = dockers_profile()?;
        let bound =
            guest.container("bound").linux(|linux| linux.Seccomp = Some(profile).into()).run().await?;
        let mut crowd = Vec::new();
        if wanted.contains(&Work::Stats) {
            for number in 0..CROWD {
                crowd.push(guest.container(&format!("crowd{number}")).run().await?);
            }
        }
        Ok(Contender {
            guest,
            free,
            bound,
            crowd,
            made: 0,
            times: Default::default(),
            costs: Default::default(),
        })
    }

    /// Does the work as often as it is done in a round, and notes what one time took.
    async fn round(&mut self, work: Work) -> Result<()> {
        let (mut total, before) = (Duration::ZERO, self.busy()?);
        for _ in 0..work.repeats() {
            total += self.once(work).await.with_context(|| work.name())?;
        }
        let busy = self.busy()?.saturating_sub(before);
        self.times[work as usize].push(total / work.repeats() as u32);
        self.costs[work as usize].push(busy / work.repeats() as u32);
        Ok(())
    }

    /// How long the threads of the machine's process have run: processors of the guest, and what emulates them.
    fn busy(&self) -> Result<Duration> {
        let mut total = 0;
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.guest.vm().pid()))? {
            // One may have ended (proc_pid_schedstat: nanoseconds on a processor come first).
            let text = std::fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
            total += text.split(' ').next().and_then(|field| field.parse().ok()).unwrap_or(0);
        }
        Ok(Duration::from_nanos(total))
    }

    fn name(&mut self, kind: &str) -> String {
        self.made += 1;
        format!("{kind}{}", self.made)
    }

    /// Does it once, and tells what it took; what is cleared away afterwards does not count.
    async fn once(&mut self, work: Work) -> Result<Duration> {
        let name = self.name("made");
        let free = &self.free;
        let begun = Instant::now();
        match work {
            Work::Check => {
                self.guest.client().health.check(AgentClient::call(), &CheckRequest::new()).await?;
            }
            Work::Stats => {
                for container in &self.crowd {
                    container.stats().await?;
                }
            }
            Work::Exec => drop(free.exec(["true"]).run().await?.success()?),
            Work::ExecUnderProfile => drop(self.bound.exec(["true"]).run().await?.success()?),
            Work::Life => {
                let container = self.guest.container(&name).script("echo up").create().await?;
                container.start().await?;
                ensure!(container.output().await?.success()? == "up");
                container.remove().await?;
            }
            Work::CreateFull => {
                let builder = as_containerd_asks(self.guest.container(&name))?;
                let begun = Instant::now();
                let container = builder.create().await?;
                let took = begun.elapsed();
                container.remove().await?;
                return Ok(took);
            }
            Work::CreateMany => {
                let many: Vec<_> =
                    (0..MANY).map(|number| self.guest.container(&format!("{name}-{number}"))).collect();
                let begun = Instant::now();
                let mut creates: JoinSet<_> =
                    many.into_iter().map(|builder| async move { builder.create().await }).collect();
                let mut created = Vec::new();
                while let Some(container) = creates.join_next().await {
                    created.push(container??);
                }
                let took = begun.elapsed();
                for container in created {
                    container.remove().await?;
                }
                return Ok(took);
            }
            Work::ReadSmall => read(free, SMALL).await?,
            Work::ReadLarge => read(free, LARGE).await?,
            Work::ReadPassed => {
                let mut passed = self.guest.pass().await?;
                let running = source(free).ports([0, passed.port, 0]).start().await?;
                drain(&mut passed.stream).await?;
                ensure!(running.wait().await? == 0, "dd failed");
            }
            Work::Bare => {
                let mut stream = self.guest.vm().dial(COPY_PORT).await?;
                stream.write_all(b"d").await?;
                drain(&mut stream).await?;
            }
            Work::Write => write(free).await?,
        }
        Ok(begun.elapsed())
    }
}

/// Asks for a container as containerd does for Kubernetes: the default profile of system calls, all masks, rules of devices,
/// files of the pod in `/etc`.
fn as_containerd_asks(container: ContainerBuilder) -> Result<ContainerBuilder> {
    let strings = |list: &[&str]| -> Vec<String> { list.iter().map(|text| (*text).to_owned()).collect() };
    let rule = |allow, kind: &str, numbers: Option<(i64, i64)>, access: &str| {
        let (major, minor) = numbers.unwrap_or((-1, -1));
        protocols::oci::LinuxDeviceCgroup {
            Allow: allow,
            Type: kind.into(),
            Major: major,
            Minor: minor,
            Access: access.into(),
            ..Default::default()
        }
    };
    let profile = dockers_profile()?;
    let bind = |container: ContainerBuilder, name: &str| {
        container.mount(&format!("/etc/{name}"), "bind", "/proc/version", &["rbind", "rprivate", "rw"])
    };
    let container = ["hosts", "hostname", "resolv.conf"].into_iter().fold(container, bind);
    Ok(container
        .mount("/run", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"])
        .process(|process| {
            process.Rlimits.push(protocols::oci::POSIXRlimit {
                Type: "RLIMIT_NOFILE".into(),
                Hard: 1024,
                Soft: 1024,
                ..Default::default()
            });
            process.OOMScoreAdj = 1000;
        })
        .linux(|linux| {
            linux.Seccomp = Some(profile).into();
            linux.MaskedPaths = strings(&[
                "/proc/acpi",
                "/proc/asound",
                "/proc/kcore",
                "/proc/keys",
                "/proc/latency_stats",
                "/proc/timer_list",
                "/proc/timer_stats",
                "/proc/sched_debug",
                "/proc/scsi",
                "/sys/firmware",
                "/sys/devices/virtual/powercap",
            ]);
        })
        .resources(|resources| {
            resources.Devices = vec![
                rule(false, "", None, "rwm"),
                rule(true, "c", None, "m"),
                rule(true, "b", None, "m"),
                rule(true, "c", Some((1, 3)), "rwm"),
                rule(true, "c", Some((1, 5)), "rwm"),
                rule(true, "c", Some((1, 7)), "rwm"),
                rule(true, "c", Some((1, 8)), "rwm"),
                rule(true, "c", Some((1, 9)), "rwm"),
                rule(true, "c", Some((5, 0)), "rwm"),
                rule(true, "c", Some((5, 1)), "rwm"),
                rule(true, "c", Some((5, 2)), "rwm"),
                rule(true, "c", Some((136, -1)), "rwm"),
            ];
            let cpu = resources.CPU.mut_or_insert_default();
            cpu.Shares = 102;
            cpu.Quota = 20_000;
            cpu.Period = 100_000;
            resources.Memory.mut_or_insert_default().Limit = 128 << 20;
        }))
}

/// A process that writes as fast as it can. (busybox's head copies byte by byte.)
fn source(container: &Container) -> tests::Exec {
    container.exec(["dd", "if=/dev/zero", "bs=64k", &format!("count={}", BULK >> 16)])
}

/// Reads what a process writes as fast as it can, by calls of so many bytes, one after the other as shims make them.
async fn read(container: &Container, call: usize) -> Result<()> {
    let running = source(container).start().await?;
    let mut total = 0;
    while total < BULK {
        let bytes = running.read(call).await?;
        ensure!(!bytes.is_empty(), "the output ended after {total} bytes");
        total += bytes.len();
    }
    ensure!(running.wait().await? == 0, "dd failed");
    Ok(())
}

/// Takes all that comes over a connection.
async fn drain(stream: &mut tokio::net::UnixStream) -> Result<()> {
    let (mut buffer, mut total) = (vec![0; LARGE], 0);
    while total < BULK {
        let count = stream.read(&mut buffer).await?;
        ensure!(count > 0, "the stream ended after {total} bytes");
        total += count;
    }
    Ok(())
}

/// Writes to a process that reads as fast as it can.
async fn write(container: &Container) -> Result<()> {
    let running = container.exec(["dd", "of=/dev/null", "bs=64k"]).start().await?;
    let piece = vec![0; SMALL];
    for _ in 0..BULK / SMALL {
        running.write_all(&piece).await?;
    }
    running.close_stdin().await?;
    ensure!(running.wait().await? == 0, "dd failed");
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let (mut against, mut wanted) = (None, Work::ALL.to_vec());
    let options = Options::read(USAGE, 40, |option, value| {
        match option {
            "--against" => against = Some(PathBuf::from(value()?)),
            "--only" => {
                let words = value()?;
                wanted.retain(|work| words.split(',').any(|word| work.name().contains(word)));
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let Some(Options { rounds, as_json }) = options else { return Ok(()) };
    ensure!(!wanted.is_empty(), USAGE);
    let mut contenders = vec![Contender::boot(None, &wanted).await.context("a guest of this tree")?];
    if let Some(directory) = &against {
        contenders
            .push(Contender::boot(Some(directory), &wanted).await.context("a guest of the other tree")?);
    }
    for round in 0..rounds {
        for work in wanted.iter().filter(|work| round % work.period() == 0) {
            // Who goes first changes as well.
            let first = (round / work.period()) % contenders.len();
            for turn in 0..contenders.len() {
                let at = (first + turn) % contenders.len();
                contenders[at].round(*work).await.with_context(|| format!("round {round}"))?;
            }
        }
        eprintln!("round {} of {rounds}", round + 1);
    }
    print(&contenders, &wanted, rounds, as_json)?;
    for contender in contenders {
        contender.guest.destroy().await?;
    }
    Ok(())
}

/// The machine that this ran on: its processors, and how the guests ran.
fn host(accelerator: &str) -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |line: &str| Some(line.strip_prefix("model name")?.split_once(':')?.1.trim().to_owned());
    let model = text.lines().find_map(field).unwrap_or_else(|| "unknown processors".to_owned());
    let count = text.lines().filter(|line| line.starts_with("processor")).count();
    format!("{count} processors ({model}), {accelerator}")
}

fn print(contenders: &[Contender], wanted: &[Work], rounds: usize, as_json: bool) -> Result<()> {
    let median = |times: &Durations| times.percentile(50).as_secs_f64() * 1000.0;
    let ms = |at: usize, work: Work| Some(median(&contenders.get(at)?.times[work as usize]));
    let cost = |at: usize, work: Work| Some(median(&contenders.get(at)?.costs[work as usize]));
    let pairs = |work: Work| contenders[0].times[work as usize].count();
    let ratio = |ours: Option<f64>, other: Option<f64>| Some(ours? / other?);
    let host = host(contenders[0].guest.vm().accel());
    if as_json {
        let figure = |work: &Work| {
            json!({
                "work": work.name(),
                "median_ms": ms(0, *work),
                "other_ms": ms(1, *work),
                "ratio": ratio(ms(0, *work), ms(1, *work)),
                "processor_ms": cost(0, *work),
                "other_processor_ms": cost(1, *work),
                "processor_ratio": ratio(cost(0, *work), cost(1, *work)),
                "pairs": pairs(*work),
            })
        };
        let figures: Vec<_> = wanted.iter().map(figure).collect();
        let all = json!({ "rounds": rounds, "host": host, "figures": figures });
        println!("{}", serde_json::to_string_pretty(&all)?);
        return Ok(());
    }
    println!("a guest's work on {host}; medians in ms by the clock, and of the machine's processor time");
    let head = "   other's      ours  ratio";
    match contenders.len() {
        1 => println!("{:<36} {:>9} {:>9}", "", "clock", "processor"),
        _ => println!("{:<36} {head} | processor: {head}  pairs", ""),
    }
    for work in wanted {
        let one = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:>9.2}"));
        let two = |ours: Option<f64>, other: Option<f64>| {
            format!("{} {} {:>6.2}", one(other), one(ours), ratio(ours, other).unwrap_or_default())
        };
        if contenders.len() == 1 {
            println!("{:<36} {} {}", work.name(), one(ms(0, *work)), one(cost(0, *work)));
            continue;
        }
        let (clock, processor) = (two(ms(0, *work), ms(1, *work)), two(cost(0, *work), cost(1, *work)));
        println!("{:<36} {clock} |            {processor} {:>6}", work.name(), pairs(*work));
    }
    if wanted.contains(&Work::ReadPassed) && wanted.contains(&Work::Bare) {
        for (at, name) in ["ours", "the other's"].into_iter().enumerate().take(contenders.len()) {
            let clock = ratio(ms(at, Work::ReadPassed), ms(at, Work::Bare)).unwrap_or_default();
            let processor = ratio(cost(at, Work::ReadPassed), cost(at, Work::Bare)).unwrap_or_default();
            println!("a passed stream against the bare copy, {name}: {clock:.2}, processor {processor:.2}");
        }
    }
    Ok(())
}
