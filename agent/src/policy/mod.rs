//! The judgement of calls by a policy in Rego.
//!
//! Owns the policy in force and its state. One thread has both, and judges one call after the other, so that a slow
//! rule holds up no other work of the agent, and what one call adds to the state the next one sees. Promises that
//! there is no call without a decision: a rule that is missing, fails, takes too long or answers nonsense is a no, and
//! so is a policy file that is missing or not understood. Must never know how a call travels: it sees a name and JSON.

mod engine;
mod patch;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

use serde_json::Value;
use tokio::sync::oneshot;

use crate::error::{ErrorKind, Kind};
use engine::Engine;

/// The policy that is in force from the boot on; the same place as in other guests of this API.
pub(crate) const DEFAULT_FILE: &str = "/etc/kata-opa/default-policy.rego";

/// Evaluation recurses as deep as the policy's rules call each other. Only what is used takes memory.
const STACK: usize = 16 << 20;

/// A call is refused, or a policy is.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum PolicyError {
    /// COMPAT(kata): `exec_is_denied_but_for_one_command`: clients look for "is blocked by policy".
    #[error("{request} is blocked by policy: {reason}")]
    Denied {
        /// Name of the request's message.
        request: String,
        /// What the rule printed, or why there is no decision.
        reason: String,
    },
    /// The text cannot be a policy of this agent.
    #[error("the policy is not understood: {0}")]
    Rego(String),
}

impl Kind for PolicyError {
    fn kind(&self) -> ErrorKind {
        match self {
            PolicyError::Denied { .. } => ErrorKind::Denied,
            PolicyError::Rego(_) => ErrorKind::Invalid,
        }
    }
}

/// A handle on the thread that judges. It ends with the last handle.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    jobs: mpsc::Sender<Job>,
}

#[derive(Debug)]
enum Job {
    Judge { request: String, input: Value, answer: oneshot::Sender<Result<(), PolicyError>> },
    Set { source: String, answer: oneshot::Sender<Result<(), PolicyError>> },
}

impl Policy {
    /// Starts the thread with the policy in `file`. Without one, or with one that is not understood, nothing is
    /// allowed: a guest that was built to be judged must not run unjudged because of a typing error.
    ///
    /// # Errors
    /// When there can be no thread.
    pub(crate) fn start(file: &Path) -> io::Result<Policy> {
        let (jobs, queue) = mpsc::channel();
        let file = file.to_path_buf();
        thread::Builder::new().name("policy".into()).stack_size(STACK).spawn(move || run(file, &queue))?;
        Ok(Policy { jobs })
    }

    /// Asks whether a call is allowed. Once it is, what its rule wants remembered is remembered.
    ///
    /// # Errors
    /// [`PolicyError::Denied`] with the reason.
    pub(crate) async fn judge(&self, request: &str, input: Value) -> Result<(), PolicyError> {
        let (answer, verdict) = oneshot::channel();
        let job = Job::Judge { request: request.to_owned(), input, answer };
        self.ask(job, verdict).await.unwrap_or_else(|| {
            let reason = "the policy cannot be asked".to_owned();
            Err(PolicyError::Denied { request: request.to_owned(), reason })
        })
    }

    /// Puts another policy in force, with an empty state.
    ///
    /// # Errors
    /// [`PolicyError::Rego`] when it is not understood; the one before stays, with its state.
    pub(crate) async fn set(&self, source: String) -> Result<(), PolicyError> {
        let (answer, outcome) = oneshot::channel();
        let lost = || Err(PolicyError::Rego("the policy's thread is gone".into()));
        self.ask(Job::Set { source, answer }, outcome).await.unwrap_or_else(lost)
    }

    async fn ask<T>(&self, job: Job, answer: oneshot::Receiver<T>) -> Option<T> {
        self.jobs.send(job).ok()?;
        answer.await.ok()
    }
}

/// What is in force.
enum Rules {
    Policy(Box<Engine>),
    /// Every call is refused, for this reason.
    Closed(String),
}

fn run(file: PathBuf, queue: &mpsc::Receiver<Job>) {
    let mut rules = read(&file).unwrap_or_else(|reason| {
        tracing::error!(path = %file.display(), %reason, "there is no policy: every call but Health is refused");
        Rules::Closed(reason)
    });
    while let Ok(job) = queue.recv() {
        match job {
            // Whoever left before the question was asked did not get to make the call either.
            Job::Judge { answer, .. } | Job::Set { answer, .. } if answer.is_closed() => {}
            Job::Judge { request, input, answer } => {
                let verdict = rules.judge(&request, input);
                if let Err(error) = &verdict {
                    tracing::warn!(%error, "a call is refused");
                }
                // The caller may have left meanwhile.
                answer.send(verdict).ok();
            }
            Job::Set { source, answer } => {
                let outcome = match parse(&source) {
                    Ok(engine) => {
                        tracing::info!(bytes = source.len(), lenient = engine.lenient(), "another policy is in force");
                        rules = Rules::Policy(Box::new(engine));
                        Ok(())
                    }
                    Err(reason) => Err(PolicyError::Rego(reason)),
                };
                answer.send(outcome).ok();
            }
        }
    }
}

fn read(file: &Path) -> Result<Rules, String> {
    let source = std::fs::read_to_string(file)
        .map_err(|error| format!("the default policy {} cannot be read: {error}", file.display()))?;
    let engine = parse(&source)
        .map_err(|reason| format!("the default policy {} is not understood: {reason}", file.display()))?;
    tracing::info!(path = %file.display(), lenient = engine.lenient(), "the default policy is in force");
    Ok(Rules::Policy(Box::new(engine)))
}

/// A bug of the interpreter must not take the agent with it, nor let a call through.
fn parse(source: &str) -> Result<Engine, String> {
    catch_unwind(|| Engine::parse(source)).unwrap_or_else(|_| Err("its interpreter panicked".into()))
}

impl Rules {
    fn judge(&mut self, request: &str, input: Value) -> Result<(), PolicyError> {
        let denied = |reason| PolicyError::Denied { request: request.to_owned(), reason };
        let engine = match self {
            Rules::Closed(reason) => return Err(denied(reason.clone())),
            Rules::Policy(engine) => engine,
        };
        if let Ok(verdict) = catch_unwind(AssertUnwindSafe(|| engine.judge(request, input))) {
            return verdict.map_err(denied);
        }
        // What it was at is unknown. From the text it can be had again.
        match catch_unwind(AssertUnwindSafe(|| engine.again())) {
            Ok(Ok(())) => Err(denied("its interpreter panicked".into())),
            _ => {
                let reason = "its interpreter panicked and could not be started again";
                *self = Rules::Closed(reason.into());
                Err(denied(reason.into()))
            }
        }
    }
}

#[cfg(test)]
mod tests;
