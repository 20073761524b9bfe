//! `image-builder completions` and `man`: what the command line says of itself, for shells and for `man`.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use clap_complete::Shell;

use super::global::Global;

/// `image-builder completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

impl CompletionsArgs {
    /// Runs the command.
    pub(crate) fn execute(self, mut command: clap::Command, global: &Global) -> anyhow::Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "image-builder", &mut script);
        let script = String::from_utf8(script).context("cannot make the script")?;
        global.print(&script, || script.trim_end().to_owned())
    }
}

/// `image-builder man`.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// The directory for the pages. It is created if it is missing.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

impl ManArgs {
    /// Runs the command.
    pub(crate) fn execute(self, command: clap::Command, global: &Global) -> anyhow::Result<()> {
        let directory = &self.directory;
        std::fs::create_dir_all(directory)
            .and_then(|()| clap_mangen::generate_to(command, directory))
            .with_context(|| format!("cannot write pages to {}", directory.display()))?;
        let mut pages: Vec<String> = std::fs::read_dir(directory)
            .with_context(|| format!("cannot list {}", directory.display()))?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.starts_with("image-builder") && name.ends_with(".1"))
            .collect();
        pages.sort();
        global.print(&pages, || format!("{} pages in {}", pages.len(), directory.display()))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::super::Cli;
    use super::*;

    #[test]
    fn every_shell_gets_a_script_that_knows_the_verbs() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "image-builder", &mut script);
            let script = String::from_utf8(script).unwrap();
            for command in Cli::command().get_subcommands() {
                assert!(script.contains(command.get_name()), "{shell}: {}", command.get_name());
            }
        }
    }

    #[test]
    fn every_verb_has_a_page() {
        let directory = tempfile::tempdir().unwrap();
        let global = Global { json: false, root: None, out: None };
        ManArgs { directory: directory.path().join("man1") }.execute(Cli::command(), &global).unwrap();
        for command in Cli::command().get_subcommands() {
            let page = directory.path().join(format!("man1/image-builder-{}.1", command.get_name()));
            assert!(std::fs::read_to_string(&page).unwrap().starts_with(".ie"), "{}", page.display());
        }
    }
}
