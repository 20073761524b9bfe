//! The agent's settings, read from the kernel command line.
//!
//! Owns the option table: the names Kata's shims use, the type of each and its default. Promises that parsing is
//! a pure function that never fails: the order of options does not matter, the last of several wins, and what
//! cannot be understood leaves the default in place with a [`Warning`] that says so. Options without an `agent.`
//! prefix belong to others and are passed over; among them `systemd.unified_cgroup_hierarchy` and `cgroup_no_v1`,
//! since the guest has cgroup v2 in any case.
//!
//! Must never do: read files, log, or stop the boot.

mod cmdline;
mod ports;
mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use ports::{Late, Taken};
use value::Setting;
pub use value::{BadServerAddr, Cid, GuestComponents, LogLevel, RestApi, SandboxApi, ServerAddr};

/// The port on which shims expect the API.
pub const API_PORT: u32 = 1024;

/// The port on which shims expect the debug console.
pub const CONSOLE_PORT: u32 = 1026;

/// The port of the sandbox API, on vsock and TCP.
pub const SANDBOX_PORT: u16 = 49983;

const PREFIX: &str = "agent.";

/// Everything that can be set on the kernel command line. `agent.NAME` sets the field NAME.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The least severe level that is logged.
    pub log: LogLevel,
    /// Vsock port that serves the log; none logs to the console. With one, the console gets errors only.
    pub log_vport: Option<NonZeroU32>,
    /// Whether to serve a shell.
    pub debug_console: bool,
    /// Vsock port of that shell; none is the usual one.
    pub debug_console_vport: Option<NonZeroU32>,
    /// Accepted for the shims' sake; means nothing.
    pub devmode: bool,
    /// Whether to export trace spans to the host.
    pub trace: bool,
    /// Where the API is served.
    pub server_addr: ServerAddr,
    /// Vsock port for stdio streams; none leaves stdio to the API.
    pub passfd_listener_port: Option<NonZeroU32>,
    /// How long to wait for a device to appear.
    pub hotplug_timeout: Duration,
    /// Size of stdio pipes in bytes, 0 for the kernel's default.
    pub container_pipe_size: u32,
    /// A TOML file that would replace the command line.
    pub config_file: Option<PathBuf>,
    /// How long to wait for CDI specs.
    pub cdi_timeout: Duration,
    /// Whether containers choose CDI devices by the variable `VISIBLE_CDI_DEVICES`.
    pub visible_cdi_devices: bool,
    /// Whether and where the sandbox API is served, in builds that have it.
    pub sandbox_api: SandboxApi,
    /// The container that requests of the sandbox API are for if they name none; empty is the pod's only workload.
    pub sandbox_api_container: String,
    /// Settings of confidential guests.
    pub confidential: Confidential,
    /// Settings of memory reclaim and compaction.
    pub mem_agent: MemAgent,
    /// Vsock port of the debug console, or of the answer that there is none; no port where another option has taken it.
    pub console_port: Option<u32>,
    /// The options given whose function this agent does not have yet, sorted.
    pub unused: Vec<&'static str>,
}

/// Settings of confidential guests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confidential {
    /// Deadline of a call to the confidential data hub.
    pub cdh_api_timeout: Duration,
    /// Deadline of an image pull in the guest.
    pub image_pull_timeout: Duration,
    /// How long to wait for a guest component's socket.
    pub launch_process_timeout: Duration,
    /// Proxy for the guest components.
    pub https_proxy: String,
    /// Hosts that are reached without a proxy.
    pub no_proxy: String,
    /// What the REST server offers to containers.
    pub guest_components_rest_api: RestApi,
    /// How much of the chain of guest components starts.
    pub guest_components_procs: GuestComponents,
    /// Whether trusted storage protects integrity too.
    pub secure_storage_integrity: bool,
}

/// Settings of memory reclaim (`memcg_`) and compaction (`compact_`). Periods are in seconds, `psi` limits in percent.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is `agent.mem_agent_` and its name; docs/memory.md tells what it does")]
pub struct MemAgent {
    pub enable: bool,
    pub memcg_disable: bool,
    pub memcg_swap: bool,
    pub memcg_swappiness_max: u8,
    pub memcg_period_secs: u64,
    pub memcg_period_psi_percent_limit: u8,
    pub memcg_eviction_psi_percent_limit: u8,
    pub memcg_eviction_run_aging_count_min: u64,
    pub compact_disable: bool,
    pub compact_period_secs: u64,
    pub compact_period_psi_percent_limit: u8,
    pub compact_psi_percent_limit: u8,
    pub compact_sec_max: i64,
    pub compact_order: u8,
    pub compact_threshold: u64,
    pub compact_force_times: u64,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            log: LogLevel::Info,
            log_vport: None,
            debug_console: false,
            debug_console_vport: None,
            devmode: false,
            trace: false,
            server_addr: ServerAddr::Vsock { cid: Cid::Any, port: API_PORT },
            passfd_listener_port: None,
            hotplug_timeout: Duration::from_secs(3),
            container_pipe_size: 0,
            config_file: None,
            cdi_timeout: Duration::from_secs(100),
            visible_cdi_devices: false,
            sandbox_api: SandboxApi::Off,
            sandbox_api_container: String::new(),
            confidential: Confidential::default(),
            mem_agent: MemAgent::default(),
            console_port: Some(CONSOLE_PORT),
            unused: Vec::new(),
        }
    }
}

