//! The life of one container: started, asked how it is, ended, and started again.
//!
//! This module decides what is done, and when. [`Actions`] does it. So everything here is tested without a guest, and with a
//! clock that does not really wait.
//!
//! ```text
//! begin ─► postStart ─► startup probe ─► liveness, readiness … ─► end ─► policy: done, or wait and begin again
//!            └── fails: the container is ended ──┴──────┘
//! an order to stop: preStop ─► signal ─► grace ─► SIGKILL ─► done
//! ```

use std::pin::Pin;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::RunError;
use super::pod::{Handler, Lifecycle, Probe, Probes, Restart};

const SIGKILL: u32 = 9;
/// How long a container may take to end after SIGKILL.
pub(super) const KILL_GRACE: Duration = Duration::from_secs(5);
/// What is left of the grace period at the least when a hook has used it up, as the kubelet has it.
pub(super) const LEAST_GRACE: Duration = Duration::from_secs(2);
/// The first wait before a container is started again, beyond the first time; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// After so long a life a container's failures are forgotten.
const LONG_LIFE: Duration = Duration::from_secs(600);
/// The status of a container that could not be started again, as Kubernetes has it.
const NOT_STARTED: i32 = 128;

/// What can be done with a container.
pub(super) trait Actions: Send + Sync {
    /// Makes and starts it, anew each time.
    fn begin(&self) -> impl Future<Output = Result<(), RunError>> + Send;
    /// Waits for its end, and all of its output; nothing when that will never be known.
    fn ended(&self) -> impl Future<Output = Option<i32>> + Send;
    /// Sends it a signal; false when the guest does not answer.
    fn signal(&self, number: u32) -> impl Future<Output = bool> + Send;
    /// Removes what is left of it.
    fn remove(&self) -> impl Future<Output = ()> + Send;
    /// Asks it or does something in it, within a time.
    fn ask(&self, handler: &Handler, within: Duration) -> impl Future<Output = Result<(), String>> + Send;
    /// Tells the user.
    fn note(&self, text: String);
    /// Tells others how it is.
    fn tell(&self, state: &State);
}

/// How a container's life should be.
#[derive(Debug, Clone, Default)]
pub(super) struct Course {
    pub(super) restart: Restart,
    pub(super) probes: Probes,
    pub(super) lifecycle: Lifecycle,
    /// How long it may take to end when it is ended for its probes' sake.
    pub(super) grace: Duration,
    pub(super) stop_signal: u32,
}

/// How a container is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct State {
    /// It runs.
    pub(super) running: bool,
    /// It has run, and what is to be done at its start is done.
    pub(super) begun: bool,
    /// Its startup probe has succeeded, if it has one.
    pub(super) started: bool,
    /// It is ready to serve.
    pub(super) ready: bool,
    /// How often it was started again.
    pub(super) restarts: u32,
    /// Its last status.
    pub(super) code: Option<i32>,
    /// It has ended and is not started again.
    pub(super) over: bool,
    /// The guest did not answer.
    pub(super) silent: bool,
}

/// Whether a container that has ended is started again.
fn is_started_again(restart: Restart, code: i32) -> bool {
    match restart {
        Restart::Never => false,
        Restart::OnFailure => code != 0,
        Restart::Always => true,
    }
}

/// How long to wait before a container is started again.
#[derive(Debug, Default)]
struct Backoff {
    failures: u32,
}

impl Backoff {
    fn after(&mut self, life: Duration) -> Duration {
        if life >= LONG_LIFE {
            self.failures = 0;
        }
        let pause = match self.failures {
            0 => Duration::ZERO,
            n => FIRST_PAUSE.saturating_mul(1 << (n - 1).min(10)).min(LONGEST_PAUSE),
        };
        self.failures += 1;
        pause
    }
}

/// Counts answers in a row.
#[derive(Debug, Default)]
struct Tracker {
    good: u32,
    bad: u32,
}

impl Tracker {
    /// What the answers so far come to; nothing while they are too few.
    fn take(&mut self, is_good: bool, probe: &Probe) -> Option<bool> {
        if is_good {
            (self.good, self.bad) = (self.good.saturating_add(1), 0);
            (self.good >= probe.successes).then_some(true)
        } else {
            (self.good, self.bad) = (0, self.bad.saturating_add(1));
            (self.bad >= probe.failures).then_some(false)
        }
    }
}

/// Why a container that runs has to end.
struct Unfit {
    why: String,
    grace: Option<Duration>,
}

/// Keeps a container for as long as its course and the order to stop say. The order is how long it may take to end.
///
/// # Errors
/// When it cannot be started the first time.
pub(super) async fn keep<A: Actions>(
    actions: &A,
    course: &Course,
    state: &watch::Sender<State>,
    mut stop: watch::Receiver<Option<Duration>>,
) -> Result<(), RunError> {
    let change = |change: &dyn Fn(&mut State)| {
        state.send_modify(|state| change(state));
        actions.tell(&state.borrow());
    };
    let mut backoff = Backoff::default();
    loop {
        if let Err(error) = actions.begin().await {
            if state.borrow().restarts == 0 {
                return Err(error);
            }
            actions.note(error.to_string());
            change(&|state| (state.code, state.over) = (Some(NOT_STARTED), true));
            return Ok(());
        }
        change(&|state| state.running = true);
        let since = Instant::now();
        let (code, is_ordered) = live(actions, course, &change, &mut stop).await;
        let Some(code) = code else {
            change(&|state| state.running = false);
            return Ok(());
        };
        let again = !is_ordered && is_started_again(course.restart, code);
        change(&|state| {
            *state = State {
                code: Some(code),
                over: !again,
                running: false,
                ready: false,
                begun: true,
                ..state.clone()
            };
        });
        if !again {
            return Ok(());
        }
        let pause = backoff.after(since.elapsed());
        actions.note(match pause.as_secs() {
            0 => format!("ended with status {code}; it is started again"),
            seconds => format!("ended with status {code}; it is started again in {seconds} s"),
        });
        tokio::select! {
            () = sleep(pause) => {}
            _ = ordered(&mut stop) => {
                change(&|state| state.over = true);
                return Ok(());
            }
        }
        actions.remove().await;
        change(&|state| (state.restarts, state.started) = (state.restarts + 1, false));
    }
}

