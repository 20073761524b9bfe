//! Lives of containers that are written down beforehand, by a clock that does not wait.

use std::sync::{Arc, Mutex};

use super::*;
use crate::run::pod::Handler;

/// A container whose lives and answers are written down beforehand.
#[derive(Default)]
struct Script {
    /// How long each life is, and its status.
    lives: Mutex<Vec<(u64, i32)>>,
    /// What probes answer, from the last to the first; good when there are none left.
    answers: Mutex<Vec<bool>>,
    /// Whether signals but SIGKILL are passed over.
    stubborn: bool,
    /// What was done, and when in seconds.
    log: Mutex<Vec<(u64, String)>>,
    since: Mutex<Option<Instant>>,
    killed: tokio::sync::Notify,
    last: Mutex<i32>,
    told: Mutex<Vec<State>>,
}

impl Script {
    fn new(lives: &[(u64, i32)]) -> Self {
        let mut lives = lives.to_vec();
        lives.reverse();
        Self { lives: Mutex::new(lives), ..Self::default() }
    }

    fn wrote(&self, what: impl Into<String>) {
        let since = *self.since.lock().unwrap().get_or_insert_with(Instant::now);
        self.log.lock().unwrap().push((since.elapsed().as_secs(), what.into()));
    }

    fn log(&self) -> Vec<(u64, String)> {
        self.log.lock().unwrap().clone()
    }

    fn starts(&self) -> Vec<u64> {
        self.log().into_iter().filter(|(_, what)| what == "begin").map(|(at, _)| at).collect()
    }
}

impl Actions for Script {
    async fn begin(&self) -> Result<(), RunError> {
        self.wrote("begin");
        Ok(())
    }

    async fn ended(&self) -> Option<i32> {
        let life = self.lives.lock().unwrap().pop();
        match life {
            Some((seconds, code)) => {
                tokio::select! {
                    () = sleep(Duration::from_secs(seconds)) => Some(code),
                    () = self.killed.notified() => Some(*self.last.lock().unwrap()),
                }
            }
            None => {
                self.killed.notified().await;
                Some(*self.last.lock().unwrap())
            }
        }
    }

    async fn signal(&self, number: u32) -> bool {
        self.wrote(format!("signal {number}"));
        if !self.stubborn || number == SIGKILL {
            *self.last.lock().unwrap() = 128 + number.cast_signed();
            self.killed.notify_one();
        }
        true
    }

    async fn remove(&self) {
        self.wrote("remove");
    }

    async fn ask(&self, handler: &Handler, within: Duration) -> Result<(), String> {
        match handler {
            Handler::Sleep(time) => {
                sleep((*time).min(within)).await;
                self.wrote("hook");
                Ok(())
            }
            _ => match self.answers.lock().unwrap().pop().unwrap_or(true) {
                true => Ok(()),
                false => Err("no".to_owned()),
            },
        }
    }

    fn note(&self, text: String) {
        self.wrote(text);
    }

