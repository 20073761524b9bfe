//! Where variables and small files get their values.

/// Where the value of a variable comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvValue {
    /// A text in which `$(NAME)` stands for another variable.
    Text(String),
    /// A text as it is.
    Literal(String),
    /// Something of the pod that is known when it runs.
    Field(Field),
    /// A container's resource.
    Resource(ResourceField),
}

/// Something of a pod that its containers can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// Its uid.
    Uid,
    /// The name of the node.
    NodeName,
    /// Its address.
    PodIp,
    /// Its addresses, with commas between them.
    PodIps,
    /// The node's address.
    HostIp,
}

/// A resource of a container, divided and rounded up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceField {
    /// Which container's; empty for the one that is told.
    pub container: String,
    /// CPU, in thousandths; else memory in bytes.
    pub cpu: bool,
    /// The limit; else the request.
    pub limit: bool,
    /// What it is divided by: thousandths of a CPU, or bytes.
    pub divisor: u64,
}
