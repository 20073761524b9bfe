//! Published ports. A port opens when something in the pod answers.
//!
//! QEMU accepts a connection before it knows whether the guest will accept it. So a port of the host is opened only after a
//! connection to the port in the guest, from inside the guest, has succeeded once.

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::RunError;
use super::board::Board;
use super::companion;
use super::network::Held;
use super::state::ContainerRecord;
use machine::vm::{AgentClient, Forward, Orders};

/// Ports that wait for their servers. Dropped, those that still wait stay closed.
pub(super) struct Ports {
    _waits: JoinSet<()>,
}

impl Ports {
    /// Opens each port once a connection to it succeeds at the guest's `address`.
    pub(super) fn open(
        held: Vec<Held>,
        board: &Board,
        client: &AgentClient,
        companion: &ContainerRecord,
        address: &str,
        orders: &Orders,
    ) -> Self {
        let mut waits = JoinSet::new();
        for port in held {
            let (board, client, companion) = (board.clone(), client.clone(), companion.clone());
            let (address, orders) = (address.to_owned(), orders.clone());
            waits.spawn(async move {
                let forward = port.forward;
                let opened = async {
                    companion::answers(&client, &companion, &address, forward.guest_port).await?;
                    // QEMU takes it from here.
                    drop(port);
                    publish(&orders, &forward).await
                };
                if let Err(error) = opened.await {
                    board.note(format!("{forward} is not published: {error}"));
                }
                let done = board.change(|record| record.waiting_ports.retain(|other| *other != forward));
                if let Err(error) = done {
                    board.note(error.to_string());
                }
            });
        }
        Self { _waits: waits }
    }
}

async fn publish(orders: &Orders, forward: &Forward) -> Result<(), RunError> {
    let line = json!({ "command-line": format!("hostfwd_add {} {}", Forward::NETWORK, forward.rule()) });
    match orders.execute("human-monitor-command", line).await? {
        Value::String(said) if !said.trim().is_empty() => {
            Err(RunError::io("publish", forward, std::io::Error::other(said.trim().to_owned())))
        }
        _ => Ok(()),
    }
}
