//! Connections that a host passes for the streams of a process, as runtime-rs does it.

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::{ContainerBuilder, Exec, Guest};

/// The port where runtime-rs expects the guest to take streams.
const PORT: u32 = 1027;

/// A connection for one stream.
#[derive(Debug)]
pub struct Passed {
    /// The host's end.
    pub stream: UnixStream,
    /// The host's port, by which requests name it.
    pub port: u32,
}

impl Guest {
    /// Boots a guest that takes streams.
    ///
    /// # Errors
    /// As [`crate::GuestBuilder::boot`].
    pub async fn boot_for_streams() -> Result<Guest> {
        Guest::builder().cmdline(&[&format!("agent.passfd_listener_port={PORT}")]).boot().await
    }

    /// Makes a connection for a stream.
    ///
    /// # Errors
    /// When the guest does not take it.
    pub async fn pass(&self) -> Result<Passed> {
        let (stream, port) = self.vm().dial_from(PORT).await.context("pass a stream")?;
        Ok(Passed { stream, port })
    }
}

impl Passed {
    /// Reads to the end.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn read_to_end(&mut self) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        self.stream.read_to_end(&mut all).await.context("read a passed stream")?;
        Ok(all)
    }

    /// Reads until the text has come, and gives all that was read.
    ///
    /// # Errors
    /// When the stream ends first.
    pub async fn read_until(&mut self, text: &str) -> Result<String> {
        let mut all = Vec::new();
        loop {
            let seen = String::from_utf8_lossy(&all);
            if seen.contains(text) {
                return Ok(seen.into_owned());
            }
            let count = self.stream.read_buf(&mut all).await.context("read a passed stream")?;
            anyhow::ensure!(count > 0, "ended without {text:?}: {:?}", String::from_utf8_lossy(&all));
        }
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// When the guest hung up.
    pub async fn write(&mut self, data: &[u8]) -> Result<()> {
        self.stream.write_all(data).await.context("write to a passed stream")
    }
}

impl ContainerBuilder {
    /// With stdin, stdout and stderr over connections from these ports; 0 for none.
    #[must_use]
    pub fn ports(self, [stdin, stdout, stderr]: [u32; 3]) -> ContainerBuilder {
        self.request(|request| {
            (request.stdin_port, request.stdout_port, request.stderr_port) = (stdin, stdout, stderr);
        })
    }
}

impl Exec {
    /// With stdin, stdout and stderr over connections from these ports; 0 for none.
    #[must_use]
    pub fn ports(self, [stdin, stdout, stderr]: [u32; 3]) -> Exec {
        self.request(|request| {
            (request.stdin_port, request.stdout_port, request.stderr_port) = (stdin, stdout, stderr);
        })
    }
}
