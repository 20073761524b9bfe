//! Files that are copied into the guest before containers run: `/etc/hosts` and similar files, and volumes of files.

use protocols::agent::CopyFileRequest;

use super::RunError;
use super::facts::Facts;
use super::pod::{Container, Dns, FileData, Pod, VolumeKind};
use super::spec::{self, SpecError};
use machine::vm::AgentClient;

/// The most bytes of a file in one message.
const PIECE: usize = super::exec::WRITE;
/// How many nameservers resolvers look at (resolv.conf(5)).
const MAX_SERVERS: usize = 3;

/// What stands in every `/etc/hosts`, as the kubelet writes it.
const HOSTS: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
                     fe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n";

/// A file in the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GuestFile {
    path: String,
    /// Permission bits; none for a directory.
    mode: Option<u32>,
    group: Option<u32>,
    data: Vec<u8>,
}

/// All files of a pod.
pub(super) fn of(pod: &Pod, facts: &Facts) -> Result<Vec<GuestFile>, SpecError> {
    let own = |name: &str, mode: u32, text: String| GuestFile {
        path: spec::own_file(name),
        mode: Some(mode),
        group: None,
        data: text.into_bytes(),
    };
    let mut files =
        vec![own("hosts", 0o644, hosts(pod, facts)), own("hostname", 0o644, format!("{}\n", pod.hostname))];
    // Whoever a container runs as leaves its last words.
    files.extend(pod.all().map(|container| own(&spec::termination(container), 0o666, String::new())));
    for volume in &pod.volumes {
        let VolumeKind::Files(list) = &volume.kind else { continue };
        files.push(GuestFile {
            path: format!("{}/{}", spec::SHARED, volume.name),
            mode: None,
            group: pod.fs_group,
            data: Vec::new(),
        });
        for file in list {
            let data = match &file.data {
                FileData::Bytes(content) => content.0.clone(),
                FileData::Field(field) => facts
                    .field(*field)
                    .map_err(|missing| SpecError::Unknown {
                        container: format!("(volume {})", volume.name),
                        what: missing.what,
                        reason: missing.reason,
                    })?
                    .into_bytes(),
                FileData::Resource(resource) => {
                    facts.resource(resource, pod, &Container::default()).to_string().into_bytes()
                }
            };
            // As the kubelet does: a group that owns a volume can read it.
            let mode = file.mode | if pod.fs_group.is_some() { 0o440 } else { 0 };
            let path = spec::file_point(&volume.name, &file.path);
            files.push(GuestFile { path, mode: Some(mode), group: pod.fs_group, data });
        }
    }
    Ok(files)
}

fn hosts(pod: &Pod, facts: &Facts) -> String {
    let mut text = String::from(HOSTS);
    let names: Vec<&str> = pod.fqdn.as_deref().into_iter().chain([pod.hostname.as_str()]).collect();
    // Without an address of its own the pod is at least itself.
    let address = facts.pod_ips.first().map_or("127.0.0.1", String::as_str);
    text += &format!("{address}\t{}\n", names.join("\t"));
    for (ip, names) in &pod.host_aliases {
        text += &format!("{ip}\t{}\n", names.join("\t"));
    }
    text
}

/// Lines of `resolv.conf`: what the network says, and what the pod says on top of it.
pub(super) fn resolv_conf(dns: &Dns, network: &[String]) -> Vec<String> {
    let network: &[String] = if dns.alone { &[] } else { network };
    let of = |key: &str| {
        let lines = network.iter().filter_map(move |line| line.strip_prefix(key));
        lines.flat_map(str::split_whitespace).map(str::to_owned).collect::<Vec<String>>()
    };
    let unique = |first: Vec<String>, more: &[String]| {
        let mut all: Vec<String> = Vec::new();
        for word in first.into_iter().chain(more.iter().cloned()) {
            if !all.contains(&word) {
                all.push(word);
            }
        }
        all
    };
    let mut options = of("options ");
    for option in &dns.options {
        let name = option.split(':').next().unwrap_or_default();
        options.retain(|known| known.split(':').next() != Some(name));
        options.push(option.clone());
    }
    let (searches, servers) = (unique(of("search "), &dns.searches), unique(of("nameserver "), &dns.servers));
    let line =
        |key: &str, words: &[String]| (!words.is_empty()).then(|| format!("{key} {}", words.join(" ")));
    let servers = servers.iter().take(MAX_SERVERS).map(|server| format!("nameserver {server}"));
    line("search", &searches).into_iter().chain(servers).chain(line("options", &options)).collect()
}

