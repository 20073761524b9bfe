//! The conformance suite: every method of the API in a booted guest, over the socket that shims use.
//!
//! ```text
//! cargo test --test conformance [-- [--json FILE] [--junit FILE] [--list] [PART-OF-A-NAME ...]]
//! ```
//!
//! The methods come from the `.proto` files. One without a case in which it succeeds and one in which it is refused
//! fails the suite, and so does a case in which the method never answered that way. Few guests serve all cases, which
//! therefore leave nothing behind. A table of method, case and result is printed at the end.

mod api;
mod case;
mod containers;
mod files;
mod guest;
mod memory;
mod misuse;
mod network;
mod observe;
mod policy;
mod processes;
mod report;
mod sandbox;
mod streams;
mod world;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tests::{Guest, Machine};

use case::{Case, Expect, Stage};
use report::{Outcome, Report};
use world::World;

/// Longest time for one case.
const LIMIT: Duration = Duration::from_secs(180);
/// The name under which test runners know all of this.
const NAME: &str = "every_method_and_misuse";

fn all() -> Vec<&'static Case> {
    let families = [
        sandbox::CASES,
        containers::CASES,
        processes::CASES,
        streams::CASES,
        network::CASES,
        guest::CASES,
        memory::CASES,
        files::CASES,
        observe::CASES,
        policy::CASES,
        misuse::order::CASES,
        misuse::ids::CASES,
        misuse::frames::CASES,
        misuse::deadlines::CASES,
        misuse::vanish::CASES,
    ];
    families.into_iter().flatten().collect()
}

#[derive(Default)]
struct Arguments {
    json: Option<PathBuf>,
    junit: Option<PathBuf>,
    list: bool,
    /// `--format terse`: a test runner asks.
    terse: bool,
    ignored: bool,
    filters: Vec<String>,
}

impl Arguments {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments> {
        let mut parsed = Arguments::default();
        while let Some(word) = words.next() {
            let mut value = || words.next().with_context(|| format!("{word} needs a value"));
            match word.as_str() {
                "--json" => parsed.json = Some(value()?.into()),
                "--junit" => parsed.junit = Some(value()?.into()),
                "--list" => parsed.list = true,
                "--format" => parsed.terse = value()? == "terse",
                "--ignored" => parsed.ignored = true,
                "--exact" | "--nocapture" | "--no-capture" => {}
                option if option.starts_with("--") => bail!("unknown option {option}"),
                // By its one name everything is meant.
                NAME => {}
                filter => parsed.filters.push(filter.to_owned()),
            }
        }
        Ok(parsed)
    }

