//! Which vsock port belongs to whom, where options name one twice. The boot goes on in any case.

use std::num::NonZeroU32;

use super::{API_PORT, CONSOLE_PORT, Config, PREFIX, Reason, ServerAddr, Warning};

/// Gives each port to one service, the API first. Who comes late goes without, and is told so.
pub(super) fn settle(config: &mut Config) -> Vec<Warning> {
    let mut taken = Taken::default();
    // The default port stays the API's, which falls back to it where the other address cannot be had.
    taken.take(API_PORT, "server_addr");
    if let ServerAddr::Vsock { port, .. } = config.server_addr {
        taken.take(port, "server_addr");
    }
    if config.debug_console {
        taken.keep("debug_console_vport", &mut config.debug_console_vport);
        if config.debug_console_vport.is_none() {
            let mut usual = NonZeroU32::new(CONSOLE_PORT);
            taken.keep("debug_console", &mut usual);
            config.debug_console = usual.is_some();
        }
    }
    taken.keep("log_vport", &mut config.log_vport);
    taken.keep("passfd_listener_port", &mut config.passfd_listener_port);
    // A console that is off has a port as well, to say so.
    let refusing = config.debug_console_vport.map_or(CONSOLE_PORT, NonZeroU32::get);
    config.console_port = match config.debug_console {
        true => Some(refusing),
        false => Some(refusing).filter(|port| taken.owner(*port).is_none()),
    };
    taken.warnings
}

#[derive(Default)]
struct Taken {
    ports: Vec<(u32, &'static str)>,
    warnings: Vec<Warning>,
}

impl Taken {
    fn owner(&self, port: u32) -> Option<&'static str> {
        self.ports.iter().find(|(taken, _)| *taken == port).map(|(_, owner)| *owner)
    }

    fn take(&mut self, port: u32, owner: &'static str) {
        self.ports.push((port, owner));
    }

    /// Leaves the port of an option with it, or takes it away.
    fn keep(&mut self, option: &'static str, port: &mut Option<NonZeroU32>) {
        let Some(number) = *port else { return };
        match self.owner(number.get()) {
            None => self.take(number.get(), option),
            Some(owner) => {
                *port = None;
                self.warnings.push(Warning {
                    option: format!("{PREFIX}{option}"),
                    value: Some(number.to_string()),
                    reason: Reason::Taken { owner },
                });
            }
        }
    }
}