impl Default for Confidential {
    fn default() -> Self {
        Confidential {
            cdh_api_timeout: Duration::from_secs(50),
            image_pull_timeout: Duration::from_secs(1200),
            launch_process_timeout: Duration::from_secs(6),
            https_proxy: String::new(),
            no_proxy: String::new(),
            guest_components_rest_api: RestApi::Resource,
            guest_components_procs: GuestComponents::ApiServerRest,
            secure_storage_integrity: true,
        }
    }
}

impl Default for MemAgent {
    fn default() -> Self {
        MemAgent {
            enable: false,
            memcg_disable: false,
            memcg_swap: false,
            memcg_swappiness_max: 50,
            memcg_period_secs: 600,
            memcg_period_psi_percent_limit: 1,
            memcg_eviction_psi_percent_limit: 1,
            memcg_eviction_run_aging_count_min: 3,
            compact_disable: false,
            compact_period_secs: 600,
            compact_period_psi_percent_limit: 1,
            compact_psi_percent_limit: 5,
            compact_sec_max: 300,
            compact_order: 9,
            compact_threshold: 1024,
            // The wire type is unsigned, yet Kata's default is the largest signed number.
            compact_force_times: i64::MAX.unsigned_abs(),
        }
    }
}

/// One option: its name without the prefix, whether the agent acts on it, and where its value goes.
struct KnownOption {
    name: &'static str,
    used: bool,
    slot: fn(&mut Config) -> &mut dyn Setting,
}

const fn used(name: &'static str, slot: fn(&mut Config) -> &mut dyn Setting) -> KnownOption {
    KnownOption { name, used: true, slot }
}

const fn unused(name: &'static str, slot: fn(&mut Config) -> &mut dyn Setting) -> KnownOption {
    KnownOption { name, used: false, slot }
}

/// An option of the sandbox API, without which there is nothing to act on it.
const fn sandbox(name: &'static str, slot: fn(&mut Config) -> &mut dyn Setting) -> KnownOption {
    KnownOption { name, used: cfg!(feature = "sandbox-api"), slot }
}

/// All options. A test holds it against the defaults and names that shims rely on.
const OPTIONS: &[KnownOption] = &[
    used("log", |c| &mut c.log),
    used("log_vport", |c| &mut c.log_vport),
    used("debug_console", |c| &mut c.debug_console),
    used("debug_console_vport", |c| &mut c.debug_console_vport),
    unused("devmode", |c| &mut c.devmode),
    unused("trace", |c| &mut c.trace),
    used("server_addr", |c| &mut c.server_addr),
    used("passfd_listener_port", |c| &mut c.passfd_listener_port),
    used("hotplug_timeout", |c| &mut c.hotplug_timeout),
    used("container_pipe_size", |c| &mut c.container_pipe_size),
    unused("config_file", |c| &mut c.config_file),
    used("cdi_timeout", |c| &mut c.cdi_timeout),
    used("visible_cdi_devices", |c| &mut c.visible_cdi_devices),
    sandbox("sandbox_api", |c| &mut c.sandbox_api),
    sandbox("sandbox_api_container", |c| &mut c.sandbox_api_container),
    unused("cdh_api_timeout", |c| &mut c.confidential.cdh_api_timeout),
    unused("image_pull_timeout", |c| &mut c.confidential.image_pull_timeout),
    unused("launch_process_timeout", |c| &mut c.confidential.launch_process_timeout),
    unused("https_proxy", |c| &mut c.confidential.https_proxy),
    unused("no_proxy", |c| &mut c.confidential.no_proxy),
    unused("guest_components_rest_api", |c| &mut c.confidential.guest_components_rest_api),
    unused("guest_components_procs", |c| &mut c.confidential.guest_components_procs),
    unused("secure_storage_integrity", |c| &mut c.confidential.secure_storage_integrity),
    used("mem_agent_enable", |c| &mut c.mem_agent.enable),
    used("mem_agent_memcg_disable", |c| &mut c.mem_agent.memcg_disable),
    used("mem_agent_memcg_swap", |c| &mut c.mem_agent.memcg_swap),
    used("mem_agent_memcg_swappiness_max", |c| &mut c.mem_agent.memcg_swappiness_max),
    used("mem_agent_memcg_period_secs", |c| &mut c.mem_agent.memcg_period_secs),
    used("mem_agent_memcg_period_psi_percent_limit", |c| &mut c.mem_agent.memcg_period_psi_percent_limit),
    used("mem_agent_memcg_eviction_psi_percent_limit", |c| &mut c.mem_agent.memcg_eviction_psi_percent_limit),
    used("mem_agent_memcg_eviction_run_aging_count_min", |c| {
        &mut c.mem_agent.memcg_eviction_run_aging_count_min
    }),
    used("mem_agent_compact_disable", |c| &mut c.mem_agent.compact_disable),
    used("mem_agent_compact_period_secs", |c| &mut c.mem_agent.compact_period_secs),
    used("mem_agent_compact_period_psi_percent_limit", |c| &mut c.mem_agent.compact_period_psi_percent_limit),
    used("mem_agent_compact_psi_percent_limit", |c| &mut c.mem_agent.compact_psi_percent_limit),
    used("mem_agent_compact_sec_max", |c| &mut c.mem_agent.compact_sec_max),
    used("mem_agent_compact_order", |c| &mut c.mem_agent.compact_order),
    used("mem_agent_compact_threshold", |c| &mut c.mem_agent.compact_threshold),
    used("mem_agent_compact_force_times", |c| &mut c.mem_agent.compact_force_times),
];

