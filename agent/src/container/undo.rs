//! Steps that can be taken back. Each step of a create pushes its inverse; a failure runs them, newest first.

/// A list of inverses. Dropping it does nothing: [`Undo::run`] must be asked for, since inverses block.
#[derive(Default)]
pub(super) struct Undo {
    steps: Vec<(&'static str, Inverse)>,
}

type Inverse = Box<dyn FnOnce() -> Result<(), String> + Send + Sync>;

impl Undo {
    /// Notes how a step that has just succeeded is taken back.
    pub(super) fn push(
        &mut self,
        what: &'static str,
        inverse: impl FnOnce() -> Result<(), String> + Send + Sync + 'static,
    ) {
        self.steps.push((what, Box::new(inverse)));
    }

    /// Takes all steps back. One that fails is logged, and the others run all the same. Gives what failed.
    pub(super) fn run(self) -> Vec<String> {
        let mut failures = Vec::new();
        for (what, inverse) in self.steps.into_iter().rev() {
            if let Err(error) = inverse() {
                tracing::error!(step = what, %error, "cannot undo a step");
                failures.push(format!("{what}: {error}"));
            }
        }
        failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[test]
    fn inverses_run_newest_first_and_a_failure_stops_none() {
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut undo = Undo::default();
        for (number, name) in ["first", "second", "third"].into_iter().enumerate() {
            let order = Arc::clone(&order);
            undo.push(name, move || {
                order.lock().unwrap().push(number);
                if number == 1 { Err("stuck".into()) } else { Ok(()) }
            });
        }
        assert_eq!(undo.run(), ["second: stuck"]);
        assert_eq!(*order.lock().unwrap(), [2, 1, 0]);
    }
}