    fn wants(&self, case: &Case) -> bool {
        let hit = |filter: &String| case.name.contains(filter) || case.method == filter;
        self.filters.is_empty() || self.filters.iter().any(hit)
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("conformance: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<bool> {
    let arguments = Arguments::parse(std::env::args().skip(1))?;
    if arguments.list {
        return Ok(list(&arguments));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcomes = runtime.block_on(run_all(&arguments));
    let gaps = if arguments.filters.is_empty() { gaps(&all()) } else { Vec::new() };
    let report = Report { outcomes, gaps };
    println!("{}", report.table(&api::methods()));
    if let Some(path) = &arguments.json {
        report.write_json(path)?;
    }
    if let Some(path) = &arguments.junit {
        report.write_junit(path)?;
    }
    Ok(report.is_good())
}

/// Tells what there is; good if nothing is missing.
fn list(arguments: &Arguments) -> bool {
    match (arguments.terse, arguments.ignored) {
        (true, true) => true,
        (true, false) => {
            println!("{NAME}: test");
            true
        }
        _ => {
            let cases = all();
            cases.iter().for_each(|case| println!("{} {} {}", case.method, case.expect.name(), case.name));
            let gaps = gaps(&cases);
            gaps.iter().for_each(|gap| println!("GAP {gap}"));
            gaps.is_empty()
        }
    }
}

/// Methods that lack a case of a kind, cases of a method that does not exist, and names that two cases have.
fn gaps(cases: &[&Case]) -> Vec<String> {
    let methods = api::methods();
    let mut gaps = Vec::new();
    for method in &methods {
        for expect in [Expect::Success, Expect::Failure] {
            if !cases.iter().any(|case| case.method == method.name && case.expect == expect) {
                gaps.push(format!("{} has no {} case", method.name, expect.name()));
            }
        }
    }
    for case in cases {
        let is_known = methods.iter().any(|method| method.name == case.method);
        if is_known == (case.expect == Expect::Misuse) {
            gaps.push(format!("{} is about {}, which is no method", case.name, case.method));
        }
        if cases.iter().filter(|other| other.name == case.name).count() > 1 {
            gaps.push(format!("{} is there twice", case.name));
        }
    }
    gaps
}

/// Runs the cases guest by guest.
async fn run_all(arguments: &Arguments) -> Vec<Outcome> {
    let mut guests: BTreeMap<Kind, Vec<&'static Case>> = BTreeMap::new();
    for case in all().into_iter().filter(|case| arguments.wants(case)) {
        guests.entry(Kind::of(case.stage)).or_default().push(case);
    }
    let mut outcomes = Vec::new();
    for (kind, mut cases) in guests {
        cases.sort_by_key(|case| case.stage);
        let started = Instant::now();
        match kind.boot().await {
            Ok(world) => {
                println!("{kind:?} guest booted in {:.1} s", started.elapsed().as_secs_f64());
                run_in(&world, &cases, &mut outcomes).await;
            }
            Err(error) => {
                let failure = format!("{error:#}");
                println!("{kind:?} guest: {failure}");
                outcomes.extend(cases.iter().map(|case| Outcome {
                    case,
                    time: Duration::ZERO,
                    failure: Some(failure.clone()),
                }));
            }
        }
    }
    outcomes
}

async fn run_in(world: &World, cases: &[&'static Case], outcomes: &mut Vec<Outcome>) {
    let (mut has_sandbox, first) = (false, outcomes.len());
    for case in cases {
        let started = Instant::now();
        let outcome = tokio::time::timeout(LIMIT, run_case(world, case, &mut has_sandbox)).await;
        let result = outcome.unwrap_or_else(|_| bail_late());
        let time = started.elapsed();
        let failure = result.err().map(|error| format!("{error:#}"));
        let mark = failure.as_deref().map_or("ok  ".to_owned(), |why| format!("FAIL {why}"));
        println!("  {:>6.2} s {} {} {mark}", time.as_secs_f64(), case.method, case.name);
        outcomes.push(Outcome { case, time, failure });
    }
    if outcomes[first..].iter().any(|outcome| outcome.failure.is_some()) {
        println!("--- console ---\n{}\n---------------", tail(&world.guest.vm().console_log()));
    }
}

fn bail_late() -> Result<()> {
    bail!("no end after {} s", LIMIT.as_secs())
}

/// The console's last lines.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

async fn run_case(world: &World, case: &Case, has_sandbox: &mut bool) -> Result<()> {
    let needs =
        !matches!(case.stage, Stage::Bare | Stage::Brief | Stage::Policy) && case.method != "CreateSandbox";
    if needs && !*has_sandbox {
        sandbox::ensure(world).await?;
        *has_sandbox = true;
    }
    world.take_answers();
    let result = (case.run)(world).await;
    let answers = world.take_answers();
    if !matches!(case.stage, Stage::End | Stage::BriefEnd | Stage::DisksEnd) {
        let tidied = world.tidy().await;
        world.take_answers();
        result?;
        tidied?;
    } else {
        result?;
    }
    let codes = || answers.iter().filter(|(name, _)| name == case.method).map(|(_, code)| code);
    match case.expect {
        Expect::Success => ensure!(codes().any(Option::is_none), "{} never succeeded in it", case.method),
        Expect::Failure => ensure!(codes().any(Option::is_some), "{} was never refused in it", case.method),
        Expect::Misuse => {}
    }
    Ok(())
}

/// The guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Minimal,
    Brief,
    Disks,
    Standard,
    Policy,
}

impl Kind {
    fn of(stage: Stage) -> Kind {
        match stage {
            Stage::Bare | Stage::Pod | Stage::End => Kind::Minimal,
            Stage::Brief | Stage::BriefEnd => Kind::Brief,
            Stage::Disks | Stage::DisksEnd => Kind::Disks,
            Stage::Standard => Kind::Standard,
            Stage::Policy => Kind::Policy,
        }
    }

    async fn boot(self) -> Result<World> {
        let builder = match self {
            Kind::Minimal => Guest::builder().cpus(2).network().cmdline(&["agent.hotplug_timeout=1"]),
            Kind::Brief => Guest::builder(),
            Kind::Disks => {
                let disks = files::disks()?.into_iter();
                let words = ["agent.hotplug_timeout=1", "agent.mem_agent_enable=1"];
                let builder = Guest::builder().machine(Machine::Q35).cmdline(&words);
                disks.fold(builder, |builder, disk| builder.disk(&disk))
            }
            Kind::Standard => Guest::builder().flavour("standard"),
            Kind::Policy => Guest::builder().flavour("policy"),
        };
        World::new(builder.boot().await?).await
    }
}
