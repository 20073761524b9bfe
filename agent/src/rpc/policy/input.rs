//! What a policy sees of a request: its message as JSON.
//!
//! COMPAT(kata): `a_create_request_has_the_shape_that_generated_policies_expect`. Policies are written, or generated, for the
//! shape that serde gives to the structs that rust-protobuf generates:
//!
//! ```text
//! field           its name in the .proto, with `_` appended where that is a word of Rust (`type` -> `type_`)
//! message         object with all of its fields; null where it is absent
//! repeated, map   array, object; empty where there is nothing, never null
//! number, bool    as such, 64 bits too; 0 and false where absent
//! string          as such; "" where absent
//! optional        null where absent
//! bytes           array of numbers
//! enum            its number
//! oneof           null, or an object of one field: the name of the one that is there, capitalised
//! CopyFileRequest its own: no `data`, but `file_type`, `symlink_target` and `symlink_src`
//! ```
//!
//! Must never leave out what a handler acts on, but for the content of files.

use protobuf::MessageDyn;
use protobuf::reflect::{FieldDescriptor, ReflectFieldRef, ReflectValueRef};
use protocols::agent::CopyFileRequest;
use serde_json::{Map, Value, json};

/// As an array of numbers, a byte takes tens of bytes. Shims write to a process's input in pieces of at most 32 KiB.
const BYTES: usize = 64 << 10;

/// Words of Rust that the API has as names.
const WORDS: [&str; 1] = ["type"];

/// The input of a request's rule.
///
/// # Errors
/// When the request is too large to be judged.
pub(super) fn of(message: &dyn MessageDyn) -> Result<Value, String> {
    match message.downcast_ref::<CopyFileRequest>() {
        Some(request) => copy_file(request),
        None => object(message),
    }
}

fn object(message: &dyn MessageDyn) -> Result<Value, String> {
    let descriptor = message.descriptor_dyn();
    let mut fields = Map::new();
    for oneof in descriptor.oneofs() {
        let given = oneof.fields().find(|field| field.has_field(message));
        let variant = given
            .map(|field| Ok::<_, String>(json!({ capitalised(field.name()): singular(&field, message)? })));
        fields.insert(oneof.name().to_owned(), variant.transpose()?.unwrap_or(Value::Null));
    }
    for field in descriptor.fields().filter(|field| field.containing_oneof().is_none()) {
        let value = match field.get_reflect(message) {
            ReflectFieldRef::Repeated(items) => {
                Value::Array(items.into_iter().map(value).collect::<Result<_, _>>()?)
            }
            ReflectFieldRef::Map(entries) => {
                let mut map = Map::new();
                for (key, item) in &entries {
                    map.insert(key.to_string(), value(item)?);
                }
                Value::Object(map)
            }
            ReflectFieldRef::Optional(_) => singular(&field, message)?,
        };
        fields.insert(name(&field), value);
    }
    Ok(Value::Object(fields))
}

fn name(field: &FieldDescriptor) -> String {
    let name = field.name();
    if WORDS.contains(&name) { format!("{name}_") } else { name.to_owned() }
}

fn capitalised(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect()
}

fn singular(field: &FieldDescriptor, message: &dyn MessageDyn) -> Result<Value, String> {
    let is_message = matches!(field.singular_runtime_type(), protobuf::reflect::RuntimeType::Message(_));
    let may_be_absent = is_message || field.containing_oneof_including_synthetic().is_some();
    if may_be_absent && !field.has_field(message) {
        return Ok(Value::Null);
    }
    value(field.get_singular_field_or_default(message))
}

fn value(value: ReflectValueRef<'_>) -> Result<Value, String> {
    Ok(match value {
        ReflectValueRef::U32(number) => number.into(),
        ReflectValueRef::U64(number) => number.into(),
        ReflectValueRef::I32(number) | ReflectValueRef::Enum(_, number) => number.into(),
        ReflectValueRef::I64(number) => number.into(),
        ReflectValueRef::F32(number) => number.into(),
        ReflectValueRef::F64(number) => number.into(),
        ReflectValueRef::Bool(truth) => truth.into(),
        ReflectValueRef::String(text) => text.into(),
        ReflectValueRef::Bytes(bytes) if bytes.len() > BYTES => {
            return Err(format!("{} bytes at once are too many to be judged; {BYTES} are not", bytes.len()));
        }
        ReflectValueRef::Bytes(bytes) => bytes.into(),
        ReflectValueRef::Message(message) => object(&*message)?,
    })
}

/// The bits of a mode that tell what it is.
const KIND: u32 = 0o170_000;
const LINK: u32 = 0o120_000;

/// The content of a file has no part in the decision; a link's target has, as text.
fn copy_file(request: &CopyFileRequest) -> Result<Value, String> {
    let (file_type, is_link) = match request.file_mode & KIND {
        0o100_000 => ("Regular", false),
        0o040_000 => ("Directory", false),
        LINK => ("Symlink", true),
        _ => ("Unknown", false),
    };
    let target = if is_link {
        Some(str::from_utf8(&request.data).map_err(|_| "the link's target is not UTF-8".to_owned())?)
    } else {
        None
    };
    Ok(json!({
        "path": request.path,
        "file_type": file_type,
        "symlink_target": target,
        // What the field was called before; the same policies are still about.
        "symlink_src": target.unwrap_or_default(),
        "file_size": request.file_size,
        "file_mode": request.file_mode,
        "dir_mode": request.dir_mode,
        "uid": request.uid,
        "gid": request.gid,
        "offset": request.offset,
    }))
}

#[cfg(test)]
mod tests;
