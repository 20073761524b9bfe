//! The judgement of calls by a policy in Rego.
//!
//! Owns the policy in force and its state. One thread has both, and asks a process of its own ([`worker`]) about one
//! call after the other, so that no rule holds up other work of the agent or ends it, and what one call adds to the
//! state the next one sees. Promises that
//! there is no call without a decision: a rule that is missing, fails, takes too long or answers nonsense is a no, and
//! so is a policy file that is missing or not understood. Must never know how a call travels: it sees a name and JSON.

mod engine;
mod patch;
pub(crate) mod worker;

use std::io;
use std::path::Path;
use std::sync::mpsc;
use std::thread;

use serde_json::Value;
use tokio::sync::oneshot;

use crate::error::{ErrorKind, Kind};
use worker::{Failure, Link};

/// The policy that is in force from the boot on; the same place as in other guests of this API.
pub(crate) const DEFAULT_FILE: &str = "/etc/kata-opa/default-policy.rego";

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
        Policy::start_with(file, Link::spawn)
    }

    /// With a thread for a worker: where a test runs, the program is the test.
    ///
    /// # Errors
    /// As [`Policy::start`].
    #[cfg(test)]
    pub(crate) fn start_in_threads(file: &Path) -> io::Result<Policy> {
        Policy::start_with(file, Link::to_a_thread)
    }

    fn start_with(file: &Path, link: fn() -> io::Result<Link>) -> io::Result<Policy> {
        let (jobs, queue) = mpsc::channel();
        let file = file.to_path_buf();
        let thread = thread::Builder::new().name("policy".into()).spawn(move || run(&file, link, &queue));
        thread
            .map_err(|error| io::Error::new(error.kind(), format!("start the policy's thread: {error}")))?;
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
    Policy(Box<InForce>),
    /// Every call is refused, for this reason.
    Closed(String),
}

/// A policy in force. The worker can be had again from the rest.
struct InForce {
    source: String,
    state: Value,
    worker: Link,
}

fn run(file: &Path, link: fn() -> io::Result<Link>, queue: &mpsc::Receiver<Job>) {
    let mut rules = read(file, link).unwrap_or_else(|reason| {
        tracing::error!(path = %file.display(), %reason, "there is no policy: every call but Health is refused");
        Rules::Closed(reason)
    });
    while let Ok(job) = queue.recv() {
        match job {
            // Whoever left before the question was asked did not get to make the call either.
            Job::Judge { answer, .. } | Job::Set { answer, .. } if answer.is_closed() => {}
            Job::Judge { request, input, answer } => {
                let verdict = rules.judge(&request, input, link);
                if let Err(error) = &verdict {
                    tracing::warn!(%error, "a call is refused");
                }
                // The caller may have left meanwhile.
                answer.send(verdict).ok();
            }
            Job::Set { source, answer } => {
                let outcome = InForce::new(source, engine::fresh(), link).map_err(PolicyError::Rego);
                let outcome = outcome.map(|policy| {
                    tracing::info!(bytes = policy.source.len(), "another policy is in force");
                    rules = Rules::Policy(Box::new(policy));
                });
                answer.send(outcome).ok();
            }
        }
    }
}

fn read(file: &Path, link: fn() -> io::Result<Link>) -> Result<Rules, String> {
    let source = std::fs::read_to_string(file)
        .map_err(|error| format!("the default policy {} cannot be read: {error}", file.display()))?;
    let policy = InForce::new(source, engine::fresh(), link)
        .map_err(|reason| format!("the default policy {} is not understood: {reason}", file.display()))?;
    tracing::info!(path = %file.display(), "the default policy is in force");
    Ok(Rules::Policy(Box::new(policy)))
}

impl InForce {
    /// Each policy gets a worker of its own: what is wrong with it cannot hurt the one before.
    fn new(source: String, state: Value, link: fn() -> io::Result<Link>) -> Result<InForce, String> {
        let mut worker = link().map_err(|error| format!("start its interpreter: {error}"))?;
        let lenient = match worker.load(&source, &state) {
            Ok(lenient) => lenient,
            Err(Failure::Refused(reason) | Failure::Lost(reason)) => return Err(reason),
        };
        if lenient {
            tracing::warn!("the policy is lenient: what it refuses is allowed all the same, and only logged");
        }
        Ok(InForce { source, state, worker })
    }
}

impl Rules {
    fn judge(
        &mut self,
        request: &str,
        input: Value,
        link: fn() -> io::Result<Link>,
    ) -> Result<(), PolicyError> {
        let denied = |reason| PolicyError::Denied { request: request.to_owned(), reason };
        let policy = match self {
            Rules::Closed(reason) => return Err(denied(reason.clone())),
            Rules::Policy(policy) => policy,
        };
        match policy.worker.judge(request, input) {
            Ok(allowed) => {
                if let Some(state) = allowed.state {
                    policy.state = state;
                }
                if let Some(reason) = allowed.ignored {
                    tracing::warn!(%request, %reason, "a call is allowed by a lenient policy only");
                }
                Ok(())
            }
            Err(Failure::Refused(reason)) => Err(denied(reason)),
            Err(Failure::Lost(reason)) => {
                tracing::error!(%request, %reason, "the policy's worker is lost, another one is started");
                let (source, state) = (policy.source.clone(), policy.state.clone());
                *self = match InForce::new(source, state, link) {
                    Ok(again) => Rules::Policy(Box::new(again)),
                    Err(again) => Rules::Closed(format!("there is no interpreter any more: {again}")),
                };
                Err(denied(reason))
            }
        }
    }
}

#[cfg(test)]
mod tests;
