//! Verbs and options of `pith` that other tests do not need for their own sake, and the test that no verb is left out.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::pods::{Pods, busybox_image, root};

/// Functions that run the program. Each of them takes its words in an array; the first is the verb.
const CALLS: [&str; 3] = ["command", "run", "success"];
/// The bits of capabilities that tests give and take.
const CHOWN: u64 = 1 << 0;
const KILL: u64 = 1 << 5;
const NET_ADMIN: u64 = 1 << 12;

/// A verb that goes on until it is ended, and the lines that it prints.
struct Following {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Following {
    fn start(mut command: Command) -> Result<Self> {
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        Ok(Self { child, lines })
    }

    /// The next object.
    fn next(&mut self) -> Result<Value> {
        let line = self.lines.next().context("it has ended")??;
        serde_json::from_str(&line).with_context(|| line)
    }
}

#[test]
fn figures_and_events_are_followed_while_a_pod_lives() -> Result<()> {
    let pods = Pods::new()?;
    let mut events = Following::start(pods.command(&["events", "--json", "--since", "1h", "seen"])?)?;
    let image = busybox_image();
    pods.success(&["run", "-d", "--name", "seen", &image, "sh", "-c", "while :; do sleep 0.1; done"])?;
    let mut told = Vec::new();
    while told.last().is_none_or(|event| event != "running") {
        let event = events.next()?;
        assert_eq!(event["pod"], "seen");
        told.push(event["event"].clone());
    }
    ensure!(told.contains(&Value::from("starting")) && told.contains(&Value::from("started")), "{told:?}");

    let mut stats = Following::start(pods.command(&["--json", "stats", "seen"])?)?;
    let (first, second) = (stats.next()?, stats.next()?);
    for sample in [&first, &second] {
        assert_eq!((sample["pod"].as_str(), sample["id"].as_str()), (Some("seen"), Some("seen-seen")));
        ensure!(sample["cpu_percent"].is_number(), "{sample}");
    }
    ensure!(second["cpu_ns"].as_u64() > first["cpu_ns"].as_u64(), "{first} {second}");

    pods.success(&["stop", "-t", "0", "seen"])?;
    // One ends with the pod. The other waits for what may come.
    while stats.lines.next().transpose()?.is_some() {}
    ensure!(stats.child.wait()?.success(), "stats failed when the pod ended");
    while events.next()?["event"] != "ended" {}
    Pods::signal(&events.child, "INT")?;
    assert_eq!(events.child.wait()?.code(), Some(130));
    pods.nothing_is_left()
}

/// The effective capabilities of a container's first process, and what else its script says.
fn effective(pods: &Pods, options: &[&str], script: &str) -> Result<(u64, String)> {
    let script = format!("sed -n 's/^CapEff:.//p' /proc/self/status; {script}");
    let image = busybox_image();
    let said =
        pods.success(&[&["run", "--rm"][..], options, &[image.as_str(), "sh", "-c", &script]].concat())?;
    let (mask, rest) = said.split_once('\n').context("no line")?;
    Ok((u64::from_str_radix(mask, 16)?, rest.trim().to_owned()))
}

#[test]
fn what_a_container_may_do_is_as_the_options_say() -> Result<()> {
    let pods = Pods::new()?;
    let write = "touch /x 2>/dev/null && echo written; cat /proc/sys/kernel/cap_last_cap";
    let (plain, said) = effective(&pods, &[], write)?;
    let (written, last) = said.split_once('\n').context("no second line")?;
    assert_eq!(written, "written");
    assert_eq!(plain & (CHOWN | KILL | NET_ADMIN), CHOWN | KILL, "{plain:x}");

    let options = ["--read-only", "--cap-add", "net_admin", "--cap-drop", "CHOWN", "--cap-drop", "CAP_KILL"];
    let (changed, said) = effective(&pods, &options, write)?;
    assert_eq!(changed, plain & !(CHOWN | KILL) | NET_ADMIN, "{plain:x} became {changed:x}");
    assert_eq!(said, last, "the root is read-only");

    let (all, _) = effective(&pods, &["--privileged"], write)?;
    assert_eq!(all, (2 << last.parse::<u32>()?) - 1, "{all:x}");
    pods.nothing_is_left()
}

#[test]
fn this_host_can_run_pods_and_doctor_says_so() -> Result<()> {
    let pods = Pods::new()?;
    let said = pods.success(&["doctor"])?;
    ensure!(said.contains("Pods can run here.") && said.contains("QEMU"), "{said}");
    let said: Value = serde_json::from_str(&pods.success(&["--json", "doctor"])?)?;
    assert_eq!(said["able"], true, "{said}");
    Ok(())
}

#[test]
fn shells_accept_the_scripts_of_completions() -> Result<()> {
    let pods = Pods::new()?;
    for shell in ["bash", "zsh", "fish"] {
        let script = pods.success(&["completions", shell])?;
        ensure!(script.contains("pith complete --"), "{shell}: {script}");
        let reader = Command::new(shell).arg("-n").stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut reader = match reader {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                println!("SKIPPED: {shell} is not installed, so nobody reads its script");
                continue;
            }
            reader => reader?,
        };
        reader.stdin.take().context("no input")?.write_all(script.as_bytes())?;
        let output = reader.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success() && said.is_empty(), "{shell}: {said}");
    }
    Ok(())
}

