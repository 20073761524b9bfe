//! Boots guests and speaks to their agent, so that a test reads like a shell script.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use tests::Guest;
//! let guest = Guest::boot().await?;
//! guest.sandbox().await?;
//! let web = guest.container("web").args(["sh", "-c", "exit 7"]).run().await?;
//! assert_eq!(web.wait().await?, 7);
//! # Ok(()) }
//! ```
//!
//! Containers have a busybox as their root. Products come from `make build images`; one that is missing is an error,
//! never a skip. Every guest ends with its [`Guest`], and its console is printed when the test panics.

mod checks;
mod clock;
mod container;
pub mod figures;
mod footprint;
mod guest;
mod inspect;
mod network;
mod options;
mod passfd;
mod plug;
mod pods;
mod process;
mod raw;
mod sandbox;
mod seccomp;
mod silent;
mod storage;
mod tables;
mod until;

pub use checks::Checks;
pub use clock::host_now;
pub use container::{Container, ContainerBuilder, mount};
pub use footprint::{Footprint, Slack};
pub use guest::{Guest, GuestBuilder, Saved, arch, busybox, product, sample};
pub use inspect::{Inspector, Snapshot};
pub use machine::vm::Machine;
pub use network::{address, link};
pub use options::{Options, qemu};
pub use passfd::Passed;
pub use plug::{Port, host_tool, seen};
pub use pods::{Pods, busybox_image, root, sample_path};
pub use process::{Exec, Finished, Running};
pub use raw::{Frame, RawClient, answered_after_half_close};
pub use sandbox::{Http, SANDBOX_PORT, ended, frames};
pub use seccomp::dockers_profile;
pub use silent::Silent;
pub use storage::{VOLUMES, storage, storage_at};
pub use store::arch::Arch;
pub use tables::Tables;
pub use ttrpc::Code;
pub use until::{until, until_some};

/// Code and text of a refused call.
///
/// # Panics
/// When the call succeeded, or failed otherwise than by an answer.
pub fn refusal<T>(result: ttrpc::Result<T>) -> (Code, String) {
    match result {
        Ok(_) => panic!("the call succeeded"),
        Err(ttrpc::Error::RpcStatus(status)) => (status.code(), status.message().to_owned()),
        Err(other) => panic!("no answer: {other}"),
    }
}

/// Checks that a call is refused with a code, and gives the text.
///
/// # Panics
/// When it is not.
pub fn expect_code<T>(result: ttrpc::Result<T>, code: Code) -> String {
    let (got, text) = refusal(result);
    assert_eq!(got, code, "{text}");
    text
}
