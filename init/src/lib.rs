//! What PID 1 owes the kernel before anything else can run, and how it ends.
//!
//! Owns: the early mounts, device nodes and links of `/dev`, delegation of the cgroup controllers, the limits of
//! the agent's own process, the host name at boot, power off and reboot.
//!
//! Promises: the whole boot is a table ([`TABLE`]) of printable [`Step`]s. It can run twice, and what the kernel
//! or an earlier run did already is left as it is. A step that fails never stops the ones after it: the report
//! says what happened and the caller decides.
//!
//! Must never do: read the agent's options, start processes, touch the network, log. The root file system stays
//! where it is, but an initramfs is put on a mount of its own: without that, containers could not be pivoted.

#![forbid(unsafe_code)]

mod acpi;
mod execute;
mod hostname;
mod power;
mod psci;
mod step;

pub use execute::{BootReport, Outcome, Ran, StepError, boot, since_boot};
pub use hostname::{HostnameError, set_hostname};
pub use power::{End, PowerError, power_off, reboot};
pub use step::{BootStep, Mount, Need, Node, Step, TABLE};

/// Whether this process is the init of its pid namespace: of the guest, unless a test says otherwise.
pub fn is_pid1() -> bool {
    nix::unistd::getpid().as_raw() == 1
}
