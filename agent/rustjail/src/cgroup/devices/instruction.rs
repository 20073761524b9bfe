//! The few eBPF instructions a device filter is made of.
//!
//! Owns: their encoding (Linux `Documentation/bpf/standardization/instruction-set.rst`). Promises: 32-bit arithmetic
//! and comparisons throughout, so that no device number is ever taken for negative. Must never: know about devices.

/// Opcodes: class in the low 3 bits, then the source (0: immediate, 8: register), then the operation.
const LDX_W: u8 = 0x61;
const MOV32: u8 = 0xb4;
const MOV32_X: u8 = 0xbc;
const AND32: u8 = 0x54;
const RSH32: u8 = 0x74;
const JA: u8 = 0x05;
const JNE32: u8 = 0x56;
const JSET32: u8 = 0x46;
const EXIT: u8 = 0x95;

/// A register. R0 is the result, R1 the context at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Register {
    R0 = 0,
    R1 = 1,
    R2 = 2,
    R3 = 3,
    R4 = 4,
}

/// An instruction. A jump skips `skip` instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Instruction {
    /// `to = *(u32 *)(from + offset)`
    Load { to: Register, from: Register, offset: i16 },
    /// `to = value`
    Set { to: Register, value: u32 },
    /// `to = from`
    Copy { to: Register, from: Register },
    /// `to &= mask`
    And { to: Register, mask: u32 },
    /// `to >>= bits`
    ShiftRight { to: Register, bits: u32 },
    /// `goto`
    Jump { skip: i16 },
    /// `if register != value goto`
    JumpIfNotEqual { register: Register, value: u32, skip: i16 },
    /// `if register & mask goto`
    JumpIfAny { register: Register, mask: u32, skip: i16 },
    /// `return R0`
    Exit,
}

impl Instruction {
    /// As the kernel's `struct bpf_insn`, in this machine's byte order.
    pub(super) fn encode(&self) -> [u8; 8] {
        use Register::R0;
        let (code, to, from, offset, immediate) = match *self {
            Instruction::Load { to, from, offset } => (LDX_W, to, from, offset, 0),
            Instruction::Set { to, value } => (MOV32, to, R0, 0, value),
            Instruction::Copy { to, from } => (MOV32_X, to, from, 0, 0),
            Instruction::And { to, mask } => (AND32, to, R0, 0, mask),
            Instruction::ShiftRight { to, bits } => (RSH32, to, R0, 0, bits),
            Instruction::Jump { skip } => (JA, R0, R0, skip, 0),
            Instruction::JumpIfNotEqual { register, value, skip } => (JNE32, register, R0, skip, value),
            Instruction::JumpIfAny { register, mask, skip } => (JSET32, register, R0, skip, mask),
            Instruction::Exit => (EXIT, R0, R0, 0, 0),
        };
        // Two bit fields of four: which comes first follows the byte order.
        let registers = if cfg!(target_endian = "little") {
            (from as u8) << 4 | to as u8
        } else {
            (to as u8) << 4 | from as u8
        };
        let [o0, o1] = offset.to_ne_bytes();
        let [i0, i1, i2, i3] = immediate.to_ne_bytes();
        [code, registers, o0, o1, i0, i1, i2, i3]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against bytes written down from the macros in the kernel's `include/linux/filter.h`.
    #[test]
    #[cfg(target_endian = "little")]
    fn encodes_as_the_kernel_does() {
        use Register::{R0, R1, R2, R3, R4};
        for (instruction, bytes) in [
            (Instruction::Load { to: R4, from: R1, offset: 8 }, [0x61, 0x14, 8, 0, 0, 0, 0, 0]),
            (Instruction::Set { to: R0, value: 1 }, [0xb4, 0, 0, 0, 1, 0, 0, 0]),
            (Instruction::Copy { to: R3, from: R2 }, [0xbc, 0x23, 0, 0, 0, 0, 0, 0]),
            (Instruction::And { to: R2, mask: 0xffff }, [0x54, 2, 0, 0, 0xff, 0xff, 0, 0]),
            (Instruction::ShiftRight { to: R3, bits: 16 }, [0x74, 3, 0, 0, 16, 0, 0, 0]),
            (Instruction::Jump { skip: 2 }, [0x05, 0, 2, 0, 0, 0, 0, 0]),
            (
                Instruction::JumpIfNotEqual { register: R4, value: u32::MAX, skip: 258 },
                [0x56, 4, 2, 1, 0xff, 0xff, 0xff, 0xff],
            ),
            (Instruction::JumpIfAny { register: R3, mask: 4, skip: 1 }, [0x46, 3, 1, 0, 4, 0, 0, 0]),
            (Instruction::Exit, [0x95, 0, 0, 0, 0, 0, 0, 0]),
        ] {
            assert_eq!(instruction.encode(), bytes, "{instruction:?}");
        }
    }
}
