//! `image-builder kernel build|check|size`.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};
use products::manifest::Manifest;
use products::{kernel, size};
use store::arch::Arch;
use store::cache;
use store::digest::Digest;
use store::progress::bytes;

use super::global::Global;

/// What to do about the kernel.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Merge the fragments, verify the configuration, compile, and install vmlinuz (Image for aarch64) and vmlinux.
    Build(KernelArgs),
    /// Merge the fragments, verify the configuration, and show which requirements it meets. Takes seconds.
    Check(CheckArgs),
    /// Show the size of the parts of a built kernel, by subsystem and by fragment. Counts only whole object files.
    Size(SizeArgs),
}

/// Of which kernel to show the parts, and how.
#[derive(Debug, Clone, Args)]
pub(crate) struct SizeArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// Draw a treemap of the subsystems into FILE.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// Which kernels to check.
#[derive(Debug, Clone, Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// Check every profile.
    #[arg(long, conflicts_with_all = ["profile", "arch", "fragments"])]
    all: bool,
}

/// Which kernel.
#[derive(Debug, Clone, Args)]
pub(crate) struct SourceArgs {
    /// The profile: a file in kernel-config/profile [default: kata for x86_64, aarch64 for aarch64].
    #[arg(long, value_name = "NAME")]
    pub(crate) profile: Option<String>,
    /// The processor [default: that of the profile; without a profile, the host's].
    #[arg(long, value_enum, value_name = "ARCH")]
    pub(crate) arch: Option<Arch>,
    /// A fragment of your own: a file with lines such as CONFIG_XFS_FS=y, which go over those of the profile. Can be repeated.
    /// The kernel gets the name of the first one: my.conf makes out/vmlinuz-my.
    #[arg(long = "fragment", value_name = "FILE")]
    pub(crate) fragments: Vec<PathBuf>,
    /// A source tarball to use instead of the one in kernel.toml.
    #[arg(long, value_name = "PATH|URL")]
    pub(crate) source: Option<String>,
    /// The SHA-256 of the tarball. Required with a URL.
    #[arg(long, value_name = "HEX", requires = "source")]
    pub(crate) sha256: Option<Digest>,
}

/// How to build it.
#[derive(Debug, Clone, Args)]
pub(crate) struct KernelArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// How many jobs make runs in parallel [default: one per CPU].
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "N")]
    pub(crate) jobs: usize,
    /// Build even if it is cached, and fail if the result differs from the cached one.
    #[arg(long)]
    pub(crate) rebuild: bool,
}

impl SourceArgs {
    /// The profile that is named, or the one that ships for the processor.
    pub(crate) fn profile(&self) -> String {
        self.profile.clone().unwrap_or_else(|| self.arch.unwrap_or(Arch::host()).profile().to_owned())
    }

    fn options(self) -> kernel::Options {
        let profile = self.profile();
        let Self { arch, fragments, source, sha256, .. } = self;
        kernel::Options { profile, arch, fragments, source, sha256, jobs: 0, rebuild: false }
    }
}

impl KernelArgs {
    /// The library's form of it.
    pub(crate) fn options(self) -> kernel::Options {
        kernel::Options { jobs: self.jobs, rebuild: self.rebuild, ..self.source.options() }
    }
}

impl Command {
    /// Runs the command.
    pub(crate) async fn execute(self, global: &Global) -> anyhow::Result<()> {
        let (layout, cache, progress) = (global.layout()?, global.cache()?, global.progress());
        match self {
            Self::Check(CheckArgs { source, all }) => {
                let dir = layout.kernel_config();
                let names = if all { kernel::profile::known_profiles(&dir) } else { vec![source.profile()] };
                let mut checked = Vec::new();
                for profile in names {
                    let args = SourceArgs { profile: Some(profile.clone()), ..source.clone() };
                    let result = kernel::check(&dir, &args.options(), &cache, progress).await;
                    checked
                        .push(result.with_context(|| format!("kernel profile {profile} is not in order"))?);
                }
                let text = || checked.iter().map(shown).collect::<Vec<_>>().join("\n\n");
                match checked.as_slice() {
                    [one] if !all => global.print(one, text),
                    every => global.print(&every, text),
                }
            }
            Self::Size(args) => {
                let options = args.source.options();
                let report = kernel::size(&layout.kernel_config(), &options, &cache, progress).await?;
                if let Some(path) = &args.svg {
                    let title =
                        format!("Linux {}, object files of the profile {}", report.release, report.profile);
                    let svg = size::draw(&title, &size::of_kernel(&report));
                    cache::write_atomically(path, svg.as_bytes())?;
                }
                global.print(&report, || weighed(&report))
            }
            Self::Build(args) => {
                let built = kernel::build(&layout.kernel_config(), &args.options(), &cache, progress).await?;
                built.install(&layout)?;
                let manifest = Manifest::read(&layout);
                let names = built.products();
                let size = |file: &str| {
                    let name = names.iter().find(|name| name.split('-').next() == Some(file));
                    name.and_then(|name| manifest.products.get(name)).map_or(0, |product| product.size)
                };
                let value = serde_json::json!({
                    "cached": built.cached,
                    "release": built.record.release,
                    "profile": built.profile(),
                    "products": manifest.products.iter().filter(|(name, _)| names.contains(name)).collect::<std::collections::BTreeMap<_, _>>(),
                });
                global.print(&value, || {
                    format!(
                        "Linux {}{}: {} {}, vmlinux {} in {}",
                        built.record.release,
                        if built.cached { " from the cache" } else { "" },
                        built.image(),
                        bytes(size(built.image())),
                        bytes(size("vmlinux")),
                        layout.out().display()
                    )
                })
            }
        }
    }
}

/// A check's outcome for people: one sentence, and a table of requirements.
fn shown(checked: &kernel::Checked) -> String {
    let kernel::Checked { profile, version, fragments, requested, enabled, requirements } = checked;
    let mut text = format!(
        "profile {profile} on Linux {version}: {fragments} fragments ask for {requested} options; \
         all survived, nothing forbidden is set; {enabled} options are on"
    );
    let width = requirements.iter().map(|list| list.name.len()).max().unwrap_or_default();
    for list in requirements {
        let state = match (list.missing.len(), list.promised) {
            (0, true) => "met".to_string(),
            (0, false) => "met, but not among what the profile promises".to_string(),
            (missing, _) => format!("{missing} missing"),
        };
        text += &format!("\n  {:width$}  {:>3} options  {state}", list.name, list.options);
    }
    text
}

/// A report on sizes for people: what was counted, and a table each for subsystems and fragments.
fn weighed(report: &kernel::size::Report) -> String {
    let kernel::size::Report { profile, release, total, subsystems, fragments } = report;
    let mut text = format!(
        "profile {profile}, Linux {release}: {} object files, {} of code and constants, {} of variables, before linking and \
         compression.\nOnly whole objects are counted, each for the fragment that asks for the nearest option that brings it \
         in;\nwhat an option adds inside of a file that is built anyway is counted for that file.",
        total.objects,
        bytes(total.text),
        bytes(total.data)
    );
    for (title, rows) in [("subsystem", subsystems), ("fragment", fragments)] {
        text += &format!("\n\n{:>10} {:>9} {:>7} objects  {title}", "text", "data", "%");
        for row in rows {
            // In thousandths.
            let share = 1000 * row.bytes() / total.bytes().max(1);
            text += &format!(
                "\n{:>10} {:>9} {:>5}.{} {:>7}  {}",
                row.text,
                row.data,
                share / 10,
                share % 10,
                row.objects,
                row.name
            );
        }
    }
    text
}
