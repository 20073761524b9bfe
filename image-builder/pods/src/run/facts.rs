//! Values of this run of a pod, which its containers can refer to: uid, addresses, sizes of the guest.

use std::path::Path;

use super::pod::{Container, Field, Pod, ResourceField};

/// What is known once the network is there and the machine is planned.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// The pod's uid.
    pub(super) uid: String,
    /// The host's name.
    pub(super) node: String,
    /// The pod's addresses.
    pub(super) pod_ips: Vec<String>,
    /// The host's address, as the pod sees it.
    pub(super) host_ip: Option<String>,
    /// The guest's processors, in thousandths.
    pub(super) cpu_millis: u64,
    /// The guest's memory in bytes.
    pub(super) memory: u64,
}

/// What is known of a run besides the manifest and the images.
pub(super) struct Surroundings<'a> {
    pub(super) facts: &'a Facts,
    /// What relative paths in the manifest are relative to.
    pub(super) base: &'a Path,
    /// Whether the pod has a `resolv.conf`.
    pub(super) resolves: bool,
}

/// Something that is not known.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) what: &'static str,
    pub(super) reason: &'static str,
}

impl Facts {
    /// A field of the pod.
    pub(super) fn field(&self, field: Field) -> Result<String, Missing> {
        let missing = |what, reason| Missing { what, reason };
        const NO_NETWORK: &str = "the pod has no address; --network user gives it one";
        match field {
            Field::Uid => Ok(self.uid.clone()),
            Field::NodeName => Ok(self.node.clone()),
            Field::PodIp => self.pod_ips.first().cloned().ok_or(missing("status.podIP", NO_NETWORK)),
            Field::PodIps if self.pod_ips.is_empty() => Err(missing("status.podIPs", NO_NETWORK)),
            Field::PodIps => Ok(self.pod_ips.join(",")),
            Field::HostIp => self.host_ip.clone().ok_or(missing(
                "status.hostIP",
                "the host has an address for the pod with --network user only",
            )),
        }
    }

    /// A limit or request of a container. Without a limit it is what the guest has; without a request nothing.
    pub(super) fn resource(&self, resource: &ResourceField, pod: &Pod, own: &Container) -> u64 {
        let container = match resource.container.as_str() {
            "" => own,
            name => pod.container(name).unwrap_or(own),
        };
        let amount = match (resource.cpu, resource.limit) {
            (true, true) => container.cpu_millis.unwrap_or(self.cpu_millis),
            (false, true) => container.memory.unwrap_or(self.memory),
            (true, false) => container.requests.0.unwrap_or(0),
            (false, false) => container.requests.1.unwrap_or(0),
        };
        amount.div_ceil(resource.divisor.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_divided_and_rounded_up() {
        let facts = Facts { cpu_millis: 2000, memory: 1 << 30, ..Facts::default() };
        let own = Container { name: "a".into(), memory: Some(100 << 20), ..Container::default() };
        let other = Container {
            name: "b".into(),
            cpu_millis: Some(1500),
            requests: (Some(250), None),
            ..Container::default()
        };
        let pod = Pod { containers: vec![own.clone(), other], ..Pod::default() };
        let of = |container: &str, cpu, limit, divisor| {
            let field = ResourceField { container: container.into(), cpu, limit, divisor };
            facts.resource(&field, &pod, &own)
        };
        assert_eq!(of("", false, true, 1 << 20), 100);
        assert_eq!(of("", true, true, 1000), 2, "what the guest has");
        assert_eq!((of("b", true, true, 1000), of("b", true, true, 1)), (2, 1500));
        assert_eq!((of("b", true, false, 1), of("b", false, false, 1)), (250, 0));
    }

    #[test]
    fn a_pod_without_a_network_has_no_address() {
        let facts = Facts { uid: "u".into(), node: "n".into(), ..Facts::default() };
        assert_eq!(facts.field(Field::Uid), Ok("u".to_owned()));
        assert_eq!(facts.field(Field::PodIp).unwrap_err().what, "status.podIP");
        let facts = Facts { pod_ips: vec!["10.0.0.1".into(), "::1".into()], ..facts };
        assert_eq!(facts.field(Field::PodIps), Ok("10.0.0.1,::1".to_owned()));
    }
}
