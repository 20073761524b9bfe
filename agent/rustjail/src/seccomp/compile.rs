//! From a profile to a program: the architecture first, then a balanced search for the number among ranges of calls of
//! which the same is decided.

use oci_spec::runtime::LinuxSeccomp;

use super::profile::{Decision, KILL_THREAD, Machine, Profile, Return};
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
fn ranges(Machine { calls, others, .. }: &Machine) -> Vec<(u32, Decision)> {
    let mut begins = others.clone();
    begins.extend(calls.iter().map(|(number, decision)| (*number, decision.clone())));
    for number in calls.keys().filter_map(|number| number.checked_add(1)) {
        // Until the next one says otherwise.
        if let Some((_, decision)) = others.range(..=number).next_back() {
            begins.entry(number).or_insert_with(|| decision.clone());
        }
    }
    let mut ranges: Vec<(u32, Decision)> = begins.into_iter().collect();
    ranges.dedup_by(|next, last| next.1 == last.1);
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
