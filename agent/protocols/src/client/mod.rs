//! A client of the agent: dial it, call every method, and use a process's streams.
//!
//! Compiled with the feature `client`. It needs a tokio runtime; one thread is enough.
//!
//! - [`Endpoint`] says where a guest's vsock is reached: AF_VSOCK, the hybrid handshake of Firecracker, Cloud Hypervisor and
//!   `vhost-device-vsock`, or a Unix socket at which the agent itself answers.
//! - [`AgentClient`] has a typed function for every method of `grpc.AgentService` and `grpc.Health`. Each takes a context
//!   with a deadline: [`AgentClient::call`], [`AgentClient::within`] or [`AgentClient::forever`].
//! - [`Process`] is a process in a container. Its standard input is a [`tokio::io::AsyncWrite`], and its outputs are
//!   [`tokio::io::AsyncRead`].
//! - [`DialError`] and [`CallError`] say what went wrong. Every call returns a [`ttrpc::Error`], which becomes a [`CallError`]
//!   with `?`.
//!
//! # A command in a container
//!
//! `pith ps POD` shows the ids of a pod's containers, and `pith inspect POD` the socket.
//!
//! ```no_run
//! use protocols::agent::ExecProcessRequest;
//! use protocols::client::{AgentClient, Endpoint, Process};
//! use protocols::oci;
//! use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let socket = "/run/pith/web/vm/vsock.sock".into();
//! let client = AgentClient::connect(&Endpoint::Hybrid { socket }).await?;
//! let request = ExecProcessRequest {
//!     container_id: "web-web".into(),
//!     exec_id: "sort-1".into(),
//!     process: Some(oci::Process {
//!         Args: vec!["sort".into()],
//!         Env: vec!["PATH=/usr/bin:/bin".into()],
//!         Cwd: "/".into(),
//!         User: Some(oci::User::default()).into(),
//!         ..Default::default()
//!     })
//!     .into(),
//!     ..Default::default()
//! };
//! let sort = Process::exec(&client, &request).await?;
//!
//! let mut stdin = sort.stdin();
//! stdin.write_all(b"b\na\n").await?;
//! stdin.shutdown().await?;
//! let mut sorted = String::new();
//! sort.stdout().read_to_string(&mut sorted).await?;
//! assert_eq!(sorted, "a\nb\n");
//! assert_eq!(sort.wait().await?, 0);
//! # Ok(()) }
//! ```
//!
//! # Any method
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use protocols::agent::StatsContainerRequest;
//! use protocols::client::{AgentClient, CallError, Code, Endpoint};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = AgentClient::connect(&Endpoint::Vsock { cid: 42 }).await?;
//! let request = StatsContainerRequest { container_id: "web-web".into(), ..Default::default() };
//! let answer = client.agent.stats_container(AgentClient::within(Duration::from_secs(5)), &request).await;
//! match answer.map_err(CallError::from) {
//!     Ok(stats) => println!("{} bytes", stats.cgroup_stats.memory_stats.usage.usage),
//!     Err(CallError::Refused { code: Code::NOT_FOUND, .. }) => println!("there is no such container"),
//!     Err(other) => return Err(other.into()),
//! }
//! # Ok(()) }
//! ```

mod agent;
mod endpoint;
mod error;
mod process;

pub use agent::{AGENT_PORT, AgentClient};
pub use endpoint::Endpoint;
pub use error::{CallError, DialError};
pub use process::{Input, Output, Process, READ, Stream, WRITE};
pub use protobuf;
pub use ttrpc::{self, Code, context::Context};
