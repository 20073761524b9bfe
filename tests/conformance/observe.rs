//! Health and metrics.

use anyhow::{Result, ensure};
use protocols::agent::{GetMetricsRequest, Metrics};
use protocols::health::{
    CheckRequest, HealthCheckResponse, VersionCheckResponse, health_check_response::ServingStatus,
};

use crate::case::{Case, cases};
use crate::world::World;

pub(crate) const CASES: &[Case] = cases! {
    Bare "Check" Success the_agent_serves_from_the_start;
    Bare "Check" Failure a_check_of_garbage_is_refused;
    Bare "Version" Success api_and_agent_have_versions;
    Bare "Version" Failure a_version_asked_for_with_garbage_is_refused;
    Pod "GetMetrics" Success metrics_are_text_with_the_names_that_monitors_scrape;
    Pod "GetMetrics" Failure metrics_asked_for_with_garbage_are_refused;
};

async fn the_agent_serves_from_the_start(world: &World) -> Result<()> {
    // What it is asked about does not matter.
    for service in ["", "grpc.AgentService", "nonsense"] {
        let request = CheckRequest { service: service.into(), ..Default::default() };
        let response: HealthCheckResponse = world.ok("Check", &request).await?;
        ensure!(response.status.enum_value() == Ok(ServingStatus::SERVING), "{response:?}");
    }
    Ok(())
}

async fn a_check_of_garbage_is_refused(world: &World) -> Result<()> {
    world.garbage("Check").await.map(drop)
}

async fn api_and_agent_have_versions(world: &World) -> Result<()> {
    let response: VersionCheckResponse = world.ok("Version", &CheckRequest::new()).await?;
    ensure!(response.grpc_version == "0.0.1", "{response:?}");
    ensure!(response.agent_version.split('.').count() == 3, "{response:?}");
    Ok(())
}

async fn a_version_asked_for_with_garbage_is_refused(world: &World) -> Result<()> {
    world.garbage("Version").await.map(drop)
}

/// The value of a sample.
fn sample(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

async fn metrics_are_text_with_the_names_that_monitors_scrape(world: &World) -> Result<()> {
    let scrape = async || -> Result<String> {
        let metrics: Metrics = world.ok("GetMetrics", &GetMetricsRequest::new()).await?;
        Ok(metrics.metrics)
    };
    let first = scrape().await?;
    let second = scrape().await?;
    let names = [
        "kata_agent_threads",
        "kata_agent_total_time",
        "kata_agent_total_vm",
        "kata_agent_total_rss",
        "kata_agent_proc_status",
        "kata_agent_io_stat",
        "kata_agent_proc_stat",
        "kata_guest_load",
        "kata_guest_tasks",
        "kata_guest_cpu_time",
        "kata_guest_vm_stat",
        "kata_guest_netdev_stat",
        "kata_guest_diskstat",
        "kata_guest_meminfo",
    ];
    for name in names {
        ensure!(second.contains(&format!("# TYPE {name} ")), "{name} is missing");
    }
    let counts = [&first, &second].map(|text| sample(text, "kata_agent_scrape_count"));
    ensure!(counts[0].is_some() && counts[1] > counts[0], "scrapes: {counts:?}");
    // Every other line is a name, labels and a number.
    for line in second.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let value = line.rsplit_once(' ').and_then(|(_, value)| value.parse::<f64>().ok());
        ensure!(value.is_some(), "{line:?} has no value");
    }
    Ok(())
}

async fn metrics_asked_for_with_garbage_are_refused(world: &World) -> Result<()> {
    world.garbage("GetMetrics").await.map(drop)
}
