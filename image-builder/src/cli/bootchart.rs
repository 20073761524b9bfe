//! `image-builder bootchart`.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use clap::Args;
use machine::vm::{Accel, Machine, VmConfig};
use products::bootchart;
use products::kernel::{self, arch::Arch, profile::Profile};
use store::cache;

use super::global::Global;

/// `image-builder bootchart`.
#[derive(Debug, Args)]
pub(crate) struct BootchartArgs {
    /// The kernel's profile.
    #[arg(long, default_value = kernel::SHIPPED, value_name = "NAME")]
    profile: String,
    /// The flavour.
    #[arg(long, default_value = store::layout::SHIPPED, value_name = "NAME")]
    flavour: String,
    /// The machine model.
    #[arg(long, value_enum, default_value_t)]
    machine: Machine,
    /// The accelerator.
    #[arg(long, value_enum, default_value_t)]
    accel: Accel,
    /// Draw the boot into FILE.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// How many of the longest steps to list.
    #[arg(long, default_value_t = 12, value_name = "N")]
    longest: usize,
}

impl BootchartArgs {
    /// Runs the command.
    pub(crate) async fn execute(self, global: &Global) -> anyhow::Result<()> {
        let layout = global.products()?;
        let arch = Profile::load(&layout.kernel_config(), &self.profile)?.arch;
        ensure!(
            arch == Arch::X86_64,
            "the kernel of the profile `{}` is for {arch}; a chart is made of x86_64 guests only, so take another profile",
            self.profile
        );
        let directory = tempfile::tempdir().context("cannot make a directory for the machine")?;
        let kernel = layout.kernel_file("vmlinux", &self.profile);
        let initrd = layout.flavour_initrd(&self.flavour);
        let mut config = VmConfig::new(kernel, initrd, directory.path());
        (config.machine, config.accel) = (self.machine, self.accel);
        let step = global.progress().step("boot a guest", None);
        let chart = bootchart::record(config, &layout.kernel_file("System.map", &self.profile)).await?;
        step.done(&format!("ready after {} ms", chart.ready_us / 1000));
        if let Some(path) = &self.svg {
            let title = format!("{} kernel, {} flavour", self.profile, self.flavour);
            cache::write_atomically(path, bootchart::draw(&title, &chart).as_bytes())?;
        }
        global.print(&chart, || {
            let mut spans: Vec<_> = chart.spans.iter().collect();
            spans.sort_by_key(|span| std::cmp::Reverse(span.length_us));
            let mut text = format!("ready after {} ms ({})", chart.ready_us / 1000, chart.accel);
            for span in spans.into_iter().take(self.longest) {
                let (start, length) = (span.start_us as f64 / 1e3, span.length_us as f64 / 1e3);
                text += &format!("\n{length:>8.1} ms at {start:>8.1}  {}", span.name);
            }
            text
        })
    }
}
