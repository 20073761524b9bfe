//! A boot as its guest tells it: everybody reports, on one axis.

use anyhow::{Context as _, Result};
use machine::vm::VmConfig;
use products::bootchart::{self, Chart, Who};
use products::kernel;

use crate::layout;

async fn chart(profile: &str, flavour: &str) -> Result<Chart> {
    let layout = layout();
    let directory = tempfile::tempdir()?;
    let kernel = layout.kernel_file("vmlinux", profile);
    let config = VmConfig::new(kernel, layout.flavour_initrd(flavour), directory.path());
    Ok(bootchart::record(config, &layout.kernel_file("System.map", profile)).await?)
}

/// With a shell behind the debug console and with the agent's own commands there.
#[tokio::test]
async fn everybody_reports_and_nothing_comes_after_ready() -> Result<()> {
    for (profile, flavour) in [(kernel::SHIPPED, "minimal"), ("sandbox", "debug")] {
        let chart = chart(profile, flavour).await?;
        let find = |who: Who, name: &str| {
            let mut spans = chart.spans.iter().filter(|span| span.who == who);
            spans.find(|span| span.name.starts_with(name)).with_context(|| format!("{name}: {chart:#?}"))
        };
        let initcall = find(Who::Initcall, "virtio_vsock_init")?;
        let step = find(Who::Init, "mount proc")?;
        let last = find(Who::Agent, "listen for calls")?;
        assert!(find(Who::Kernel, "kernel, unpack the initramfs")?.length_us > 0);
        let starts = [0, initcall.start_us, step.start_us, last.start_us, chart.ready_us];
        assert!(starts.is_sorted(), "{profile}, {flavour}: {starts:?}");
        assert!(chart.spans.iter().all(|span| span.start_us <= chart.ready_us), "{chart:#?}");
        println!(
            "{profile}, {flavour}: {} pieces, ready after {} ms",
            chart.spans.len(),
            chart.ready_us / 1000
        );
    }
    Ok(())
}
