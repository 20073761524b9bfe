//! Which vsock port belongs to whom, where options name one twice.

use std::num::NonZeroU32;

/// Who has which port, and who came late.
#[derive(Default)]
pub(super) struct Taken {
    ports: Vec<(u32, &'static str)>,
    late: Vec<Late>,
}

/// An option whose port another one has taken before.
pub(super) struct Late {
    pub(super) option: &'static str,
    pub(super) port: NonZeroU32,
    pub(super) owner: &'static str,
}

impl Taken {
    /// The option that has a port.
    pub(super) fn owner(&self, port: u32) -> Option<&'static str> {
        self.ports.iter().find(|(taken, _)| *taken == port).map(|(_, owner)| *owner)
    }

    /// Gives a port to an option.
    pub(super) fn take(&mut self, port: u32, owner: &'static str) {
        self.ports.push((port, owner));
    }

    /// Leaves the port of an option with it, or takes it away if another one has it.
    pub(super) fn keep(&mut self, option: &'static str, port: &mut Option<NonZeroU32>) {
        let Some(number) = *port else { return };
        match self.owner(number.get()) {
            None => self.take(number.get(), option),
            Some(owner) => {
                *port = None;
                self.late.push(Late { option, port: number, owner });
            }
        }
    }

    /// All who came late.
    pub(super) fn late(self) -> Vec<Late> {
        self.late
    }
}
