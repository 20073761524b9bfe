//! The API as its `.proto` files describe it: services, methods and their messages. No list of methods is written here.

use anyhow::{Context as _, Result, ensure};
use protobuf::reflect::{MessageDescriptor, MethodDescriptor, ReflectValueBox};
use protobuf::{MessageDyn, MessageFull};
use protocols::{agent, health};

/// A method.
#[derive(Clone)]
pub(crate) struct Method {
    /// With its package.
    pub(crate) service: String,
    pub(crate) name: String,
    pub(crate) input: MessageDescriptor,
    pub(crate) output: MessageDescriptor,
}

impl Method {
    fn new(service: &str, method: &MethodDescriptor) -> Method {
        Method {
            service: service.to_owned(),
            name: method.proto().name().to_owned(),
            input: method.input_type(),
            output: method.output_type(),
        }
    }

    /// Whether its request names a container.
    pub(crate) fn takes(&self, field: &str) -> bool {
        self.input.field_by_name(field).is_some()
    }

    /// A request of its type with these bytes, and then text in some of its fields.
    pub(crate) fn request(&self, bytes: &[u8], texts: &[(&str, &str)]) -> Result<Vec<u8>> {
        let mut message: Box<dyn MessageDyn> = self.input.parse_from_bytes(bytes)?;
        for (field, text) in texts {
            let descriptor = self.input.field_by_name(field).with_context(|| format!("field {field}"))?;
            descriptor.set_singular_field(&mut *message, ReflectValueBox::String((*text).to_owned()));
        }
        Ok(message.write_to_bytes_dyn()?)
    }

    /// Checks that the messages of a call are the method's.
    pub(crate) fn check<Q: MessageFull, A: MessageFull>(&self) -> Result<()> {
        let (input, output) = (Q::descriptor(), A::descriptor());
        ensure!(
            input.full_name() == self.input.full_name(),
            "{} takes {}",
            self.name,
            self.input.full_name()
        );
        ensure!(
            output.full_name() == self.output.full_name(),
            "{} answers {}",
            self.name,
            self.output.full_name()
        );
        Ok(())
    }
}

/// All methods, in the order of the `.proto` files.
pub(crate) fn methods() -> Vec<Method> {
    let mut all = Vec::new();
    for file in [agent::file_descriptor(), health::file_descriptor()] {
        for service in file.services() {
            let name = format!("{}.{}", file.package(), service.proto().name());
            all.extend(service.methods().map(|method| Method::new(&name, &method)));
        }
    }
    all
}
