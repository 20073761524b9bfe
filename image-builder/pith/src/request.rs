//! Builds a pod of one container from the options of `run`.
//!
//! Must never touch the file system, except to ask whether a path exists.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail, ensure};
use clap::Args;
use pods::run::pod::{EnvValue, HostPathKind, Volume, VolumeKind, VolumeMount};
use pods::run::{Pod, mount_path};

use crate::exec::parse_user;

/// What a container is made of, beside its image and its command.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Container")]
pub struct ContainerArgs {
    /// The name of the pod and its container [default: the image's name and four digits].
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Pass on standard input.
    #[arg(short, long)]
    pub interactive: bool,
    /// Give the container a terminal.
    #[arg(short, long)]
    pub tty: bool,
    /// Set an environment variable. Without a value, it is copied from this program's environment.
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,
    /// Set the environment variables in this file. It has one NAME=VALUE per line; lines that begin with # are skipped.
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,
    /// Mount a file or directory of this host, or a named volume. A new volume is created.
    #[arg(short, long, value_name = "HOSTPATH|NAME:PATH[:ro]")]
    pub volume: Vec<String>,
    /// The user, by number or by a name in the image's own files [default: the image's user].
    #[arg(short, long, value_name = "USER[:GROUP]", value_parser = parse_user)]
    pub user: Option<String>,
    /// The working directory [default: the image's].
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// The program to run instead of the image's entry point. Its arguments come after IMAGE.
    #[arg(long, value_name = "PROGRAM")]
    pub entrypoint: Option<String>,
    /// Make the container's root file system read-only.
    #[arg(long)]
    pub read_only: bool,
    /// Add a capability to the default ones, such as NET_ADMIN.
    #[arg(long, value_name = "CAP")]
    pub cap_add: Vec<String>,
    /// Remove a default capability. ALL removes all of them.
    #[arg(long, value_name = "CAP")]
    pub cap_drop: Vec<String>,
    /// Give the container all capabilities and all devices of its guest.
    #[arg(long)]
    pub privileged: bool,
}

impl ContainerArgs {
    /// The names of options that are given, for those who have no use for them.
    pub(crate) fn given(&self) -> Option<&'static str> {
        let given = [
            (self.name.is_some(), "--name"),
            (self.interactive, "--interactive"),
            (self.tty, "--tty"),
            (!self.env.is_empty(), "--env"),
            (!self.env_file.is_empty(), "--env-file"),
            (!self.volume.is_empty(), "--volume"),
            (self.user.is_some(), "--user"),
            (self.workdir.is_some(), "--workdir"),
            (self.entrypoint.is_some(), "--entrypoint"),
            (self.read_only, "--read-only"),
            (!self.cap_add.is_empty(), "--cap-add"),
            (!self.cap_drop.is_empty(), "--cap-drop"),
            (self.privileged, "--privileged"),
        ];
        given.iter().find(|(is_given, _)| *is_given).map(|(_, option)| *option)
    }

    /// The pod called `name` with one container of `image` that runs `command`.
    ///
    /// # Errors
    /// Names the option that makes no sense, and what would.
    pub(crate) fn pod(
        &self,
        name: &str,
        image: &str,
        command: &[String],
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> anyhow::Result<Pod> {
        ensure!(
            is_label(name),
            "--name {name:?}: a name has at most 63 lower-case letters, digits and hyphens, no hyphen first or last"
        );
        let text = format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name:?}}}, \
             spec: {{restartPolicy: Never, containers: [{{name: {name:?}, image: i}}]}}}}"
        );
        let mut pod = Pod::parse(&text).context("the pod of these options")?;
        let container = &mut pod.containers[0];
        container.image = image.to_owned();
        let words = |words: &[String]| words.iter().map(|word| word.replace('$', "$$")).collect::<Vec<_>>();
        if let Some(program) = &self.entrypoint {
            ensure!(!program.is_empty(), "--entrypoint is empty; name a program of the image");
            container.command = Some(words(std::slice::from_ref(program)));
            container.args = Some(words(command));
        } else if !command.is_empty() {
            container.args = Some(words(command));
        }
        for (name, value) in self.variables(&variable)? {
            container.env.push((name, EnvValue::Literal(value)));
        }
        if let Some(dir) = &self.workdir {
            ensure!(dir.starts_with('/'), "--workdir {dir:?} is not absolute; it is a path in the container");
            container.working_dir = Some(dir.clone());
        }
        container.tty = self.tty;
        container.stdin = self.interactive;
        container.stdin_once = self.interactive;
        container.security.account.clone_from(&self.user);
        container.security.readonly_root = self.read_only;
        container.security.privileged = self.privileged;
        let capability = |name: &String| name.to_ascii_uppercase().trim_start_matches("CAP_").to_owned();
        container.security.add_capabilities = self.cap_add.iter().map(capability).collect();
        container.security.drop_capabilities = self.cap_drop.iter().map(capability).collect();
        for (number, text) in self.volume.iter().enumerate() {
            let (path, mount) = volume(text, &variable)?;
            let is_taken = container.mounts.iter().any(|known| known.path == mount.path);
            ensure!(!is_taken, "--volume {text:?}: another volume is mounted on {} already", mount.path);
            let name = format!("v{number}");
            container.mounts.push(VolumeMount { volume: name.clone(), ..mount });
            pod.volumes.push(Volume { name, kind: path });
        }
        Ok(pod)
    }

    fn variables(
        &self,
        variable: &impl Fn(&str) -> Option<OsString>,
    ) -> anyhow::Result<Vec<(String, String)>> {
        let mut found: Vec<(String, String)> = Vec::new();
        let mut set = |text: &str, whence: &str| -> anyhow::Result<()> {
            let (name, value) =
                text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
            ensure!(
                !name.is_empty() && !name.contains(char::is_whitespace) && !name.contains('\0'),
                "{whence}: {text:?} is not NAME=VALUE"
            );
            let value = match value {
                Some(value) => value.to_owned(),
                None => match variable(name) {
                    Some(value) => value
                        .into_string()
                        .ok()
                        .with_context(|| format!("{whence}: the value of {name} here is not UTF-8"))?,
                    // As docker and podman have it: what is not set here is not set there.
                    None => return Ok(()),
                },
            };
            found.retain(|(known, _)| known != name);
            found.push((name.to_owned(), value));
            Ok(())
        };
        for file in &self.env_file {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("cannot read the --env-file {}", file.display()))?;
            for line in
                text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#'))
            {
                set(line, &file.display().to_string())?;
            }
        }
        for text in &self.env {
            set(text, "--env")?;
        }
        Ok(found)
    }
}

