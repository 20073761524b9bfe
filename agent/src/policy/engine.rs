//! One policy and its state, on the interpreter `regorus`.
//!
//! Owns what a policy is to this agent: the package `agent_policy`, a rule per request named after its message, the
//! document `data.pstate` that rules read and, by the `ops` of their answers, write, and the switch
//! `AllowRequestsFailingPolicy`. Promises that an evaluation ends, and that a refused or failed one leaves the state as
//! it was. Must never allow a call because of an error.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use regorus::PolicyLengthConfig;
use regorus::utils::limits::ExecutionTimerConfig;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::patch::{self, Operation};

/// How long one evaluation may take. A generated policy of some thousand lines takes milliseconds, and tens of them
/// under emulation.
const TIME: Duration = Duration::from_secs(5);

/// How many steps of the interpreter go between two looks at the clock.
const STEPS: NonZeroU32 = NonZeroU32::new(64).unwrap();

/// Generated policies have environment variables of kilobytes on one line; the interpreter's own limits are for
/// policies written by hand. A message of the API cannot have more than 4 MiB anyway.
const LENGTH: PolicyLengthConfig = PolicyLengthConfig {
    max_col: NonZeroU32::new(64 << 10).unwrap(),
    max_file_bytes: NonZeroUsize::new(4 << 20).unwrap(),
    max_lines: NonZeroUsize::new(200_000).unwrap(),
};

/// How much of what a rule printed goes into the refusal, in bytes: the end, where it failed.
const PRINTS: usize = 4096;

const PACKAGE: &str = "data.agent_policy";

/// The rule that turns refusals into warnings, to find out why a policy refuses.
const LENIENT: &str = "AllowRequestsFailingPolicy";

/// A policy that is understood.
pub(super) struct Engine {
    rego: regorus::Engine,
    /// The document `data`.
    state: Value,
    lenient: bool,
}

/// What an allowed call brings with it.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Allowed {
    /// The new state, if the rule changed it.
    pub(super) state: Option<Value>,
    /// Why the call would have been refused by a policy that is not lenient.
    pub(super) ignored: Option<String>,
}

/// A rule's answer that is not just yes or no.
#[derive(Deserialize)]
struct Answer {
    allowed: bool,
    ops: Option<Vec<Operation>>,
}

impl Engine {
    /// Understands a policy, in Rego of either version. `state` is what an earlier one of the same text left, or
    /// [`fresh`].
    ///
    /// # Errors
    /// What is wrong with it, with line and column.
    pub(super) fn parse(source: &str, state: Value) -> Result<Engine, String> {
        let mut engine = Engine { rego: compile(source, &state)?, state, lenient: false };
        // This also finds what a parser does not: calls in circles, unknown functions.
        let mut prints = Vec::new();
        engine.lenient = match engine.evaluate(LENIENT, json!({}), &mut prints)? {
            None => false,
            Some(Value::Bool(lenient)) => lenient,
            Some(other) => return Err(format!("{LENIENT} is {other}, neither true nor false")),
        };
        Ok(engine)
    }

    /// Whether refusals are ignored.
    pub(super) fn lenient(&self) -> bool {
        self.lenient
    }

    /// Asks the rule named `request`.
    ///
    /// # Errors
    /// The reason of a refusal.
    pub(super) fn judge(&mut self, request: &str, input: Value) -> Result<Allowed, String> {
        let mut prints = Vec::new();
        let value = self.evaluate(request, input, &mut prints);
        let prints = tail(&prints.join(" "), PRINTS).to_owned();
        let refused = |reason: &str| if prints.is_empty() { reason.to_owned() } else { prints.clone() };
        let refusal = match value? {
            Some(Value::Bool(true)) => return Ok(Allowed::default()),
            Some(Value::Bool(false)) => refused("its rule says no"),
            None => refused("it has no rule that holds"),
            Some(Value::Object(answer)) => {
                let answer: Answer = serde_json::from_value(Value::Object(answer))
                    .map_err(|error| format!("its rule's answer is not understood: {error}"))?;
                if answer.allowed {
                    let state = self.remember(&answer.ops.unwrap_or_default())?;
                    return Ok(Allowed { state, ignored: None });
                }
                refused("its rule says no")
            }
            Some(other) => {
                let other = other.to_string();
                return Err(format!(
                    "its rule's answer is neither true, false nor an object: {}",
                    tail(&other, 100)
                ));
            }
        };
        if self.lenient {
            return Ok(Allowed { state: None, ignored: Some(refusal) });
        }
        Err(refusal)
    }

    /// The value of a rule; none where it is undefined.
    fn evaluate(
        &mut self,
        rule: &str,
        input: Value,
        prints: &mut Vec<String>,
    ) -> Result<Option<Value>, String> {
        // It becomes part of a query.
        if rule.is_empty() || !rule.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(format!("{rule:?} is no name of a request"));
        }
        self.rego.set_input(input.into());
        let results = self.rego.eval_query(format!("{PACKAGE}.{rule}"), false);
        // Large inputs do not stay until the next call.
        self.rego.set_input(regorus::Value::new_object());
        prints.extend(self.rego.take_prints().unwrap_or_default());
        let results = results
            .map_err(|error| format!("its evaluation failed: {}", tail(&error.to_string(), PRINTS)))?;
        let mut values = results.result.into_iter().flat_map(|result| result.expressions);
        let (value, more) = (values.next(), values.next());
        if more.is_some() {
            return Err("its rule has more than one answer".into());
        }
        match value.map(|expression| expression.value) {
            None | Some(regorus::Value::Undefined) => Ok(None),
            Some(value) => serde_json::to_value(value)
                .map(Some)
                .map_err(|error| format!("its rule's answer is not understood: {error}")),
        }
    }

    /// Changes the state, or refuses.
    fn remember(&mut self, operations: &[Operation]) -> Result<Option<Value>, String> {
        if operations.is_empty() {
            return Ok(None);
        }
        let failed = |error: String| format!("what its rule wants remembered cannot be: {error}");
        let state = patch::apply(&self.state, operations).map_err(failed)?;
        if !state.is_object() {
            return Err(failed("the state is no object any more".into()));
        }
        self.rego.clear_data();
        self.rego.add_data(state.clone().into()).map_err(|error| failed(error.to_string()))?;
        self.state = state.clone();
        Ok(Some(state))
    }
}

/// The state of a policy that has judged nothing yet.
pub(super) fn fresh() -> Value {
    json!({ "pstate": {} })
}

/// Tries the language of today, then the one before it: generated policies come in both, and no text means something
/// else in the other.
fn compile(source: &str, state: &Value) -> Result<regorus::Engine, String> {
    let parse = |v0| -> Result<regorus::Engine, String> {
        let mut rego = regorus::Engine::new();
        rego.set_rego_v0(v0);
        rego.set_strict_builtin_errors(false);
        rego.set_gather_prints(true);
        rego.set_policy_length_config(LENGTH);
        rego.set_execution_timer_config(ExecutionTimerConfig { limit: TIME, check_interval: STEPS });
        let package =
            rego.add_policy("policy".into(), source.to_owned()).map_err(|error| error.to_string())?;
        if package != PACKAGE {
            let package = package.trim_start_matches("data.");
            return Err(format!("its package is {package}, where agent_policy is expected"));
        }
        rego.add_data(state.clone().into()).map_err(|error| error.to_string())?;
        Ok(rego)
    };
    parse(false).or_else(|reason| parse(true).map_err(|_| reason))
}

/// The last `most` bytes of a text, or fewer where a character would be cut.
fn tail(text: &str, most: usize) -> &str {
    let mut start = text.len().saturating_sub(most);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}
