//! `completions` and `man`: completion scripts and manual pages, made from the definition of the command line.
//!
//! The scripts run `pith complete` at each TAB, because only this program knows which pods, containers and images exist.
//! Must never fail at a TAB: if something cannot be read, there are no completions for it.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, ValueEnum};
use registry::Library;

use crate::global::{Global, state, write};

/// Shells that have a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// Put `source <(pith completions bash)` into `~/.bashrc`.
    Bash,
    /// Put `source <(pith completions zsh)` into `~/.zshrc`, after `compinit`.
    Zsh,
    /// Put `pith completions fish | source` into `~/.config/fish/config.fish`.
    Fish,
}

/// Each answer is on its own line, because an answer may have spaces. If the last line is `:files`, the shell adds file names.
const BASH: &str = r#"_pith() {
    local line files= typed="${COMP_LINE:0:COMP_POINT}" words current prefix=
    COMPREPLY=()
    # Not COMP_WORDS: there, names with colons are several words.
    read -ra words <<< "$typed"
    [[ "$typed" == *[[:space:]] ]] && words+=("")
    current="${words[${#words[@]}-1]}"
    # What is in front of the last colon stays as it is on the line.
    [[ "$COMP_WORDBREAKS" == *:* && "$current" == *:* ]] && prefix="${current%"${current##*:}"}"
    while IFS= read -r line; do
        if [ "$line" = ":files" ]; then files=1; else COMPREPLY+=("${line#"$prefix"}"); fi
    done < <(pith complete -- "${words[@]:1}" 2>/dev/null)
    if [ -n "$files" ]; then
        # Readline would put a backslash in front of the colon of other words.
        [ ${#COMPREPLY[@]} -eq 0 ] && compopt -o filenames 2>/dev/null
        while IFS= read -r line; do COMPREPLY+=("$line"); done < <(compgen -f -- "${current#"$prefix"}")
    fi
    # A path follows.
    [[ ${#COMPREPLY[@]} -eq 1 && "${COMPREPLY[0]}" == *: ]] && compopt -o nospace 2>/dev/null
    return 0
}
complete -F _pith pith
"#;
/// If it is sourced, it registers the function. If it is a file in `fpath`, zsh runs it at the first TAB.
const ZSH: &str = r#"#compdef pith
_pith() {
    local -a answer
    answer=("${(@f)$(pith complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ "${answer[-1]}" == ":files" ]]; then
        answer[-1]=()
        _files
    fi
    answer=("${(@)answer:#}")
    (( ${#answer} )) && compadd -- "${answer[@]}"
    return 0
}
if [[ "${funcstack[1]}" == _pith ]]; then _pith "$@"; else compdef _pith pith; fi
"#;
const FISH: &str = r#"function __pith_complete
    set -l words (commandline -opc) (commandline -ct)
    for line in (pith complete -- $words[2..-1] 2>/dev/null)
        if test "$line" = ":files"
            __fish_complete_path (commandline -ct)
        else
            echo $line
        end
    end
end
complete -c pith -f -a '(__pith_complete)'
"#;

/// What stands for file names in an answer.
const FILES: &str = ":files";

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

impl CompletionsArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// When standard output cannot be written to.
    pub fn execute(self, _global: &Global) -> anyhow::Result<()> {
        write(match self.shell {
            Shell::Bash => BASH,
            Shell::Zsh => ZSH,
            Shell::Fish => FISH,
        })
    }
}

/// Arguments of `complete`.
#[derive(Debug, Args)]
pub struct CompleteArgs {
    /// The words of the command line behind the program, up to the one that is completed.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

impl CompleteArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// When standard output cannot be written to.
    pub fn execute(self, cli: clap::Command, global: &Global) -> anyhow::Result<()> {
        let global = Global { out: out_of(&self.words).or_else(|| global.out.clone()), ..global.clone() };
        let answers = answers(cli, &self.words, &|kind| known(kind, &global));
        write(&answers.iter().fold(String::new(), |text, answer| text + answer + "\n"))
    }
}

/// Things that are completed and that only this program knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind<'a> {
    Running,
    AllPods,
    ContainersOf(&'a str),
    Images,
    Volumes,
    Flavours,
}

/// The products that the line names: its verb will use these, whatever the environment of the shell says.
fn out_of(words: &[String]) -> Option<PathBuf> {
    let mut words = words.split_last()?.1.iter().take_while(|word| *word != "--");
    let mut out = None;
    while let Some(word) = words.next() {
        match word.strip_prefix("--out") {
            Some("") => out = words.next().map(PathBuf::from),
            Some(value) => out = value.strip_prefix('=').map(PathBuf::from).or(out),
            None => {}
        }
    }
    out
}

fn known(kind: Kind<'_>, global: &Global) -> Vec<String> {
    let state = state();
    let library = || Some(Library::new(&global.cache().ok()?));
    match kind {
        Kind::Running => state.pods().unwrap_or_default().into_iter().map(|pod| pod.name).collect(),
        Kind::AllPods => state.all().unwrap_or_default().into_iter().map(|pod| pod.name).collect(),
        Kind::ContainersOf(pod) => {
            let containers = state.find_any(pod).map(|(_, pod)| pod.containers).unwrap_or_default();
            containers.into_iter().map(|container| container.name).collect()
        }
        Kind::Images => {
            let kept = library().and_then(|library| library.list().ok()).unwrap_or_default();
            kept.into_iter().flat_map(|kept| names(kept.reference)).collect()
        }
        Kind::Flavours => global
            .products()
            .map(|layout| crate::global::flavours(layout.out(), store::arch::Arch::host()))
            .unwrap_or_default(),
        Kind::Volumes => {
            let entries = crate::request::volumes(&|name| std::env::var_os(name)).map(std::fs::read_dir);
            let entries = entries.into_iter().flatten().flatten().flatten();
            let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
            names.filter(|name| crate::request::is_label(name)).collect()
        }
    }
}

/// The names of an image that is called `reference` in full: people leave out the registry of docker's.
fn names(reference: String) -> Vec<String> {
    let short = reference.strip_prefix("docker.io/");
    let short = short.map(|path| path.strip_prefix("library/").unwrap_or(path).to_owned());
    short.into_iter().chain([reference]).collect()
}

/// What the last of `words` can become.
fn answers(mut cli: clap::Command, words: &[String], known: &dyn Fn(Kind<'_>) -> Vec<String>) -> Vec<String> {
    let (current, before) = match words.split_last() {
        Some((current, before)) => (current.as_str(), before),
        None => ("", &[][..]),
    };
    cli.build();
    let mut command = &cli;
    // The verb, and one below it.
    let mut verbs: Vec<&str> = Vec::new();
    let mut places: Vec<&str> = Vec::new();
    let mut value_of: Option<&clap::Arg> = None;
    for word in before {
        if value_of.take().is_some() {
            continue;
        }
        if let Some(name) = word.strip_prefix("--").filter(|name| !name.is_empty() && places.len() < 2) {
            value_of = option(command, |arg| !name.contains('=') && arg.get_long() == Some(name));
        } else if let Some(letters) = word.strip_prefix('-').filter(|letters| !letters.is_empty()) {
            // The last letter may want the next word; one before it would have the rest as its value.
            let last = letters.chars().last();
            value_of = option(command, |arg| arg.get_short() == last);
        } else if let Some(verb) = command.find_subcommand(word).filter(|_| places.is_empty()) {
            command = verb;
            verbs.push(verb.get_name());
        } else {
            places.push(word);
        }
    }
    let verb = verbs.join(" ");
    let mut found = Vec::new();
    if let Some(arg) = value_of {
        found.extend(values(arg, known));
    } else if current.starts_with('-') {
        for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
            found.extend(arg.get_long().map(|name| format!("--{name}")));
            found.extend(arg.get_short().map(|letter| format!("-{letter}")));
        }
    } else if command.has_subcommands() {
        let verbs = command.get_subcommands().filter(|verb| !verb.is_hide_set());
        found.extend(verbs.map(|verb| verb.get_name().to_owned()));
    } else {
        let place = places.len();
        match (verb.as_str(), place) {
            ("attach" | "console" | "exec" | "pause" | "unpause" | "timings" | "top", 0) => {
                found.extend(known(Kind::Running));
            }
            ("cp", 0 | 1) => {
                found.extend(known(Kind::Running).into_iter().map(|name| name + ":"));
                found.push(FILES.to_owned());
            }
            ("stop" | "stats" | "port", _) => found.extend(known(Kind::Running)),
            ("logs" | "ps" | "restart", 0) | ("wait" | "rm" | "inspect" | "events", _) => {
                found.extend(known(Kind::AllPods));
            }
            ("attach" | "exec" | "logs" | "pause" | "unpause" | "timings" | "top", 1) => {
                found.extend(known(Kind::ContainersOf(places[0])));
            }
            ("run" | "image", 0) => {
                found.extend(known(Kind::Images));
                found.push(FILES.to_owned());
            }
            ("volume rm" | "volume inspect", _) => found.extend(known(Kind::Volumes)),
            ("pull" | "rmi", _) => found.extend(known(Kind::Images)),
            ("completions", 0) => found.extend(["bash", "zsh", "fish"].map(str::to_owned)),
            ("man", 0) => found.push(FILES.to_owned()),
            _ => {}
        }
    }
    found.retain(|answer| answer.starts_with(current) || answer == FILES);
    // File names come from the shell, after everything else.
    found.sort_by_key(|answer| answer == FILES);
    found
}

fn option(command: &clap::Command, is_it: impl Fn(&clap::Arg) -> bool) -> Option<&clap::Arg> {
    command.get_arguments().find(|arg| is_it(arg) && arg.get_action().takes_values())
}

/// What the value of an option can be.
fn values(arg: &clap::Arg, known: &dyn Fn(Kind<'_>) -> Vec<String>) -> Vec<String> {
    let listed: Vec<String> =
        arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    if !listed.is_empty() {
        return listed;
    }
    match arg.get_id().as_str() {
        "volume" => {
            let names = known(Kind::Volumes).into_iter().map(|name| name + ":");
            names.chain([FILES.to_owned()]).collect()
        }
        "network" => ["user", "none", "netns="].map(str::to_owned).to_vec(),
        "flavour" => known(Kind::Flavours),
        "arch" => ["linux/amd64", "linux/arm64"].map(str::to_owned).to_vec(),
        "accel" => ["auto", "kvm", "tcg"].map(str::to_owned).to_vec(),
        "machine" => ["microvm", "microvm-acpi", "q35", "virt"].map(str::to_owned).to_vec(),
        "file" | "out" | "kernel" | "initrd" | "disk" | "uki" | "firmware" | "env_file" => {
            vec![FILES.to_owned()]
        }
        _ => Vec::new(),
    }
}

/// Arguments of `man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// The directory for the pages. It is created if it is missing.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

impl ManArgs {
    /// Runs the command.
    ///
    /// # Errors
    /// When the pages cannot be written.
    pub fn execute(self, cli: clap::Command, global: &Global) -> anyhow::Result<()> {
        let directory = &self.directory;
        std::fs::create_dir_all(directory)
            .and_then(|()| clap_mangen::generate_to(cli, directory))
            .with_context(|| format!("cannot write pages to {}", directory.display()))?;
        let mut pages: Vec<String> = std::fs::read_dir(directory)
            .with_context(|| format!("cannot list {}", directory.display()))?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.starts_with("pith") && name.ends_with(".1"))
            .collect();
        pages.sort();
        global.print(&pages, || format!("{} pages in {}", pages.len(), directory.display()))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    fn complete(line: &str) -> Vec<String> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        answers(Cli::command(), &words, &|kind| {
            let found: &[&str] = match kind {
                Kind::Running => &["web", "work"],
                Kind::AllPods => &["old", "web", "work"],
                Kind::ContainersOf("web") => &["server", "shell"],
                Kind::ContainersOf(_) => &[],
                Kind::Images => &["docker.io/library/nginx:latest"],
                Kind::Volumes => &["data"],
                Kind::Flavours => &["minimal", "sandbox"],
            };
            found.iter().map(|&text| text.to_owned()).collect()
        })
    }

    #[test]
    fn every_level_completes_to_what_can_stand_there() {
        for (line, expected) in [
            ("unp", &["unpause"][..]),
            ("stop w", &["web", "work"]),
            ("stop web wo", &["work"]),
            ("logs ", &["old", "web", "work"]),
            ("logs -f web s", &["server", "shell"]),
            ("logs --tail 5 web se", &["server"]),
            ("exec -it web sh", &["shell"]),
            ("--json exec web se", &["server"]),
            ("run --pull m", &["missing"]),
            ("run --network n", &["none", "netns="]),
            ("run -v d", &["data:", FILES]),
            ("run -f ", &[FILES]),
            ("run --rm -it d", &["docker.io/library/nginx:latest", FILES]),
            ("vm --flavour s", &["sandbox"]),
            ("vm --vmm f", &["firecracker"]),
            ("volume r", &["rm"]),
            ("volume rm d", &["data"]),
            ("cp w", &["web:", "work:", FILES]),
            ("rmi d", &["docker.io/library/nginx:latest"]),
            ("completions z", &["zsh"]),
            ("rm --fo", &["--force"]),
            ("exec web server ", &[]),
        ] {
            assert_eq!(complete(line), expected, "{line}");
        }
        let all = complete("");
        assert!(all.contains(&"run".to_owned()) && !all.contains(&"complete".to_owned()), "{all:?}");
        assert!(complete("run --").contains(&"--entrypoint".to_owned()));
    }

    #[test]
    fn every_verb_has_a_page() {
        let directory = tempfile::tempdir().unwrap();
        ManArgs { directory: directory.path().join("man1") }
            .execute(Cli::command(), &Global::default())
            .unwrap();
        for command in Cli::command().get_subcommands().filter(|verb| !verb.is_hide_set()) {
            let page = directory.path().join(format!("man1/pith-{}.1", command.get_name()));
            assert!(std::fs::read_to_string(&page).unwrap().starts_with(".ie"), "{}", page.display());
        }
    }
}