/// Whether a text can be a pod's name.
pub(crate) fn is_label(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends = [text.bytes().next(), text.bytes().next_back()];
    (1..=63).contains(&text.len())
        && text.bytes().all(|byte| word(byte) || byte == b'-')
        && ends.into_iter().flatten().all(word)
}

/// A name for a pod of this image.
pub(crate) fn name_of(image: &str, number: u16) -> String {
    let path = image.split_once('@').map_or(image, |(path, _)| path).trim_end_matches('/');
    let last = path.rsplit('/').next().unwrap_or_default();
    let base = last.split(':').next().unwrap_or_default();
    let base =
        [".tar.gz", ".tgz", ".tar.zst", ".tar"].iter().find_map(|end| base.strip_suffix(end)).unwrap_or(base);
    let plain: String = base
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
        .take(40)
        .collect();
    let plain = plain.trim_matches('-');
    format!("{}-{number:04x}", if plain.is_empty() { "pod" } else { plain })
}

/// A value of `--volume`.
fn volume(
    text: &str,
    variable: &impl Fn(&str) -> Option<OsString>,
) -> anyhow::Result<(VolumeKind, VolumeMount)> {
    const SHAPE: &str = "is not HOSTPATH:PATH, NAME:PATH, or one of them with :ro";
    let (rest, readonly) = match text.rsplit_once(':') {
        Some((rest, "ro")) if rest.contains(':') => (rest, true),
        Some((rest, "rw")) if rest.contains(':') => (rest, false),
        _ => (text, false),
    };
    let (source, target) = rest.rsplit_once(':').with_context(|| format!("--volume {text:?} {SHAPE}"))?;
    ensure!(!source.is_empty(), "--volume {text:?} {SHAPE}");
    let option = (source.contains(":/") && !target.starts_with('/')).then_some(target);
    if let Some(option) = option {
        bail!("--volume {text:?}: there is no option {option:?}; the options are ro and rw");
    }
    let target = mount_path(target).map_err(|problem| anyhow!("--volume {text:?}: {problem}"))?;
    let kind = if source.starts_with(['/', '.', '~']) {
        let path = match source.strip_prefix("~/") {
            Some(rest) => Path::new(&variable("HOME").context("HOME is not set")?).join(rest),
            None => PathBuf::from(source),
        };
        ensure!(
            path.exists(),
            "--volume {text:?}: there is no {} on this host; make it first, or name a volume by a word without a slash",
            path.display()
        );
        // A relative path is one of the working directory.
        let path = path.canonicalize().with_context(|| format!("--volume {text:?}"))?;
        VolumeKind::HostPath { path, kind: HostPathKind::Any }
    } else {
        if !is_label(source) {
            bail!(
                "--volume {text:?}: {source:?} is no name of a volume (lower-case letters, digits and hyphens); a \
                 directory of this host begins with / or ./"
            );
        }
        VolumeKind::HostPath { path: volumes(variable)?.join(source), kind: HostPathKind::DirectoryOrCreate }
    };
    let mount = VolumeMount { path: target, readonly, ..VolumeMount::default() };
    Ok((kind, mount))
}

