//! Writes a decision as classic BPF (kernel documentation, "Linux Socket Filtering").
//!
//! Promises that every jump goes forward and stays within its 8 bits, or is an unconditional one with 32.

use super::Instruction;
use super::profile::{Condition, Decision, Return, Rule, Test};

const LD_ABS: u16 = 0x20;
const AND: u16 = 0x54;
const JA: u16 = 0x05;
/// Jumps if what is loaded equals the operand.
pub(super) const JEQ: u16 = 0x15;
const JGT: u16 = 0x25;
/// Jumps if what is loaded is the operand or above.
pub(super) const JGE: u16 = 0x35;
const RET: u16 = 0x06;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const MACHINE: u32 = 4;
const ARGUMENTS: u32 = 16;

fn statement(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

/// Loads the system call's number.
pub(super) fn load_number() -> Instruction {
    statement(LD_ABS, NUMBER)
}

/// Loads the architecture.
pub(super) fn load_machine() -> Instruction {
    statement(LD_ABS, MACHINE)
}

/// Ends with a result.
pub(super) fn end(result: Return) -> Instruction {
    statement(RET, result)
}

/// Goes on after `count` instructions.
pub(super) fn skip(count: usize) -> Instruction {
    statement(JA, u32::try_from(count).unwrap_or(u32::MAX))
}

/// Where a test's jump leads.
#[derive(Clone, Copy)]
enum To {
    /// So many instructions on.
    On(u8),
    /// The condition holds.
    Holds,
    /// It does not.
    Fails,
}

/// The code of one condition: it goes on behind its end if the condition holds.
fn test(Condition { index, test }: Condition) -> Vec<(Instruction, To, To)> {
    // Both architectures that this is built for keep the low half first.
    let low = ARGUMENTS + 8 * index;
    let load = |offset: u32| (statement(LD_ABS, offset), To::On(0), To::On(0));
    let jump = |code: u16, k: u32, yes: To, no: To| (statement(code, k), yes, no);
    let halves = |value: u64| ((value >> 32) as u32, value as u32);
    // At least, or above: the high half decides unless it is the same.
    let order = |value: u64, code: u16, yes: To, no: To| {
        let (high_half, low_half) = halves(value);
        vec![
            load(low + 4),
            jump(JGT, high_half, yes, To::On(0)),
            jump(JEQ, high_half, To::On(0), no),
            load(low),
            jump(code, low_half, yes, no),
        ]
    };
    let equality = |value: u64, same: To, other: To| {
        let (high_half, low_half) = halves(value);
        vec![
            load(low + 4),
            jump(JEQ, high_half, To::On(0), other),
            load(low),
            jump(JEQ, low_half, same, other),
        ]
    };
    match test {
        Test::Equal(value) => equality(value, To::Holds, To::Fails),
        Test::NotEqual(value) => equality(value, To::Fails, To::Holds),
        Test::GreaterOrEqual(value) => order(value, JGE, To::Holds, To::Fails),
        Test::Greater(value) => order(value, JGT, To::Holds, To::Fails),
        Test::Less(value) => order(value, JGE, To::Fails, To::Holds),
        Test::LessOrEqual(value) => order(value, JGT, To::Fails, To::Holds),
        Test::Masked { mask, value } => {
            let (high_mask, low_mask) = halves(mask);
            let (high_half, low_half) = halves(value);
            let and = |mask: u32| (statement(AND, mask), To::On(0), To::On(0));
            let mut code = Vec::new();
            if high_mask != 0 || high_half != 0 {
                code.extend([load(low + 4), and(high_mask), jump(JEQ, high_half, To::On(0), To::Fails)]);
            }
            code.extend([load(low), and(low_mask), jump(JEQ, low_half, To::Holds, To::Fails)]);
            code
        }
    }
}

/// The code of one rule: ends with its result, or goes on behind its end.
fn rule(rule: &Rule) -> Vec<Instruction> {
    let tests: Vec<_> = rule.conditions.iter().map(|condition| test(*condition)).collect();
    // Six conditions of at most six instructions: no jump is longer than 37.
    let whole: usize = tests.iter().map(Vec::len).sum::<usize>() + 1;
    let mut code = Vec::new();
    for test in tests {
        let after = code.len() + test.len();
        for (mut instruction, yes, no) in test {
            let here = code.len() + 1;
            let distance = |to: To| match to {
                To::On(count) => count,
                To::Holds => u8::try_from(after - here).unwrap_or(u8::MAX),
                To::Fails => u8::try_from(whole - here).unwrap_or(u8::MAX),
            };
            (instruction.jt, instruction.jf) = (distance(yes), distance(no));
            code.push(instruction);
        }
    }
    code.push(end(rule.result));
    code
}

/// The code of all that is decided of one call; it always ends with a result.
pub(super) fn decision(decision: &Decision, default: Return) -> Vec<Instruction> {
    let mut code: Vec<Instruction> = decision.rules.iter().flat_map(rule).collect();
    if decision.rules.iter().all(|rule| !rule.conditions.is_empty()) {
        code.push(end(default));
    }
    code
}