/// Puts files into the guest.
pub(super) async fn copy(client: &AgentClient, files: &[GuestFile]) -> Result<(), RunError> {
    for file in files {
        let mut request = CopyFileRequest::new();
        request.path.clone_from(&file.path);
        request.dir_mode = 0o755;
        request.uid = 0;
        request.gid = file.group.map_or(0, u32::cast_signed);
        request.file_mode = match file.mode {
            Some(mode) => nix::libc::S_IFREG | mode,
            None => nix::libc::S_IFDIR | 0o755,
        };
        request.file_size = i64::try_from(file.data.len()).unwrap_or(i64::MAX);
        let mut offset = 0;
        loop {
            let piece = &file.data[offset..file.data.len().min(offset + PIECE)];
            request.offset = i64::try_from(offset).unwrap_or(i64::MAX);
            request.data = piece.to_vec();
            let copied = client.agent.copy_file(AgentClient::call(), &request).await;
            copied.map_err(RunError::call("CopyFile", &file.path))?;
            offset += piece.len();
            if offset >= file.data.len() {
                break;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::pod::{Content, Volume, VolumeFile};

    fn lines(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn hosts_are_as_the_kubelet_writes_them() {
        let facts = Facts { pod_ips: vec!["10.0.2.15".into()], ..Facts::default() };
        let mut pod = Pod { hostname: "web".into(), ..Pod::default() };
        let text = hosts(&pod, &facts);
        assert!(text.starts_with("127.0.0.1\tlocalhost\n"), "{text}");
        assert!(text.ends_with("10.0.2.15\tweb\n"), "{text}");
        pod.fqdn = Some("web.sub.ns.svc.cluster.local".into());
        pod.host_aliases = vec![("1.2.3.4".into(), lines(&["a", "b.example"]))];
        let text = hosts(&pod, &Facts::default());
        assert!(
            text.ends_with("127.0.0.1\tweb.sub.ns.svc.cluster.local\tweb\n1.2.3.4\ta\tb.example\n"),
            "{text}"
        );
    }

    #[test]
    fn a_resolver_is_told_of_the_network_and_of_the_pod() {
        let network = lines(&["nameserver 10.0.2.3", "search lan", "options ndots:1 rotate"]);
        let dns = Dns {
            alone: false,
            servers: lines(&["1.1.1.1", "10.0.2.3", "2.2.2.2", "3.3.3.3"]),
            searches: lines(&["example.org"]),
            options: lines(&["ndots:5", "use-vc"]),
        };
        assert_eq!(
            resolv_conf(&dns, &network),
            [
                "search lan example.org",
                "nameserver 10.0.2.3",
                "nameserver 1.1.1.1",
                "nameserver 2.2.2.2",
                "options rotate ndots:5 use-vc",
            ]
        );
        let alone = Dns { alone: true, servers: lines(&["1.1.1.1"]), ..Dns::default() };
        assert_eq!(resolv_conf(&alone, &network), ["nameserver 1.1.1.1"]);
        assert_eq!(
            resolv_conf(&Dns::default(), &network),
            ["search lan", "nameserver 10.0.2.3", "options ndots:1 rotate"]
        );
    }

    #[test]
    fn a_group_that_owns_volumes_can_read_their_files() {
        let file = VolumeFile { path: "a/b".into(), mode: 0o400, data: FileData::Bytes(Content(vec![1])) };
        let volume = Volume { name: "v".into(), kind: VolumeKind::Files(vec![file]) };
        let mut pod = Pod { volumes: vec![volume], ..Pod::default() };
        let last = |pod: &Pod| of(pod, &Facts::default()).unwrap().pop().unwrap();
        assert_eq!((last(&pod).mode, last(&pod).group), (Some(0o400), None));
        assert_eq!(last(&pod).path, "/run/kata-containers/shared/containers/v/a/b");
        pod.fs_group = Some(7);
        assert_eq!((last(&pod).mode, last(&pod).group), (Some(0o440), Some(7)));
    }
}
