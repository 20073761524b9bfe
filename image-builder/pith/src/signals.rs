//! Ends work on SIGINT and SIGTERM. What the work has started or half written is removed.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How long work may take to end when it is told to.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs `work` until it ends or a signal asks for the end; then `work` is dropped, which undoes it, and the exit
/// status is the shell's for that signal.
///
/// # Errors
/// As `work`.
pub async fn interruptible(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<ExitCode> {
    interruptible_with(async { work.await.map(|()| ExitCode::SUCCESS) }).await
}

/// As [`interruptible`], where the work decides the exit status.
///
/// # Errors
/// As `work`.
pub async fn interruptible_with(
    work: impl Future<Output = anyhow::Result<ExitCode>>,
) -> anyhow::Result<ExitCode> {
    let mut asked = End::listen()?;
    // Dropped with this scope, and the task with it.
    let mut insists = tokio::task::JoinSet::new();
    insists.spawn(insist(End::listen()?));
    let number = tokio::select! {
        result = work => return result,
        number = asked.next() => number,
    };
    eprintln!("stopped by signal {number}; nothing was left behind");
    Ok(ExitCode::from(128 + number))
}

/// As [`interruptible`], for work that has an answer: the exit status in its place when a signal has ended it.
///
/// # Errors
/// As `work`.
pub async fn interruptible_for<T>(
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<Result<T, ExitCode>> {
    let mut answer = None;
    let code = interruptible(async {
        answer = Some(work.await?);
        Ok(())
    })
    .await?;
    Ok(answer.ok_or(code))
}

/// Ends this process when work that is told to stop does not: it may stand in a write to a pipe that nobody reads. What it
/// leaves behind then is tidied up by a later command.
async fn insist(mut asked: End) {
    asked.next().await;
    // A second signal is a word, too.
    drop(tokio::time::timeout(PATIENCE, asked.next()).await);
    nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).ok();
}

/// Signals that ask a command to end.
pub(crate) struct End([Signal; 3]);

impl End {
    /// Listens from now on.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self([
            listen(SignalKind::interrupt())?,
            listen(SignalKind::terminate())?,
            listen(SignalKind::hangup())?,
        ]))
    }

    /// The number of the next one.
    pub(crate) async fn next(&mut self) -> u8 {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => 2,
            _ = terminate.recv() => 15,
            _ = hangup.recv() => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_that_ends_decides_the_exit_status() {
        assert_eq!(interruptible(async { Ok(()) }).await.unwrap(), ExitCode::SUCCESS);
        let error = interruptible(async { anyhow::bail!("no") }).await.unwrap_err();
        assert_eq!(error.to_string(), "no");
    }

    #[tokio::test]
    async fn a_signal_drops_the_work_and_is_the_exit_status() {
        struct Undo(std::rc::Rc<std::cell::Cell<bool>>);
        impl Drop for Undo {
            fn drop(&mut self) {
                self.0.set(true);
            }
        }
        let undone = std::rc::Rc::new(std::cell::Cell::new(false));
        let undo = Undo(undone.clone());
        let code = interruptible(async move {
            let _undo = undo;
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGTERM)?;
            std::future::pending().await
        });
        assert_eq!(code.await.unwrap(), ExitCode::from(143));
        assert!(undone.get());
    }
}