/// A piece of a source. Comments are none.
#[derive(Debug, PartialEq)]
enum Token {
    /// A name, a keyword or a number.
    Word(String),
    /// What is between quotes.
    Text(String),
    Mark(char),
}

/// The tokens of a source, as far as this test needs them.
fn tokens(source: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let word: String = rest.chars().take_while(|c| is_word(*c)).collect();
        let after = &rest[word.len()..];
        let hashes = after.len() - after.trim_start_matches('#').len();
        if rest.starts_with("//") {
            rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
        } else if rest.starts_with("/*") {
            rest = rest.split_once("*/").map_or("", |(_, rest)| rest);
        } else if ["r", "br"].contains(&word.as_str()) && after[hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let (text, behind) = after[hashes + 1..].split_once(&end).unwrap_or((&after[hashes + 1..], ""));
            found.push(Token::Text(text.to_owned()));
            rest = behind;
        } else if !word.is_empty() {
            rest = after;
            found.push(Token::Word(word));
        } else if first == '"' {
            let mut is_escaped = false;
            let end = rest[1..].find(|c| {
                let ends = c == '"' && !is_escaped;
                is_escaped = c == '\\' && !is_escaped;
                ends
            });
            let end = end.map_or(rest.len(), |at| at + 1);
            found.push(Token::Text(rest[1..end].to_owned()));
            rest = rest.get(end + 1..).unwrap_or_default();
        } else if let Some(quoted) =
            ["'\"'", "'\\\"'", "'\\''", "'\\\\'"].iter().find(|quoted| rest.starts_with(**quoted))
        {
            rest = &rest[quoted.len()..];
        } else {
            if !first.is_whitespace() {
                found.push(Token::Mark(first));
            }
            rest = &rest[first.len_utf8()..];
        }
    }
    found
}

/// Verbs with which a source runs the program, by its own code: comments and texts do not count. A call is a method of `pods`
/// in [`CALLS`], or a function that is given `&pods` first, with the words in an array.
fn calls_of(source: &str) -> BTreeSet<String> {
    let tokens = tokens(source);
    let is = |at: Option<usize>, words: &[&str]| match at.and_then(|at| tokens.get(at)) {
        Some(Token::Word(word)) => words.contains(&word.as_str()),
        _ => false,
    };
    let mark = |at: Option<usize>, mark: char| at.and_then(|at| tokens.get(at)) == Some(&Token::Mark(mark));
    let mut verbs = BTreeSet::new();
    for at in (0..tokens.len()).filter(|at| tokens[*at] == Token::Mark('(')) {
        let back = |steps: usize| at.checked_sub(steps);
        let is_method = is(back(1), &CALLS) && mark(back(2), '.') && is(back(3), &["pods"]);
        let is_given = mark(Some(at + 1), '&') && is(Some(at + 2), &["pods"]) && mark(Some(at + 3), ',');
        if is_method || is_given {
            let begin = at + if is_given { 4 } else { 1 };
            let begin = begin + usize::from(mark(Some(begin), '&'));
            if mark(Some(begin), '[') {
                verbs.extend(verb(&tokens[begin + 1..]));
            }
        }
    }
    verbs
}

/// The first text of an array that is no option, if nothing but texts comes before it.
fn verb(array: &[Token]) -> Option<String> {
    for token in array {
        match token {
            Token::Text(option) if option.starts_with('-') => {}
            Token::Text(verb) => return Some(verb.clone()),
            Token::Word(_) => return None,
            Token::Mark(_) => {}
        }
    }
    None
}

#[test]
fn only_calls_count() {
    let source = r#"
        // pods.success(&["comment"])
        /// pods.success(&["document"])
        fn f() {
            let text = "pods.success(&[\"text\"])";
            let row = ("row web", &["row"], 1);
            other(&["other"]);
            ensure!(pods.success(&["plain", "web"])?.contains("x"));
            json(&pods, &["--json", "option", "web"])?;
            home.pods.run(&[&["--json"][..], &["nested"]].concat());
            pods.command(&[&["joined", "-d"], options].concat());
            pods.signal(&["signal"]);
            pods.run(&arguments);
            let quote = '"'; /* pods.run(&["block"]) */
        }"#;
    let expected = ["plain", "option", "nested", "joined"].map(str::to_owned);
    assert_eq!(calls_of(source), BTreeSet::from(expected));
}

#[test]
fn every_verb_is_tried_through_the_program() -> Result<()> {
    let pods = Pods::new()?;
    let man = pods.path().join("man1");
    pods.success(&["man", &man.display().to_string()])?;
    let verbs = pods.success(&["complete", "--", ""])?;
    let verbs: Vec<&str> = verbs.lines().filter(|verb| *verb != "help").collect();
    ensure!(
        verbs.len() > 25 && verbs.iter().all(|verb| man.join(format!("pith-{verb}.1")).is_file()),
        "{verbs:?}"
    );
    let mut tried = BTreeSet::new();
    for entry in std::fs::read_dir(root().join("tests/e2e"))? {
        let path = entry?.path();
        if path.is_file() {
            tried.append(&mut calls_of(&std::fs::read_to_string(path)?));
        }
    }
    let untried: Vec<&&str> = verbs.iter().filter(|verb| !tried.contains(**verb)).collect();
    ensure!(untried.is_empty(), "no test through the program: {untried:?}");
    Ok(())
}
