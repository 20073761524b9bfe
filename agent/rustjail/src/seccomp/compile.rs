//! From a profile to a program: the architecture first, then a balanced search for the number among ranges of calls of
//! which the same is decided.

use oci_spec::runtime::LinuxSeccomp;

use super::profile::{Decision, KILL_THREAD, Machine, Profile, Return, Rule, X32_BIT};
use super::{Filter, Instruction, bpf};
use crate::plan::PlanError;

/// Most instructions of a filter (`BPF_MAXINSNS`).
const MOST_INSTRUCTIONS: usize = 4096;

/// Makes the filter of a profile.
///
/// # Errors
/// [`PlanError`] naming the field that cannot be right, or the length of a program that no kernel takes.
pub fn compile(profile: &LinuxSeccomp) -> Result<Filter, PlanError> {
    let Profile { default, machines, flags, listener } = Profile::read(profile)?;
    let mut program = vec![bpf::load_machine()];
    for machine in &machines {
        program.extend(bpf::if_equal(machine.audit, calls(machine, default)));
    }
    program.push(bpf::end(KILL_THREAD));
    if program.len() > MOST_INSTRUCTIONS {
        return Err(PlanError::Invalid(format!(
            "linux.seccomp makes a filter of {} instructions; the kernel takes {MOST_INSTRUCTIONS}",
            program.len()
        )));
    }
    Ok(Filter { program, flags, listener })
}

fn calls(machine: &Machine, default: Return) -> Vec<Instruction> {
    let ranges = ranges(machine);
    let mut code = vec![bpf::load_number()];
    code.extend(search(&ranges, default));
    code
}

/// The first number of each range, and what is decided of its calls.
fn ranges(machine: &Machine) -> Vec<(u32, Decision)> {
    let mut ranges: Vec<(u32, Decision)> = vec![(0, Decision::default())];
    let begin = |ranges: &mut Vec<(u32, Decision)>, number: u32, decision: Decision| match ranges.last_mut() {
        Some((_, last)) if *last == decision => {}
        Some((first, last)) if *first == number => *last = decision,
        _ => ranges.push((number, decision)),
    };
    for (&number, decision) in &machine.calls {
        begin(&mut ranges, number, decision.clone());
        // Until the next one says otherwise.
        if !machine.calls.contains_key(&(number + 1)) {
            begin(&mut ranges, number + 1, Decision::default());
        }
    }
    if machine.bars_x32 {
        let kill = Rule { conditions: Vec::new(), result: KILL_THREAD };
        begin(&mut ranges, X32_BIT, Decision { rules: vec![kill] });
    }
    ranges
}

fn search(ranges: &[(u32, Decision)], default: Return) -> Vec<Instruction> {
    match ranges {
        [] => vec![bpf::end(default)],
        [(_, decision)] => bpf::decision(decision, default),
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            bpf::if_below(high[0].0, search(low, default), search(high, default))
        }
    }
}

#[cfg(test)]
#[path = "compile_test.rs"]
mod tests;

#[cfg(test)]
#[path = "libseccomp_test.rs"]
mod libseccomp_tests;