/// Where volumes with names are.
pub(crate) fn volumes(variable: &impl Fn(&str) -> Option<OsString>) -> anyhow::Result<PathBuf> {
    let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let data = absolute("XDG_DATA_HOME").or_else(|| Some(absolute("HOME")?.join(".local/share")));
    Ok(data.context("no place for volumes: set XDG_DATA_HOME or HOME")?.join("pith/volumes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(arguments: ContainerArgs, command: &[&str]) -> anyhow::Result<Pod> {
        let command: Vec<String> = command.iter().map(|&word| word.to_owned()).collect();
        arguments.pod("web", "nginx", &command, |name| match name {
            "HOME" => Some("/home/me".into()),
            "KNOWN" => Some("here".into()),
            _ => None,
        })
    }

    #[test]
    fn a_container_is_as_the_options_say() {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("env");
        std::fs::write(&file, "# no\n\nFROM_FILE=1\nB=file\n").unwrap();
        let arguments = ContainerArgs {
            interactive: true,
            env: words(&["A=1=2", "B=", "KNOWN", "UNKNOWN"]),
            env_file: vec![file],
            volume: vec![format!("{}:/data:ro", dir.path().display()), "cache:/cache".into()],
            user: Some("app:wheel".into()),
            workdir: Some("/srv".into()),
            cap_add: words(&["cap_net_admin"]),
            ..ContainerArgs::default()
        };
        let pod = pod(arguments, &["echo", "$(A)", "$$"]).unwrap();
        let container = &pod.containers[0];
        assert_eq!((container.name.as_str(), container.image.as_str()), ("web", "nginx"));
        assert_eq!(container.command, None);
        assert_eq!(container.args, Some(words(&["echo", "$$(A)", "$$$$"])), "as typed, not expanded");
        let env: Vec<(String, EnvValue)> = [("FROM_FILE", "1"), ("A", "1=2"), ("B", ""), ("KNOWN", "here")]
            .map(|(name, value)| (name.to_owned(), EnvValue::Literal(value.to_owned())))
            .to_vec();
        assert_eq!(container.env, env);
        assert!(container.stdin && container.stdin_once && !container.tty);
        assert_eq!(container.security.account.as_deref(), Some("app:wheel"));
        assert_eq!(container.security.add_capabilities, ["NET_ADMIN"]);
        assert!(container.mounts[0].readonly && !container.mounts[1].readonly);
        let VolumeKind::HostPath { path, kind } = &pod.volumes[1].kind else { panic!() };
        assert_eq!(path, Path::new("/home/me/.local/share/pith/volumes/cache"));
        assert_eq!(*kind, HostPathKind::DirectoryOrCreate);
    }

    #[test]
    fn an_entry_point_replaces_the_images_and_its_arguments() {
        let arguments = ContainerArgs { entrypoint: Some("/bin/tool".into()), ..ContainerArgs::default() };
        let pod = pod(arguments, &["-x"]).unwrap();
        assert_eq!(pod.containers[0].command.as_deref(), Some(["/bin/tool".to_owned()].as_slice()));
        assert_eq!(pod.containers[0].args.as_deref(), Some(["-x".to_owned()].as_slice()));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let with_volume =
            |text: &str| ContainerArgs { volume: vec![text.into()], ..ContainerArgs::default() };
        for (arguments, named) in [
            (with_volume("/etc"), "HOSTPATH:PATH"),
            (with_volume(":/x"), "HOSTPATH:PATH"),
            (with_volume("/etc:etc"), "not an absolute path"),
            (with_volume("/etc:/etc:z"), "the options are ro and rw"),
            (with_volume("/etc:/proc"), "mount it elsewhere"),
            (with_volume("/no/such/place:/x"), "there is no /no/such/place"),
            (with_volume("Cache:/x"), "no name of a volume"),
            (ContainerArgs { env: vec!["=x".into()], ..ContainerArgs::default() }, "NAME=VALUE"),
            (ContainerArgs { env_file: vec!["/no/file".into()], ..ContainerArgs::default() }, "/no/file"),
            (ContainerArgs { workdir: Some("srv".into()), ..ContainerArgs::default() }, "--workdir"),
            (ContainerArgs { entrypoint: Some(String::new()), ..ContainerArgs::default() }, "--entrypoint"),
        ] {
            let error = format!("{:#}", pod(arguments, &[]).unwrap_err());
            assert!(error.contains(named), "{error}");
        }
        let error = ContainerArgs::default().pod("Web_1", "i", &[], |_| None).unwrap_err().to_string();
        assert!(error.contains("--name"), "{error}");
    }

    #[test]
    fn pods_are_called_by_their_images() {
        for (image, name) in [
            ("nginx", "nginx-00ff"),
            ("docker.io/library/nginx:1.2@sha256:ab", "nginx-00ff"),
            ("localhost:5000/a/My_App:1", "my-app-00ff"),
            ("./out/images/busybox/", "busybox-00ff"),
            ("image.tar.gz", "image-00ff"),
            ("..", "pod-00ff"),
        ] {
            assert_eq!(name_of(image, 255), name);
            assert!(is_label(name));
        }
        assert!(is_label(&name_of(&"x".repeat(100), 1)));
    }
}
