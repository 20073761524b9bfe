//! What the calls of the API work on. `boot` makes it, the service holds it, and each call gets the part it needs.

use std::sync::Arc;
use std::time::Duration;

use crate::container::Tools;
use crate::files::Copies;
use crate::guest::clock::Clock;
use crate::guest::memory::MemAgent;
use crate::network::Network;
use crate::observe::metrics::Metrics;
use crate::patience::Patience;
use crate::pod::Pod;

/// See the module.
pub(crate) struct Api {
    pub(crate) pod: Arc<Pod>,
    pub(crate) tools: Arc<Tools>,
    pub(crate) network: Network,
    pub(crate) metrics: Metrics,
    pub(crate) copies: Copies,
    /// What waits where a file system does.
    pub(crate) copying: Patience,
    #[cfg(feature = "policy")]
    pub(crate) policy: crate::policy::Policy,
    pub(crate) clock: Clock,
    pub(crate) mem_agent: MemAgent,
    /// How long the kernel may take to notice that a volume grew.
    pub(crate) hotplug_timeout: Duration,
}