/// Waits for the order to stop. For ever, when nobody can give it any more.
async fn ordered(stop: &mut watch::Receiver<Option<Duration>>) -> Duration {
    match stop.wait_for(Option::is_some).await.map(|order| *order) {
        Ok(Some(grace)) => grace,
        _ => std::future::pending().await,
    }
}

type Change<'a> = dyn Fn(&dyn Fn(&mut State)) + Send + Sync + 'a;

/// One life, and whether it was ended by order.
async fn live<A: Actions>(
    actions: &A,
    course: &Course,
    change: &Change<'_>,
    stop: &mut watch::Receiver<Option<Duration>>,
) -> (Option<i32>, bool) {
    let mut ended = std::pin::pin!(actions.ended());
    let unfit = tokio::select! {
        biased;
        code = &mut ended => return (code, false),
        grace = ordered(stop) => return (terminate(actions, course, grace, ended, change).await, true),
        unfit = watch_over(actions, course, change) => unfit,
    };
    actions.note(format!("{}; it is ended", unfit.why));
    let grace = unfit.grace.unwrap_or(course.grace);
    (terminate(actions, course, grace, ended, change).await, false)
}

/// Runs what belongs to a start, then asks again and again. Answers when the container has to end.
async fn watch_over<A: Actions>(actions: &A, course: &Course, change: &Change<'_>) -> Unfit {
    if let Some(hook) = &course.lifecycle.post_start
        && let Err(why) = actions.ask(hook, Duration::MAX).await
    {
        return Unfit { why: format!("its postStart hook failed: {why}"), grace: None };
    }
    change(&|state| state.begun = true);
    let Probes { startup, liveness, readiness } = &course.probes;
    if let Some(probe) = startup
        && let Err(why) = probed(actions, probe, Some).await
    {
        return Unfit { why: format!("its startupProbe failed: {why}"), grace: probe.grace };
    }
    change(&|state| (state.started, state.ready) = (true, readiness.is_none()));
    let lives = async {
        match liveness {
            Some(probe) => {
                let why = probed(actions, probe, Result::err).await;
                Unfit { why: format!("its livenessProbe failed: {why}"), grace: probe.grace }
            }
            None => std::future::pending().await,
        }
    };
    let is_ready = async {
        let Some(probe) = readiness else { return std::future::pending::<Unfit>().await };
        probed(actions, probe, |state| {
            change(&|known| known.ready = state.is_ok());
            None
        })
        .await
    };
    tokio::select! {
        unfit = lives => unfit,
        unfit = is_ready => unfit,
    }
}

/// Asks again and again. `take` is told each state that the answers come to, and says when that is enough.
async fn probed<A: Actions, T>(
    actions: &A,
    probe: &Probe,
    take: impl Fn(Result<(), String>) -> Option<T> + Send,
) -> T {
    sleep(probe.delay).await;
    let mut tracker = Tracker::default();
    loop {
        let answer = actions.ask(&probe.handler, probe.timeout).await;
        let enough = match tracker.take(answer.is_ok(), probe) {
            Some(_) => take(answer),
            None => None,
        };
        if let Some(done) = enough {
            return done;
        }
        sleep(probe.period).await;
    }
}

/// Ends a container in order, at the latest by SIGKILL.
async fn terminate<A: Actions>(
    actions: &A,
    course: &Course,
    grace: Duration,
    mut ended: Pin<&mut impl Future<Output = Option<i32>>>,
    change: &Change<'_>,
) -> Option<i32> {
    let mut deadline = Instant::now() + grace;
    if let Some(hook) = &course.lifecycle.pre_stop {
        let hook = timeout_at(deadline, actions.ask(hook, grace));
        tokio::select! {
            code = &mut ended => return code,
            done = hook => match done {
                Ok(Ok(())) => {}
                Ok(Err(why)) => actions.note(format!("its preStop hook failed: {why}")),
                Err(_) => actions.note("its preStop hook took the whole grace period".to_owned()),
            },
        }
        deadline = deadline.max(Instant::now() + LEAST_GRACE);
    }
    if !actions.signal(course.stop_signal).await {
        change(&|state| state.silent = true);
        return None;
    }
    if let Ok(code) = timeout_at(deadline, &mut ended).await {
        return code;
    }
    actions.note(format!("did not end within {} s; killing it", grace.as_secs()));
    if !actions.signal(SIGKILL).await {
        change(&|state| state.silent = true);
        return None;
    }
    let code = timeout(KILL_GRACE, &mut ended).await;
    if code.is_err() {
        actions.note("survived SIGKILL; the guest is switched off under it".to_owned());
    }
    code.ok().flatten()
}

#[cfg(test)]
mod tests;
