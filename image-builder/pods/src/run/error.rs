//! What can go wrong while a pod runs.

use super::network::NetworkError;
use super::pod::PodError;
use super::spec::SpecError;
use super::state::StateError;
use images::image::ImageError;
use machine::vm::{DialError, VmError};
use protocols::client::CallError;

/// Why a pod or a command in it failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The manifest.
    #[error(transparent)]
    Pod(#[from] PodError),
    /// A container's specification.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// An image.
    #[error("container {container}: its image cannot be used")]
    Image {
        /// The container.
        container: String,
        /// Why.
        #[source]
        source: Box<ImageError>,
    },
    /// The machine.
    #[error(transparent)]
    Vm(#[from] VmError),
    /// The guest was not reached.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The network.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The guest's agent was built without the sandbox API.
    #[error(
        "the guest has no sandbox API: its agent was built without it; boot the initrd of flavour sandbox \
         (`image-builder initrd --flavour sandbox` makes it)"
    )]
    NoSandboxApi,
    /// The agent refused a call.
    #[error("{call} {subject}: {message}")]
    Call {
        /// The call.
        call: &'static str,
        /// For what.
        subject: String,
        /// The agent's code and words.
        message: String,
    },
    /// The guest went away.
    #[error("the guest went off by itself; the end of its console:\n{0}")]
    GuestGone(String),
    /// A local file or stream.
    #[error("cannot {operation} {subject}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        subject: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

impl RunError {
    pub(super) fn io(operation: &'static str, subject: impl ToString, source: std::io::Error) -> Self {
        Self::Io { operation, subject: subject.to_string(), source }
    }

    /// An agent's refusal, for [`Result::map_err`].
    pub(super) fn call(call: &'static str, subject: impl ToString) -> impl FnOnce(ttrpc::Error) -> Self {
        let subject = subject.to_string();
        move |error| Self::Call { call, subject, message: CallError::from(error).to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_call_code_and_words() {
        let refusal = ttrpc::Error::RpcStatus(ttrpc::get_status(ttrpc::Code::NOT_FOUND, "no such container"));
        let error = RunError::call("StartContainer", "web-a")(refusal);
        assert_eq!(error.to_string(), "StartContainer web-a: NOT_FOUND: no such container");
    }
}
