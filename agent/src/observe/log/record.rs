//! One log record as a line of JSON.

use std::error::Error;
use std::fmt;
use std::time::SystemTime;

use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Level, Metadata};

use super::timestamp::Rfc3339;

/// What every record has. A field of the same name gets a `_` behind it.
const OWN_KEYS: [&str; 7] = ["msg", "level", "ts", "version", "pid", "name", "source"];

/// Longest text of a value in bytes; a record must not take the guest's memory.
const LONGEST: usize = 8 * 1024;

/// The fields of an event or span, in the order they came.
#[derive(Default)]
pub(super) struct Fields(Vec<(&'static str, Value)>);

impl Fields {
    /// Takes over all of `other`, which win over what is there.
    pub(super) fn extend(&mut self, other: &Fields) {
        for (key, value) in &other.0 {
            self.set(key, value.clone());
        }
    }

    /// Whether the event says that it ends something for good.
    pub(super) fn is_critical(&self) -> bool {
        self.0.iter().any(|(key, value)| *key == "critical" && *value == Value::Bool(true))
    }

    fn set(&mut self, key: &'static str, value: Value) {
        match self.0.iter_mut().find(|(known, _)| *known == key) {
            Some((_, old)) => *old = value,
            None => self.0.push((key, value)),
        }
    }

    fn take(&mut self, key: &str) -> Option<Value> {
        let at = self.0.iter().position(|(known, _)| *known == key)?;
        Some(self.0.remove(at).1)
    }

    fn take_text(&mut self, key: &str) -> Option<String> {
        match self.take(key)? {
            Value::String(text) => Some(text),
            other => Some(other.to_string()),
        }
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field.name(), Value::from(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field.name(), Value::from(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field.name(), Value::from(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field.name(), Value::from(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field.name(), Value::String(shortened(value.to_owned())));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.set(field.name(), Value::String(shortened(crate::error::chain(value))));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field.name(), Value::String(shortened(format!("{value:?}"))));
    }
}

/// Cuts text that is too long, and says so.
fn shortened(mut text: String) -> String {
    if text.len() > LONGEST {
        let whole = text.len();
        let end = (0..=LONGEST).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push_str(&format!("... ({whole} bytes)"));
    }
    text
}

/// The record of an event, with the newline that ends it.
pub(super) fn line(metadata: &Metadata<'_>, mut fields: Fields, now: SystemTime) -> String {
    let critical = fields.is_critical();
    if critical {
        let _true = fields.take("critical");
    }
    // Records of the `log` crate carry what they know of their origin as fields.
    let target = fields.take_text("log.target");
    for key in ["log.module_path", "log.file", "log.line"] {
        let _origin = fields.take(key);
    }
    let target = target.as_deref().unwrap_or(metadata.target());
    let subsystem = fields.take_text("subsystem").unwrap_or_else(|| subsystem(target).to_owned());
    let message = fields.take_text("message").unwrap_or_default();
    let level = if critical { "CRIT" } else { level(*metadata.level()) };
    compose(message, level, subsystem, &fields, now)
}

/// The record that says how many were lost before it.
pub(super) fn lost(count: u64, now: SystemTime) -> String {
    let message = format!("{count} log records dropped: the console is too slow");
    compose(message, "WARN", "observe".to_owned(), &Fields::default(), now)
}

/// The record that tells a reader of the log port how many it missed before it; `dropped` has the number.
pub(super) fn dropped(count: u64, now: SystemTime) -> String {
    let message = format!("{count} log records dropped: older than what is kept for readers");
    let fields = Fields(vec![("dropped", Value::from(count))]);
    compose(message, "WARN", "observe".to_owned(), &fields, now)
}

fn compose(message: String, level: &str, subsystem: String, fields: &Fields, now: SystemTime) -> String {
    let mut object = Object::new();
    object.put("msg", &Value::String(message));
    object.put("level", &Value::from(level));
    object.put("ts", &Value::String(Rfc3339(now).to_string()));
    object.put("subsystem", &Value::String(subsystem));
    for (key, value) in &fields.0 {
        match OWN_KEYS.contains(key) {
            true => object.put(&format!("{key}_"), value),
            false => object.put(key, value),
        }
    }
    object.put("version", &Value::from(env!("CARGO_PKG_VERSION")));
    object.put("pid", &Value::String(std::process::id().to_string()));
    object.put("name", &Value::from("kata-agent"));
    object.put("source", &Value::from("agent"));
    object.finish()
}

/// The agent's module an event comes from, or the foreign crate.
fn subsystem(target: &str) -> &str {
    let mut parts = target.split("::");
    match (parts.next(), parts.next()) {
        (Some("agent"), Some(module)) => module,
        (Some(first), _) => first,
        (None, _) => target,
    }
}

fn level(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERRO",
        Level::WARN => "WARN",
        Level::INFO => "INFO",
        Level::DEBUG => "DEBG",
        Level::TRACE => "TRCE",
    }
}

/// Writes an object key by key, so that what people read first comes first.
struct Object(String);

impl Object {
    fn new() -> Self {
        Object(String::with_capacity(256))
    }

    fn put(&mut self, key: &str, value: &Value) {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        // `Display` of a JSON value is its text, escapes and all; control characters never reach the console raw.
        self.0.push_str(&Value::from(key).to_string());
        self.0.push(':');
        self.0.push_str(&value.to_string());
    }

    fn finish(mut self) -> String {
        self.0.push_str("}\n");
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_subsystem_is_the_module_or_the_foreign_crate() {
        assert_eq!(subsystem("agent::network::links"), "network");
        assert_eq!(subsystem("agent"), "agent");
        assert_eq!(subsystem("ttrpc::asynchronous::server"), "ttrpc");
        assert_eq!(subsystem(""), "");
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(shortened("short".to_owned()), "short");
        let long = shortened("\u{20ac}".repeat(LONGEST));
        assert!(long.len() < LONGEST + 40, "{}", long.len());
        assert!(long.ends_with(&format!("\u{20ac}... ({} bytes)", 3 * LONGEST)));
    }

    #[test]
    fn objects_escape_keys_and_values() {
        let mut object = Object::new();
        object.put("a\"b", &Value::from("line\nbell\u{7}"));
        object.put("n", &Value::from(1.5));
        let text = object.finish();
        assert_eq!(text, "{\"a\\\"b\":\"line\\nbell\\u0007\",\"n\":1.5}\n");
    }
}
