//! What makes a runtime handler of a shim and a configuration: a text for each container runtime, and one for Kubernetes.

use std::path::Path;

use toml::{Table, Value};

/// For the container runtimes, what is the same for all.
#[derive(Debug, Clone, Copy)]
pub(super) struct Handler<'a> {
    /// Its name.
    pub(super) name: &'a str,
    /// The shim's program; without it the container runtime looks for it on its own PATH.
    pub(super) program: Option<&'a Path>,
    /// The shim's configuration.
    pub(super) configuration: &'a Path,
}

/// The plugin that containerd 1.x calls the CRI (configuration version 2).
const PLUGIN_V2: &str = "io.containerd.grpc.v1.cri";
/// The same in containerd 2.x (configuration version 3).
const PLUGIN_V3: &str = "io.containerd.cri.v1.runtime";

impl Handler<'_> {
    /// For containerd 1.x, to be put into its configuration.
    pub(super) fn containerd_v2(&self) -> String {
        format!(
            "# For containerd 1.x: put this into /etc/containerd/config.toml, which begins with `version = 2`.\n\
             # For containerd 2.x there is containerd-v3.toml.\n{}",
            self.containerd(PLUGIN_V2)
        )
    }

    /// For containerd 2.x: a whole file, to be imported by its configuration.
    pub(super) fn containerd_v3(&self) -> String {
        format!(
            "# For containerd 2.x: name this file in `imports` of /etc/containerd/config.toml.\nversion = 3\n\n{}",
            self.containerd(PLUGIN_V3)
        )
    }

    fn containerd(&self, plugin: &str) -> String {
        let runtime = format!("plugins.{}.containerd.runtimes.{}", quoted(plugin), self.name);
        let mut text = format!("[{runtime}]\nruntime_type = \"io.containerd.kata.v2\"\n");
        if let Some(program) = self.program {
            text += &format!("runtime_path = {}\n", quoted(&program.display().to_string()));
        }
        text += "privileged_without_host_devices = true\npod_annotations = [\"io.katacontainers.*\"]\n\n";
        let configuration = quoted(&self.configuration.display().to_string());
        text + &format!("[{runtime}.options]\nConfigPath = {configuration}\n")
    }

    /// For CRI-O: a whole file of `/etc/crio/crio.conf.d`. CRI-O wants the program by its path.
    pub(super) fn crio(&self, usual: &Path) -> String {
        let program = self.program.unwrap_or(usual);
        format!(
            "# For CRI-O: copy this file to /etc/crio/crio.conf.d/50-{name}.conf.\n\
             [crio.runtime.runtimes.{name}]\nruntime_path = {}\nruntime_type = \"vm\"\nruntime_root = \"/run/vc\"\n\
             runtime_config_path = {}\nprivileged_without_host_devices = true\n",
            quoted(&program.display().to_string()),
            quoted(&self.configuration.display().to_string()),
            name = self.name,
        )
    }

    /// For Kubernetes.
    pub(super) fn runtime_class(&self) -> String {
        let name = self.name;
        format!(
            "apiVersion: node.k8s.io/v1\nkind: RuntimeClass\nmetadata:\n  name: {name}\nhandler: {name}\n\
             # What a pod costs beside its containers: the VMM, and the guest's kernel and agent.\n\
             overhead:\n  podFixed:\n    memory: 130Mi\n    cpu: 100m\n"
        )
    }
}

/// A text as TOML writes it.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// The drop-in of a shim's configuration.
pub(super) fn drop_in(hypervisor: &str, table: Table, guest_seccomp: bool) -> String {
    let mut all = Table::from_iter([(
        "hypervisor".to_owned(),
        Value::Table(Table::from_iter([(hypervisor.to_owned(), Value::Table(table))])),
    )]);
    if guest_seccomp {
        let runtime = Table::from_iter([("disable_guest_seccomp".to_owned(), Value::from(false))]);
        all.insert("runtime".into(), Value::Table(runtime));
    }
    all.to_string()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const SHIM: &str = "/opt/kata/bin/containerd-shim-kata-v2";
    const CONFIGURATION: &str = "/etc/kata-containers/pith/configuration.toml";

    /// The major version of the containerd that is installed, if one is.
    fn containerd() -> Option<u32> {
        let output = Command::new("containerd").arg("--version").output().ok()?;
        let text = String::from_utf8(output.stdout).unwrap();
        // `containerd github.com/containerd/containerd v1.7.24 COMMIT`, with and without the v.
        let version = text.split_whitespace().nth(2).unwrap().trim_start_matches('v');
        Some(version.split('.').next().unwrap().parse().unwrap())
    }

    /// What containerd makes of a configuration: it reads it, plugin by plugin, into structures of its own, and prints those. So
    /// a key that it does not know is gone, and one of a wrong type is an error.
    fn dump(dir: &Path, config: &str) -> Table {
        let (file, root, state) = (dir.join("config.toml"), dir.join("root"), dir.join("state"));
        let places = [("root", root), ("state", state)];
        let places = places.map(|(key, path)| format!("{key} = {}\n", quoted(&path.display().to_string())));
        std::fs::write(&file, places.concat() + config).unwrap();
        let output = Command::new("containerd").arg("--config").arg(&file).args(["config", "dump"]).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}\n{config}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().parse().unwrap()
    }

    #[test]
    fn containerd_itself_knows_every_key() {
        let Some(major) = containerd() else {
            println!(
                "SKIPPED: containerd is not installed, so it was not asked what it makes of its handlers"
            );
            return;
        };
        let handler = Handler {
            name: "kata-pith",
            program: Some(Path::new(SHIM)),
            configuration: Path::new(CONFIGURATION),
        };
        let dir = tempfile::tempdir().unwrap();
        // The administrator's file has a handler already.
        let own = |plugin: &str| {
            format!(
                "[plugins.{}.containerd.runtimes.mine]\nruntime_type = \"io.containerd.runc.v2\"\n",
                quoted(plugin)
            )
        };
        let mut configs = vec![format!("version = 2\n{}{}", own(PLUGIN_V2), handler.containerd_v2())];
        if major >= 2 {
            let imported = dir.path().join("containerd-v3.toml");
            std::fs::write(&imported, handler.containerd_v3()).unwrap();
            let imported = quoted(&imported.display().to_string());
            configs.push(format!("version = 3\nimports = [{imported}]\n{}", own(PLUGIN_V3)));
        }
        for config in configs {
            let dumped = dump(dir.path(), &config);
            let plugin = if major >= 2 { PLUGIN_V3 } else { PLUGIN_V2 };
            let runtimes = &dumped["plugins"][plugin]["containerd"]["runtimes"];
            assert!(runtimes.get("mine").is_some(), "the other handler is gone: {config}");
            let found = &runtimes["kata-pith"];
            assert_eq!(found["runtime_type"].as_str(), Some("io.containerd.kata.v2"), "{config}");
            assert_eq!(found["runtime_path"].as_str(), Some(SHIM), "{config}");
            assert_eq!(found["privileged_without_host_devices"].as_bool(), Some(true), "{config}");
            let annotations = found["pod_annotations"].as_array().unwrap();
            assert_eq!(annotations, &[Value::from("io.katacontainers.*")], "{config}");
            assert_eq!(found["options"]["ConfigPath"].as_str(), Some(CONFIGURATION), "{config}");
        }
    }
}
