//! What a container's actor can be asked to do.

use oci_spec::runtime::LinuxResources;
use tokio::sync::oneshot;

use super::create::CreateRequest;
use super::error::ContainerError;
use super::exec::ExecRequest;
use super::view::PodView;

/// Where the outcome of a job goes.
pub(super) type Reply = oneshot::Sender<Result<(), ContainerError>>;

/// A job in a container's queue.
pub(super) enum Job {
    Create(Box<CreateRequest>, PodView, Reply),
    Start(Reply),
    Exec(Box<ExecRequest>, Reply),
    Pause(Reply),
    Resume(Reply),
    Update(Box<LinuxResources>, Reply),
    Remove(Reply),
}
