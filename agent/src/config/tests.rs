//! The option table, option by option, and properties of the parser.

use super::*;
use proptest::prelude::*;

fn clean(line: &str) -> Config {
    let (config, warnings) = Config::parse(line);
    assert_eq!(warnings, [], "{line}");
    config
}

/// Every option of Kata's agent with a value that is not the default.
const ALL: &[(&str, &str)] = &[
    ("log", "debug"),
    ("log_vport", "1025"),
    ("debug_console", "1"),
    ("debug_console_vport", "1026"),
    ("devmode", "true"),
    ("trace", "true"),
    ("server_addr", "vsock://-1:2048"),
    ("passfd_listener_port", "1027"),
    ("hotplug_timeout", "30"),
    ("container_pipe_size", "2097152"),
    ("config_file", "/etc/agent.toml"),
    ("cdi_timeout", "5"),
    ("sandbox_api", "vsock"),
    ("sandbox_api_container", "c1"),
    ("visible_cdi_devices", "true"),
    ("cdh_api_timeout", "60"),
    ("image_pull_timeout", "60"),
    ("launch_process_timeout", "60"),
    ("https_proxy", "http://proxy:3128"),
    ("no_proxy", "10.0.0.0/8,localhost"),
    ("guest_components_rest_api", "all"),
    ("guest_components_procs", "none"),
    ("secure_storage_integrity", "false"),
    ("mem_agent_enable", "1"),
    ("mem_agent_memcg_disable", "1"),
    ("mem_agent_memcg_swap", "1"),
    ("mem_agent_memcg_swappiness_max", "60"),
    ("mem_agent_memcg_period_secs", "300"),
    ("mem_agent_memcg_period_psi_percent_limit", "2"),
    ("mem_agent_memcg_eviction_psi_percent_limit", "2"),
    ("mem_agent_memcg_eviction_run_aging_count_min", "4"),
    ("mem_agent_compact_disable", "1"),
    ("mem_agent_compact_period_secs", "300"),
    ("mem_agent_compact_period_psi_percent_limit", "2"),
    ("mem_agent_compact_psi_percent_limit", "6"),
    ("mem_agent_compact_sec_max", "200"),
    ("mem_agent_compact_order", "6"),
    ("mem_agent_compact_threshold", "2048"),
    ("mem_agent_compact_force_times", "7"),
];

#[test]
fn an_empty_line_and_a_foreign_one_give_the_defaults() {
    assert_eq!(clean(""), Config::default());
    let foreign =
        "console=ttyS0 quiet systemd.unified_cgroup_hierarchy=1 cgroup_no_v1=all agent agentx.y=1 panic=-1\n";
    assert_eq!(clean(foreign), Config::default());
}

#[test]
fn the_defaults_are_those_that_shims_count_on() {
    let config = Config::default();
    assert_eq!(config.log, LogLevel::Info);
    assert_eq!(config.server_addr, ServerAddr::Vsock { cid: Cid::Any, port: 1024 });
    assert_eq!(config.hotplug_timeout, Duration::from_secs(3));
    assert_eq!(config.container_pipe_size, 0);
    assert_eq!(config.confidential.launch_process_timeout, Duration::from_secs(6));
    assert_eq!(config.mem_agent.compact_force_times, 9_223_372_036_854_775_807);
}

#[test]
fn every_option_is_known_and_changes_something() {
    assert_eq!(ALL.len(), OPTIONS.len());
    for (name, value) in ALL {
        let config = clean(&format!("agent.{name}={value}"));
        let used = OPTIONS.iter().find(|entry| entry.name == *name).unwrap().used;
        assert_eq!(config.unused.is_empty(), used, "{name}");
        let without_list = Config { unused: Vec::new(), ..config };
        assert_ne!(without_list, Config::default(), "agent.{name}={value} changed nothing");
    }
}

#[test]
fn what_the_shims_send_is_understood() {
    let config = clean(
        "reboot=k panic=1 agent.log=debug agent.debug_console agent.debug_console_vport=1026 agent.log_vport=1025 \
         agent.passfd_listener_port=1027 agent.trace=true agent.hotplug_timeout=10",
    );
    assert_eq!(config.log, LogLevel::Debug);
    assert!(config.debug_console && config.trace);
    assert_eq!(config.debug_console_vport.map(NonZeroU32::get), Some(1026));
    assert_eq!(config.log_vport.map(NonZeroU32::get), Some(1025));
    assert_eq!(config.passfd_listener_port.map(NonZeroU32::get), Some(1027));
    assert_eq!(config.hotplug_timeout, Duration::from_secs(10));
    assert_eq!(config.unused, ["trace"]);
}