/// An `agent.` option that could not be taken as it stands. The boot goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The option, with its prefix.
    pub option: String,
    /// Its value; none for a bare word.
    pub value: Option<String>,
    /// What is wrong with it.
    pub reason: Reason,
}

/// Why an option was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// No option has this name.
    Unknown,
    /// The value is not of the option's type.
    Malformed {
        /// What would have been understood.
        expected: &'static str,
        /// The default that stays.
        kept: String,
    },
    /// The port belongs to another service.
    Taken {
        /// The option that it belongs to, without its prefix.
        owner: &'static str,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "kernel command line: {}", self.option)?;
        if let Some(value) = &self.value {
            write!(out, "={value}")?;
        }
        match &self.reason {
            Reason::Unknown => write!(out, ": no such option, ignored"),
            Reason::Taken { owner } => write!(out, ": the port of {PREFIX}{owner}, ignored"),
            Reason::Malformed { expected, kept } => {
                write!(out, ": expected {expected}, keeping the default ")?;
                out.write_str(if kept.is_empty() { "(empty)" } else { kept })
            }
        }
    }
}

impl Config {
    /// Reads the settings from a kernel command line as in `/proc/cmdline`.
    ///
    /// Warnings come sorted by option. Never fails and never panics.
    pub fn parse(line: &str) -> (Config, Vec<Warning>) {
        // The last of several wins, so collecting into a map is all it takes to be independent of order.
        let given: BTreeMap<&str, Option<&str>> = cmdline::split(line)
            .filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?, value)))
            .collect();
        let mut config = Config::default();
        let mut warnings = Vec::new();
        for (name, value) in given {
            let reason = match OPTIONS.iter().find(|entry| entry.name == name) {
                None => Reason::Unknown,
                Some(entry) => match (entry.slot)(&mut config).set(value) {
                    Err(rejected) => Reason::Malformed { expected: rejected.expected, kept: rejected.kept },
                    Ok(()) if entry.used => continue,
                    Ok(()) => {
                        config.unused.push(entry.name);
                        continue;
                    }
                },
            };
            let value = value.map(str::to_owned);
            warnings.push(Warning { option: format!("{PREFIX}{name}"), value, reason });
        }
        warnings.extend(config.settle_ports());
        warnings.sort_by(|one, other| one.option.cmp(&other.option));
        (config, warnings)
    }

    /// Gives each port to one service, the API first. Who comes late goes without, and is told so. The boot goes on in any case.
    fn settle_ports(&mut self) -> impl Iterator<Item = Warning> + use<> {
        let mut taken = Taken::default();
        // The default port stays the API's, which falls back to it where the other address cannot be had.
        taken.take(API_PORT, "server_addr");
        if let ServerAddr::Vsock { port, .. } = self.server_addr {
            taken.take(port, "server_addr");
        }
        if self.debug_console {
            taken.keep("debug_console_vport", &mut self.debug_console_vport);
            if self.debug_console_vport.is_none() {
                let mut usual = NonZeroU32::new(CONSOLE_PORT);
                taken.keep("debug_console", &mut usual);
                self.debug_console = usual.is_some();
            }
        }
        taken.keep("log_vport", &mut self.log_vport);
        taken.keep("passfd_listener_port", &mut self.passfd_listener_port);
        if cfg!(feature = "sandbox-api") && self.sandbox_api != SandboxApi::Off {
            let mut port = NonZeroU32::new(SANDBOX_PORT.into());
            taken.keep("sandbox_api", &mut port);
            if port.is_none() {
                self.sandbox_api = SandboxApi::Off;
            }
        }
        // A console that is off has a port as well, to say so.
        let refusing = self.debug_console_vport.map_or(CONSOLE_PORT, NonZeroU32::get);
        self.console_port = match self.debug_console {
            true => Some(refusing),
            false => Some(refusing).filter(|port| taken.owner(*port).is_none()),
        };
        taken.late().into_iter().map(|Late { option, port, owner }| Warning {
            option: format!("{PREFIX}{option}"),
            value: Some(port.to_string()),
            reason: Reason::Taken { owner },
        })
    }
}

#[cfg(test)]
mod tests;
