//! Signs of life: whether the agent answers while something else happens.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use machine::vm::AgentClient;
use protocols::health::CheckRequest;

use crate::Guest;

/// Between an answer and the next Check.
const BEAT: Duration = Duration::from_millis(10);
/// The longest that an answer may take. Beside compilers, on a machine with two processors, a guest that is emulated took 2 s
/// for one while a fork bomb went off: ten times that is no matter of speed. Kata's shims give a guest up whose answer takes
/// 30 s. All that the agent waits for with a thread, such as a device, a hook or a file system, may take longer.
const LONGEST: Duration = Duration::from_secs(20);
/// How long work that ends the guest may take to be told of it, once the connection for Checks has ended.
const LAST_ANSWER: Duration = Duration::from_secs(20);

/// Sends Checks over a connection of its own: they wait behind no other call.
pub struct Checks {
    client: AgentClient,
}

impl Guest {
    /// A connection for Checks.
    ///
    /// # Errors
    /// When the agent does not take it.
    pub async fn checks(&self) -> Result<Checks> {
        Ok(Checks { client: self.vm().client().await.context("dial the agent for Checks")? })
    }
}

impl Checks {
    /// Does work, and asks the agent all the while whether it lives: 10 ms after each answer it is asked again. Gives what the
    /// work gives, and prints and gives the longest that an answer took.
    ///
    /// # Errors
    /// That of the work, a Check that fails, and one that takes more than 20 s. The work is done to its end all the same.
    pub async fn during<T>(
        &self,
        what: &str,
        work: impl Future<Output = Result<T>>,
    ) -> Result<(T, Duration)> {
        let (done, longest) = self.beside(what, work, false).await;
        let done = done?;
        Ok((done, longest?))
    }

    /// As [`Checks::during`] for work that ends the guest. The last Check may go unanswered, if the work is done then.
    ///
    /// # Errors
    /// As [`Checks::during`].
    pub async fn until_the_end<T>(
        &self,
        what: &str,
        work: impl Future<Output = Result<T>>,
    ) -> Result<(T, Duration)> {
        let (done, longest) = self.beside(what, work, true).await;
        let done = done?;
        Ok((done, longest?))
    }

    /// What the work gives, and the longest that an answer took. Both are told, whichever failed.
    pub async fn beside<T>(
        &self,
        what: &str,
        work: impl Future<Output = Result<T>>,
        is_the_end: bool,
    ) -> (Result<T>, Result<Duration>) {
        let (is_over, asked) = (Cell::new(false), Cell::new(0));
        let begun = Instant::now();
        let work = async {
            let done = work.await;
            is_over.set(true);
            done
        };
        let checks = async {
            let mut longest = Duration::ZERO;
            while !is_over.get() {
                let took = match self.one().await {
                    Err(error) if is_the_end && is_soon(&is_over).await => {
                        println!("{what}: the guest has ended ({error:#})");
                        break;
                    }
                    took => took.with_context(|| format!("a Check during {what}"))?,
                };
                asked.set(asked.get() + 1);
                longest = longest.max(took);
                tokio::time::sleep(BEAT).await;
            }
            Ok(longest)
        };
        let (done, longest) = tokio::join!(work, checks);
        if let Ok(longest) = longest {
            println!(
                "{what} took {:?}; the longest of {} Checks took {longest:?}",
                begun.elapsed(),
                asked.get()
            );
        }
        (done, longest)
    }

    async fn one(&self) -> Result<Duration> {
        let asked = Instant::now();
        let request = CheckRequest::new();
        let check = self.client.health.check(AgentClient::call(), &request);
        let answer = tokio::time::timeout(LONGEST, check).await;
        let took = asked.elapsed();
        ensure!(answer.is_ok(), "no answer in {took:?}: something blocks the agent's thread");
        answer??;
        Ok(took)
    }
}

/// Whether it is over now, or in a while.
async fn is_soon(is_over: &Cell<bool>) -> bool {
    let end = Instant::now() + LAST_ANSWER;
    while !is_over.get() && Instant::now() < end {
        tokio::time::sleep(BEAT).await;
    }
    is_over.get()
}