    fn tell(&self, state: &State) {
        self.told.lock().unwrap().push(state.clone());
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn probe(failures: u32) -> Probe {
    Probe {
        handler: Handler::Exec(vec!["x".into()]),
        delay: seconds(5),
        period: seconds(10),
        timeout: seconds(1),
        successes: 1,
        failures,
        grace: None,
    }
}

fn course(restart: Restart) -> Course {
    Course { restart, grace: seconds(30), stop_signal: 15, ..Course::default() }
}

/// Runs a life until it is over, or until it is ordered to stop after so many seconds.
async fn run(script: Script, course: Course, stop_after: Option<u64>) -> (Arc<Script>, State) {
    let script = Arc::new(script);
    let (state, seen) = watch::channel(State::default());
    let (order, stop) = watch::channel(None);
    let kept = Arc::clone(&script);
    let task = tokio::spawn(async move { keep(&*kept, &course, &state, stop).await.unwrap() });
    if let Some(after) = stop_after {
        sleep(seconds(after)).await;
        order.send_replace(Some(seconds(30)));
    }
    task.await.unwrap();
    let last = seen.borrow().clone();
    (script, last)
}

#[tokio::test(start_paused = true)]
async fn a_container_is_started_again_as_its_policy_says() {
    for (restart, lives, starts, code) in [
        (Restart::Never, &[(1, 3)][..], 1, 3),
        (Restart::OnFailure, &[(1, 3), (1, 4), (1, 0)][..], 3, 0),
        (Restart::OnFailure, &[(1, 0)][..], 1, 0),
    ] {
        let (script, state) = run(Script::new(lives), course(restart), None).await;
        assert_eq!(
            (script.starts().len(), state.code, state.over),
            (starts, Some(code), true),
            "{restart:?}"
        );
        assert_eq!(state.restarts as usize, starts - 1);
    }
}

#[tokio::test(start_paused = true)]
async fn the_pause_doubles_and_is_forgotten_after_a_long_life() {
    let lives = [(1, 0), (1, 0), (1, 0), (1, 0), (1000, 0), (1, 0)];
    let (script, state) = run(Script::new(&lives), course(Restart::Always), Some(5000)).await;
    // At once, then 10, 20 and 40 s; after the long life at once again.
    assert_eq!(script.starts(), [0, 1, 12, 33, 74, 1074, 1085]);
    assert!(state.over);
    let mut backoff = Backoff::default();
    let pauses: Vec<u64> = (0..9).map(|_| backoff.after(Duration::ZERO).as_secs()).collect();
    assert_eq!(pauses, [0, 10, 20, 40, 80, 160, 300, 300, 300]);
}

#[tokio::test(start_paused = true)]
async fn an_order_to_stop_ends_a_life_and_a_pause() {
    let (script, state) = run(Script::new(&[]), course(Restart::Always), Some(7)).await;
    assert_eq!(script.log(), [(0, "begin".into()), (7, "signal 15".into())]);
    assert_eq!((state.code, state.over), (Some(143), true));
    // In the pause of 10 s after the second failure.
    let (script, state) = run(Script::new(&[(1, 5), (1, 6)]), course(Restart::Always), Some(4)).await;
    assert_eq!((script.starts().len(), state.code, state.over), (2, Some(6), true));
}

#[tokio::test(start_paused = true)]
async fn who_does_not_obey_is_killed_after_the_grace_period() {
    let script = Script { stubborn: true, ..Script::new(&[]) };
    let (script, state) = run(script, course(Restart::Never), Some(1)).await;
    let log = script.log();
    assert_eq!(
        log[1..],
        [
            (1, "signal 15".to_owned()),
            (31, "did not end within 30 s; killing it".to_owned()),
            (31, "signal 9".to_owned()),
        ]
    );
    assert_eq!(state.code, Some(137));
}

#[tokio::test(start_paused = true)]
async fn hooks_stand_at_both_ends() {
    let lifecycle = Lifecycle {
        post_start: Some(Handler::Sleep(seconds(3))),
        pre_stop: Some(Handler::Sleep(seconds(4))),
        stop_signal: None,
    };
    let with = |lifecycle| Course { lifecycle, ..course(Restart::Never) };
    let (script, _) = run(Script::new(&[]), with(lifecycle.clone()), Some(10)).await;
    let expected = [(0, "begin"), (3, "hook"), (14, "hook"), (14, "signal 15")];
    assert_eq!(script.log(), expected.map(|(at, what)| (at, what.to_owned())));
    // A hook that takes the whole time leaves two seconds.
    let endless = Lifecycle { pre_stop: Some(Handler::Sleep(seconds(1000))), ..Lifecycle::default() };
    let script = Script { stubborn: true, ..Script::new(&[]) };
    let (script, _) = run(script, with(endless), Some(10)).await;
    let signals: Vec<_> = script.log().into_iter().filter(|(_, what)| what.starts_with("signal")).collect();
    assert_eq!(signals, [(40, "signal 15".to_owned()), (42, "signal 9".to_owned())]);
    // One that fails ends the container.
    let failing = Lifecycle { post_start: Some(Handler::Exec(vec![])), ..Lifecycle::default() };
    let script = Script { answers: Mutex::new(vec![false]), ..Script::new(&[]) };
    let (_, state) = run(script, with(failing), None).await;
    assert_eq!((state.code, state.begun), (Some(143), true));
}

#[tokio::test(start_paused = true)]
async fn a_liveness_probe_ends_a_container_that_fails_so_often_in_a_row() {
    let probes = Probes { liveness: Some(probe(2)), ..Probes::default() };
    // Good, bad, good, bad, bad: from the last to the first.
    let script = Script { answers: Mutex::new(vec![false, false, true, false, true]), ..Script::new(&[]) };
    let (script, state) = run(script, Course { probes, ..course(Restart::OnFailure) }, Some(60)).await;
    let signals: Vec<u64> =
        script.log().into_iter().filter(|(_, what)| what == "signal 15").map(|(at, _)| at).collect();
    assert_eq!(signals, [45, 60], "the second is the order");
    assert_eq!((state.restarts, script.starts()), (1, vec![0, 45]));
}

#[tokio::test(start_paused = true)]
async fn the_other_probes_wait_for_startup_and_readiness_ends_nothing() {
    let probes = Probes { startup: Some(probe(3)), readiness: Some(probe(1)), ..Probes::default() };
    let course = Course { probes, ..course(Restart::Never) };
    // Startup: bad, good; readiness: good, bad, good.
    let answers = Mutex::new(vec![true, false, true, true, false]);
    let (script, state) = run(Script { answers, ..Script::new(&[]) }, course.clone(), Some(100)).await;
    let ready: Vec<bool> = script.told.lock().unwrap().iter().map(|state| state.ready).collect();
    let changes: Vec<bool> = ready.windows(2).filter(|two| two[0] != two[1]).map(|two| two[1]).collect();
    assert_eq!(changes, [true, false, true, false]);
    assert_eq!(state.code, Some(143), "by order");
    // A startup probe that never succeeds ends it.
    let answers = Mutex::new(vec![false; 3]);
    let (script, state) = run(Script { answers, ..Script::new(&[]) }, course, None).await;
    assert!(!state.started && state.over, "{:?}", script.log());
    assert!(script.log().iter().any(|(at, what)| *at == 25 && what.contains("startupProbe failed: no")));
}