#[test]
fn flags_may_be_bare_or_have_a_value() {
    for (line, on) in [
        ("agent.debug_console", true),
        ("agent.debug_console=1", true),
        ("agent.debug_console=true", true),
        ("agent.debug_console=0", false),
        ("agent.debug_console=False", false),
    ] {
        assert_eq!(clean(line).debug_console, on, "{line}");
    }
}

#[test]
fn the_last_of_several_wins() {
    assert_eq!(clean("agent.log=debug agent.log=warning").log, LogLevel::Warn);
    let (config, warnings) = Config::parse("agent.log=debug agent.log=loud");
    assert_eq!((config.log, warnings.len()), (LogLevel::Info, 1));
}

#[test]
fn memory_settings_do_not_depend_on_enable_coming_first() {
    let config = clean("agent.mem_agent_compact_order=5 agent.mem_agent_enable=1");
    assert!(config.mem_agent.enable);
    assert_eq!(config.mem_agent.compact_order, 5);
}

#[test]
fn a_port_belongs_to_one_service_and_the_api_comes_first() {
    let ports = |config: &Config| {
        let numbers = [config.debug_console_vport, config.log_vport, config.passfd_listener_port];
        (numbers.map(|port| port.map_or(0, NonZeroU32::get)), config.debug_console, config.console_port)
    };
    for (line, kept, warned) in [
        (
            "agent.log_vport=1024",
            ([0, 0, 0], false, Some(1026)),
            &["agent.log_vport=1024: the port of agent.server_addr"][..],
        ),
        (
            "agent.passfd_listener_port=1024",
            ([0, 0, 0], false, Some(1026)),
            &["agent.passfd_listener_port=1024"],
        ),
        // Where the address cannot be had, the API is served where it always is.
        (
            "agent.server_addr=unix:///x agent.log_vport=1024",
            ([0, 0, 0], false, Some(1026)),
            &["agent.log_vport"],
        ),
        (
            "agent.server_addr=vsock://-1:7 agent.log_vport=7",
            ([0, 0, 0], false, Some(1026)),
            &["agent.log_vport=7"],
        ),
        (
            "agent.log_vport=9 agent.passfd_listener_port=9",
            ([0, 9, 0], false, Some(1026)),
            &["the port of agent.log_vport"],
        ),
        ("agent.log_vport=1026", ([0, 1026, 0], false, None), &[]),
        ("agent.server_addr=vsock://-1:1026", ([0, 0, 0], false, None), &[]),
        (
            "agent.debug_console agent.log_vport=1026",
            ([0, 0, 0], true, Some(1026)),
            &["the port of agent.debug_console, ignored"],
        ),
        (
            "agent.debug_console agent.debug_console_vport=1024",
            ([0, 0, 0], true, Some(1026)),
            &["agent.debug_console_vport=1024"],
        ),
        (
            "agent.debug_console agent.debug_console_vport=1024 agent.server_addr=vsock://-1:1026",
            ([0, 0, 0], false, None),
            &["agent.debug_console=1026: the port of agent.server_addr", "agent.debug_console_vport=1024"],
        ),
        (
            "agent.debug_console agent.debug_console_vport=5 agent.log_vport=5 agent.passfd_listener_port=1026",
            ([5, 0, 1026], true, Some(5)),
            &["agent.log_vport=5: the port of agent.debug_console_vport"],
        ),
    ] {
        let (config, warnings) = Config::parse(line);
        assert_eq!(ports(&config), kept, "{line}");
        let warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        assert_eq!(warnings.len(), warned.len(), "{line}: {warnings:?}");
        assert!(
            warnings.iter().zip(warned).all(|(warning, text)| warning.contains(text)),
            "{line}: {warnings:?}"
        );
    }
}

