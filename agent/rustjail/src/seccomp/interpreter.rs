//! Runs a filter as the kernel would, for tests.

use super::Instruction;

/// What a filter sees: `struct seccomp_data`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) number: u32,
    pub(super) machine: u32,
    pub(super) arguments: [u64; 6],
}

impl Call {
    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.number,
            4 => self.machine,
            8 | 12 => 0,
            16..64 => {
                let argument = self.arguments[(offset as usize - 16) / 8];
                if offset.is_multiple_of(8) { argument as u32 } else { (argument >> 32) as u32 }
            }
            other => panic!("a load at {other}"),
        }
    }
}

/// The result, and how many instructions it took. Panics where the kernel would refuse the program.
pub(super) fn run(program: &[Instruction], call: &Call) -> (u32, usize) {
    let (mut accumulator, mut place, mut steps) = (0u32, 0usize, 0usize);
    loop {
        let Instruction { code, jt, jf, k } = program[place];
        steps += 1;
        place += 1;
        let mut branch = |holds: bool| place += usize::from(if holds { jt } else { jf });
        match code {
            0x20 => accumulator = call.word(k),
            0x54 => accumulator &= k,
            0x05 => place += k as usize,
            0x15 => branch(accumulator == k),
            0x25 => branch(accumulator > k),
            0x35 => branch(accumulator >= k),
            // libseccomp also tests bits.
            0x45 => branch(accumulator & k != 0),
            0x06 => return (k, steps),
            other => panic!("operation {other:#x} at {}", place - 1),
        }
    }
}
