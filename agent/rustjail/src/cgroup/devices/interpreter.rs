//! Runs a device filter without a kernel, for tests.
//!
//! Owns: the meaning of each instruction, read back from its encoding, so that a wrong opcode shows here too. Promises:
//! panics on anything the kernel would refuse. Must never: share code with the generator.

use super::DeviceKind;
use super::instruction::Instruction;

/// What the kernel asks a filter.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    pub(super) kind: DeviceKind,
    pub(super) major: u32,
    pub(super) minor: u32,
    pub(super) access: u8,
}

/// The filter's answer.
pub(super) fn run(program: &[Instruction], request: Request) -> bool {
    let context = [u32::from(request.access) << 16 | request.kind as u32, request.major, request.minor];
    let mut registers = [None::<u32>; 11];
    let mut at = 0;
    loop {
        let [code, fields, o0, o1, i0, i1, i2, i3] = program[at].encode();
        let (to, from) = if cfg!(target_endian = "little") {
            (usize::from(fields & 15), usize::from(fields >> 4))
        } else {
            (usize::from(fields >> 4), usize::from(fields & 15))
        };
        let offset = usize::try_from(i16::from_ne_bytes([o0, o1])).expect("only forward");
        let immediate = u32::from_ne_bytes([i0, i1, i2, i3]);
        let operand = if code & 8 == 8 { registers[from] } else { Some(immediate) };
        at += 1;
        let value = |register: usize| registers[register].expect("read before written");
        let mut jump = |taken| at += if taken { offset } else { 0 };
        match (code & 7, code & 0xf0) {
            // LDX: R1 is the context as long as nobody writes it.
            (1, 0x60) => {
                assert_eq!((from, offset % 4), (1, 0));
                registers[to] = Some(context[offset / 4]);
            }
            // ALU: 32 bits.
            (4, 0xb0) => registers[to] = Some(operand.expect("read before written")),
            (4, 0x50) => registers[to] = Some(value(to) & operand.expect("read before written")),
            (4, 0x70) => registers[to] = Some(value(to) >> operand.expect("read before written")),
            // JMP32, of which `ja` and `exit` are in the class of 64 bits.
            (6, 0x50) => jump(value(to) != immediate),
            (6, 0x40) => jump(value(to) & immediate != 0),
            (5, 0x00) => jump(true),
            (5, 0x90) => {
                assert!(value(0) <= 1, "the kernel takes 0 and 1 only");
                return value(0) == 1;
            }
            other => panic!("opcode {code:#x} {other:?}"),
        }
    }
}
