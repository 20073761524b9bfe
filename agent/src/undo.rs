//! Steps that can be taken back. Each step of a create pushes its inverse; a failure, a panic, a cancel and a removal run
//! them, newest first.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A list of inverses. Clones are handles to the same list: a thread that works for the owner adds to it, and if the owner
/// does not wait for the thread any more, what it still does is taken back at once. Dropping it does nothing:
/// [`Undo::run`] must be asked for, since inverses block.
#[derive(Clone, Default)]
pub(crate) struct Undo(Arc<Mutex<List>>);

#[derive(Default)]
struct List {
    steps: Vec<Step>,
    /// Whether all was taken back.
    is_over: bool,
}

struct Step {
    what: &'static str,
    inverse: Box<dyn FnOnce() -> Result<(), String> + Send>,
}

impl Step {
    fn take_back(self) -> Result<(), String> {
        // One that panics stops none, either.
        let done =
            catch_unwind(AssertUnwindSafe(self.inverse)).unwrap_or_else(|_| Err("panicked".to_owned()));
        done.map_err(|error| {
            tracing::error!(step = self.what, %error, "cannot undo a step");
            format!("{}: {error}", self.what)
        })
    }
}

impl Undo {
    fn list(&self) -> MutexGuard<'_, List> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes how a step that has just succeeded is taken back. Blocks where all was taken back before.
    pub(crate) fn push(
        &self,
        what: &'static str,
        inverse: impl FnOnce() -> Result<(), String> + Send + 'static,
    ) {
        let step = Step { what, inverse: Box::new(inverse) };
        let mut list = self.list();
        if list.is_over {
            drop(list);
            // Logged, and nobody is left to be told.
            drop(step.take_back());
        } else {
            list.steps.push(step);
        }
    }

    /// Takes all steps back, also those that are added from now on. One that fails is logged, and the others run all the
    /// same. Gives what failed. Blocks.
    pub(crate) fn run(&self) -> Vec<String> {
        let mut failures = Vec::new();
        loop {
            let mut list = self.list();
            list.is_over = true;
            let Some(step) = list.steps.pop() else { return failures };
            drop(list);
            failures.extend(step.take_back().err());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[test]
    fn inverses_run_newest_first_and_neither_failures_nor_panics_stop_any() {
        let order = Arc::new(Mutex::new(Vec::new()));
        let undo = Undo::default();
        for (number, name) in ["first", "second", "third"].into_iter().enumerate() {
            let order = Arc::clone(&order);
            undo.push(name, move || {
                order.lock().unwrap().push(number);
                assert!(number != 2, "a bug");
                if number == 1 { Err("stuck".into()) } else { Ok(()) }
            });
        }
        assert_eq!(undo.run(), ["third: panicked", "second: stuck"]);
        assert_eq!(*order.lock().unwrap(), [2, 1, 0]);
    }

    #[test]
    fn what_is_added_after_the_end_is_taken_back_at_once() {
        let undo = Undo::default();
        let late = undo.clone();
        assert!(undo.run().is_empty());
        let done = Arc::new(Mutex::new(false));
        let flag = Arc::clone(&done);
        late.push("late", move || {
            *flag.lock().unwrap() = true;
            Ok(())
        });
        assert!(*done.lock().unwrap());
        assert!(undo.run().is_empty());
    }
}