#[test]
fn quotes_protect_spaces() {
    let config = clean(r#"agent.no_proxy="a, b" agent.log=trace"#);
    assert_eq!(config.confidential.no_proxy, "a, b");
    assert_eq!(config.log, LogLevel::Trace);
}

#[test]
fn what_is_wrong_is_named_with_the_default_that_stays() {
    for (line, text) in [
        (
            "agent.log=loud",
            "kernel command line: agent.log=loud: expected fatal, panic, critical, error, warn, warning, info, \
             debug or trace, keeping the default info",
        ),
        ("agent.log", "expected fatal, panic,"),
        (
            "agent.hotplug_timeout=0",
            "kernel command line: agent.hotplug_timeout=0: expected whole seconds from 1 to 4294967295, keeping the \
             default 3 s",
        ),
        ("agent.hotplug_timeout=-1", "expected whole seconds"),
        ("agent.container_pipe_size=2147483648", "keeping the default 0"),
        ("agent.container_pipe_size=-1", "expected a size in bytes"),
        ("agent.log_vport=4294967295", "expected a vsock port"),
        ("agent.server_addr=tcp://0.0.0.0:1", "keeping the default vsock://-1:1024"),
        ("agent.config_file=agent.toml", "expected an absolute path, keeping the default (empty)"),
        ("agent.trace=maybe", "expected true or false, keeping the default false"),
        ("agent.nonsense=1", "kernel command line: agent.nonsense=1: no such option, ignored"),
        ("agent.", "kernel command line: agent.: no such option, ignored"),
    ] {
        let (config, warnings) = Config::parse(line);
        assert_eq!(config, Config::default(), "{line}");
        let [warning] = &warnings[..] else { panic!("{line}: {warnings:?}") };
        assert!(warning.to_string().contains(text), "{line}: {warning}");
    }
}

#[test]
fn server_addresses() {
    for (text, addr) in [
        ("vsock://-1:1024", ServerAddr::Vsock { cid: Cid::Any, port: 1024 }),
        ("vsock://4294967295:1", ServerAddr::Vsock { cid: Cid::Any, port: 1 }),
        ("vsock://3:5000", ServerAddr::Vsock { cid: Cid::Is(3), port: 5000 }),
        ("unix:///run/agent.sock", ServerAddr::Unix(PathBuf::from("/run/agent.sock"))),
    ] {
        assert_eq!(text.parse(), Ok(addr), "{text}");
    }
    for text in [
        "",
        "vsock://",
        "vsock://3",
        "vsock://3:",
        "vsock://3:0",
        "vsock://-2:1",
        "vsock://3:4294967295",
        "unix://",
        "unix:///",
        "unix://relative",
        "1024",
    ] {
        assert_eq!(text.parse::<ServerAddr>(), Err(BadServerAddr), "{text}");
    }
}

fn option() -> impl Strategy<Value = String> {
    let known = prop::sample::select(ALL).prop_map(|(name, value)| format!("agent.{name}={value}"));
    let wrong = (prop::sample::select(ALL), "[ -~]{0,8}")
        .prop_map(|((name, _), value)| format!("agent.{name}={}", value.replace([' ', '"'], "_")));
    let foreign = "[a-z.]{1,8}(=[a-z0-9]{0,4})?";
    prop_oneof![known, wrong, foreign]
}

proptest! {
    #[test]
    fn any_text_is_taken(line in any::<String>()) {
        let (_config, warnings) = Config::parse(&line);
        for warning in warnings {
            prop_assert!(warning.option.starts_with("agent."));
        }
    }

    #[test]
    fn any_agent_value_is_taken(name in prop::sample::select(ALL), value in "\\PC{0,20}") {
        let (_config, warnings) = Config::parse(&format!("agent.{}={value}", name.0));
        // A space starts another option, which may be wrong as well.
        prop_assert!(warnings.len() <= 1 + value.matches("agent.").count());
    }

    #[test]
    fn order_does_not_matter(
        (sorted, shuffled) in prop::collection::btree_map("[a-z]{0,3}", option(), 0..20).prop_flat_map(|options| {
            let mut options: Vec<String> = options.into_values().collect();
            options.sort_by_key(|option| option.split('=').next().map(str::to_owned));
            options.dedup_by_key(|option| option.split('=').next().map(str::to_owned));
            (Just(options.clone()), Just(options).prop_shuffle())
        })
    ) {
        prop_assert_eq!(Config::parse(&sorted.join(" ")), Config::parse(&shuffled.join(" ")));
    }
}
