//! From a profile to a program: the architecture first, then a balanced search for the number among ranges of calls of
//! which the same is decided.

use oci_spec::runtime::LinuxSeccomp;

use super::assemble::{Assembler, Goal};
use super::profile::{Decision, Family, KILL_THREAD, Machine, Profile};
use super::{Filter, bpf};
use crate::plan::PlanError;

/// Most instructions of a filter (`BPF_MAXINSNS`).
const MOST_INSTRUCTIONS: usize = 4096;

/// Most exceptions of a group.
const MOST_EXCEPTIONS: usize = 2;

/// Makes the filter of a profile, for a kernel of the architecture that this program is of.
///
/// # Errors
/// [`PlanError`] naming the field that cannot be right, or the length of a program that no kernel takes.
pub fn compile(profile: &LinuxSeccomp) -> Result<Filter, PlanError> {
    compile_for(profile, Family::NATIVE)
}

fn compile_for(profile: &LinuxSeccomp, family: Family) -> Result<Filter, PlanError> {
    let Profile { default, machines, flags, listener } = Profile::read(profile, family)?;
    let mut code = Assembler::new(default);
    let mut next = code.push(bpf::end(KILL_THREAD));
    for machine in machines.iter().rev() {
        let ranges = ranges(machine);
        let goal = search(&mut code, &groups(&ranges));
        code.lead_to(goal);
        let calls = code.push(bpf::load_number());
        next = code.branch(bpf::JEQ, machine.audit, Goal::To(calls), Goal::To(next));
    }
    code.push(bpf::load_machine());
    let program = code.finish();
    if program.len() > MOST_INSTRUCTIONS {
        return Err(PlanError::Invalid(format!(
            "linux.seccomp makes a filter of {} instructions; the kernel takes {MOST_INSTRUCTIONS}",
            program.len()
        )));
    }
    Ok(Filter { program: program.into(), flags, listener })
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

/// Neighbouring ranges that one step of the search finds: calls of which the same is decided, but for a few.
#[derive(Debug, Clone)]
struct Group<'a> {
    first: u32,
    decision: &'a Decision,
    /// Calls that are decided otherwise, by number.
    exceptions: Vec<(u32, &'a Decision)>,
}

/// Two ranges with one call between them that differs cost two comparisons, or one with that number. More exceptions than
/// [`MOST_EXCEPTIONS`] would take longer to try one after the other than a search takes.
fn groups(ranges: &[(u32, Decision)]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    let mut rest = ranges;
    while let [(first, decision), others @ ..] = rest {
        rest = others;
        if let [(after, outer), beyond @ ..] = others
            && let Some(group) = groups.last_mut()
            && *after == first + 1
            && outer == group.decision
            && group.exceptions.len() < MOST_EXCEPTIONS
        {
            group.exceptions.push((*first, decision));
            rest = beyond;
        } else {
            groups.push(Group { first: *first, decision, exceptions: Vec::new() });
        }
    }
    groups
}

fn search<'a>(code: &mut Assembler, groups: &[Group<'a>]) -> Goal<'a> {
    if let [Group { decision, exceptions, .. }] = groups {
        return exceptions.iter().fold(Goal::Decide(decision), |others, (number, decision)| {
            Goal::To(code.branch(bpf::JEQ, *number, Goal::Decide(decision), others))
        });
    }
    let (low, high) = groups.split_at(groups.len() / 2);
    let first = high[0].first;
    let (high, low) = (search(code, high), search(code, low));
    Goal::To(code.branch(bpf::JGE, first, high, low))
}

#[cfg(test)]
#[path = "compile_test.rs"]
mod tests;

#[cfg(test)]
#[path = "libseccomp_test.rs"]
mod libseccomp_tests;
