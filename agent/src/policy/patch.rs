//! JSON patches (RFC 6902), by which a policy's rules change its state.
//!
//! Promises that a patch takes effect as a whole or not at all, and that an operation on what is not there is an error.

use serde::Deserialize;
use serde_json::Value;

/// One step of a patch.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub(super) enum Operation {
    /// Puts a value into an object or an array; in an object it may replace one.
    Add { path: String, value: Value },
    /// Takes a value away.
    Remove { path: String },
    /// Puts another value where one is.
    Replace { path: String, value: Value },
    /// Takes a value to another place.
    Move { from: String, path: String },
    /// Puts a value into a second place too.
    Copy { from: String, path: String },
    /// Fails where the value is another.
    Test { path: String, value: Value },
}

/// What becomes of a document.
///
/// # Errors
/// The first step that cannot be done.
pub(super) fn apply(document: &Value, patch: &[Operation]) -> Result<Value, String> {
    let mut document = document.clone();
    for operation in patch {
        step(&mut document, operation)?;
    }
    Ok(document)
}

fn step(document: &mut Value, operation: &Operation) -> Result<(), String> {
    match operation {
        Operation::Add { path, value } => add(document, path, value.clone()),
        Operation::Remove { path } => remove(document, path).map(drop),
        Operation::Replace { path, value } => {
            *document.pointer_mut(path).ok_or_else(|| missing(path))? = value.clone();
            Ok(())
        }
        Operation::Move { from, path } => {
            if path.strip_prefix(from.as_str()).is_some_and(|rest| rest.starts_with('/')) {
                return Err(format!("{from:?} cannot be moved into itself"));
            }
            let value = remove(document, from)?;
            add(document, path, value)
        }
        Operation::Copy { from, path } => {
            let value = document.pointer(from).ok_or_else(|| missing(from))?.clone();
            add(document, path, value)
        }
        Operation::Test { path, value } => {
            let found = document.pointer(path).ok_or_else(|| missing(path))?;
            if found == value { Ok(()) } else { Err(format!("{path:?} has another value")) }
        }
    }
}

fn missing(path: &str) -> String {
    format!("there is nothing at {path:?}")
}

/// Splits a pointer into the parent's and the last name, unescaped.
fn split(path: &str) -> Result<(&str, String), String> {
    let (parent, name) = path.rsplit_once('/').ok_or_else(|| format!("{path:?} is no JSON pointer"))?;
    Ok((parent, name.replace("~1", "/").replace("~0", "~")))
}

/// An index as the RFC writes it: no sign, no leading zero.
fn index(name: &str) -> Option<usize> {
    let plain = name == "0" || (!name.starts_with('0') && name.bytes().all(|byte| byte.is_ascii_digit()));
    if plain { name.parse().ok() } else { None }
}

fn add(document: &mut Value, path: &str, value: Value) -> Result<(), String> {
    if path.is_empty() {
        *document = value;
        return Ok(());
    }
    let (parent, name) = split(path)?;
    match document.pointer_mut(parent).ok_or_else(|| missing(parent))? {
        Value::Object(object) => {
            object.insert(name, value);
            Ok(())
        }
        Value::Array(array) if name == "-" => {
            array.push(value);
            Ok(())
        }
        Value::Array(array) => match index(&name) {
            Some(at) if at <= array.len() => {
                array.insert(at, value);
                Ok(())
            }
            _ => Err(missing(path)),
        },
        _ => Err(missing(path)),
    }
}

fn remove(document: &mut Value, path: &str) -> Result<Value, String> {
    if path.is_empty() {
        return Err("the whole document cannot be removed".into());
    }
    let (parent, name) = split(path)?;
    let removed = match document.pointer_mut(parent).ok_or_else(|| missing(parent))? {
        Value::Object(object) => object.remove(&name),
        Value::Array(array) => index(&name).filter(|at| *at < array.len()).map(|at| array.remove(at)),
        _ => None,
    };
    removed.ok_or_else(|| missing(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn patched(document: Value, patch: Value) -> Result<Value, String> {
        let patch: Vec<Operation> = serde_json::from_value(patch).map_err(|error| error.to_string())?;
        apply(&document, &patch)
    }

    #[test]
    fn every_operation_does_what_the_rfc_says() {
        let document = json!({"a": {"b": [1, 2]}, "x/y": 1, "m~n": 2});
        for (patch, expected) in [
            (
                json!([{"op": "add", "path": "/a/c", "value": 3}]),
                json!({"a": {"b": [1, 2], "c": 3}, "x/y": 1, "m~n": 2}),
            ),
            (
                json!([{"op": "add", "path": "/a/b/1", "value": 3}]),
                json!({"a": {"b": [1, 3, 2]}, "x/y": 1, "m~n": 2}),
            ),
            (
                json!([{"op": "add", "path": "/a/b/-", "value": 3}]),
                json!({"a": {"b": [1, 2, 3]}, "x/y": 1, "m~n": 2}),
            ),
            (json!([{"op": "remove", "path": "/x~1y"}]), json!({"a": {"b": [1, 2]}, "m~n": 2})),
            (json!([{"op": "remove", "path": "/a/b/0"}]), json!({"a": {"b": [2]}, "x/y": 1, "m~n": 2})),
            (
                json!([{"op": "replace", "path": "/m~0n", "value": null}]),
                json!({"a": {"b": [1, 2]}, "x/y": 1, "m~n": null}),
            ),
            (
                json!([{"op": "move", "from": "/a/b", "path": "/b"}]),
                json!({"a": {}, "b": [1, 2], "x/y": 1, "m~n": 2}),
            ),
            (
                json!([{"op": "copy", "from": "/x~1y", "path": "/a/b/-"}]),
                json!({"a": {"b": [1, 2, 1]}, "x/y": 1, "m~n": 2}),
            ),
            (json!([{"op": "test", "path": "/a/b", "value": [1, 2]}]), document.clone()),
            (json!([{"op": "add", "path": "", "value": 1}]), json!(1)),
        ] {
            assert_eq!(patched(document.clone(), patch.clone()).as_ref(), Ok(&expected), "{patch}");
        }
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        for patch in [
            json!([{"op": "add", "path": "/none/x", "value": 1}]),
            json!([{"op": "add", "path": "/a/3", "value": 1}]),
            json!([{"op": "add", "path": "/a/01", "value": 1}]),
            json!([{"op": "add", "path": "/a/x", "value": 1}]),
            json!([{"op": "add", "path": "/n/x", "value": 1}]),
            json!([{"op": "add", "path": "n", "value": 1}]),
            json!([{"op": "add", "path": "/n"}]),
            json!([{"op": "remove", "path": "/none"}]),
            json!([{"op": "remove", "path": "/a/-"}]),
            json!([{"op": "remove", "path": ""}]),
            json!([{"op": "replace", "path": "/none", "value": 1}]),
            json!([{"op": "move", "from": "/a", "path": "/a/b"}]),
            json!([{"op": "copy", "from": "/none", "path": "/b"}]),
            json!([{"op": "test", "path": "/n", "value": 2}]),
            json!([{"op": "paint", "path": "/n"}]),
        ] {
            assert!(patched(json!({"a": [1, 2], "n": 1}), patch.clone()).is_err(), "{patch}");
        }
    }
}
