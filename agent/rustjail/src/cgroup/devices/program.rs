//! Device rules compiled to eBPF.
//!
//! Owns: the code generator. Promises: the program decides as the rules mean (see the parent module); it always ends,
//! has no unreachable instruction, and the verifier's work grows with the number of rules only. Must never: reorder
//! or merge rules beyond dropping those that change nothing.
//!
//! The rules are tried from the last to the first, and R3 holds the parts of the access still undecided:
//!
//! ```text
//!     R2 = kind, R3 = access                      the context is {access << 16 | kind, major, minor}
//!     if R3 == 0: return 1                        access(2) with F_OK asks for nothing
//!     for each rule, last first:
//!         if kind, major or minor differ: next
//!         allow:  R3 &= !rule.access; if R3 == 0: return 1
//!         deny:   if R3 & rule.access: return 0
//!     return 0
//! ```
//!
//! Major and minor are loaded anew for each rule. Kept in registers, each comparison would leave the verifier with one
//! more state for all that follows, and its work would grow with the square of the rules.

use super::instruction::{Instruction, Register};
use super::{ALL, Rule};

const RESULT: Register = Register::R0;
const CONTEXT: Register = Register::R1;
const KIND: Register = Register::R2;
const UNDECIDED: Register = Register::R3;
const SCRATCH: Register = Register::R4;

/// Offsets in `struct bpf_cgroup_dev_ctx`.
const ACCESS_AND_KIND: i16 = 0;
const MAJOR: i16 = 4;
const MINOR: i16 = 8;

/// The program for `rules`, in their order; what none of them names is denied.
pub(super) fn compile(rules: &[Rule]) -> Vec<Instruction> {
    // What comes before a rule for everything has no say.
    let first = rules.iter().rposition(is_for_everything).unwrap_or(0);
    let (default, rules) = match rules.get(first) {
        Some(rule) if is_for_everything(rule) => (rule.allow, &rules[first + 1..]),
        _ => (false, rules),
    };
    // Nor has a rule that says what would follow anyway.
    let rules = &rules[rules.iter().position(|rule| rule.allow != default).unwrap_or(rules.len())..];
    if rules.is_empty() && default {
        return answer(true).to_vec();
    }
    let mut program = vec![
        Instruction::Load { to: KIND, from: CONTEXT, offset: ACCESS_AND_KIND },
        Instruction::Copy { to: UNDECIDED, from: KIND },
        Instruction::ShiftRight { to: UNDECIDED, bits: 16 },
        Instruction::And { to: KIND, mask: 0xffff },
    ];
    program.extend(allow_if_decided());
    for rule in rules.iter().rev() {
        program.extend(block(rule));
    }
    program.extend(answer(default));
    program
}

fn is_for_everything(rule: &Rule) -> bool {
    matches!(rule, Rule { kind: None, major: None, minor: None, access: ALL, .. })
}

fn answer(allow: bool) -> [Instruction; 2] {
    [Instruction::Set { to: RESULT, value: u32::from(allow) }, Instruction::Exit]
}

fn allow_if_decided() -> [Instruction; 3] {
    let [set, exit] = answer(true);
    [Instruction::JumpIfNotEqual { register: UNDECIDED, value: 0, skip: 2 }, set, exit]
}

/// One rule: the tests that skip it, then its verdict. At most 10 instructions.
fn block(rule: &Rule) -> Vec<Instruction> {
    let verdict = verdict(rule);
    // Built from the end, since each test skips all that follows it.
    let mut reversed: Vec<Instruction> = verdict.into_iter().rev().collect();
    for (offset, number) in [(MINOR, rule.minor), (MAJOR, rule.major)] {
        if let Some(value) = number {
            reversed.push(skip_unless(SCRATCH, value, reversed.len()));
            reversed.push(Instruction::Load { to: SCRATCH, from: CONTEXT, offset });
        }
    }
    if let Some(kind) = rule.kind {
        reversed.push(skip_unless(KIND, kind as u32, reversed.len()));
    }
    reversed.reverse();
    reversed
}

fn skip_unless(register: Register, value: u32, skip: usize) -> Instruction {
    // A block has ten instructions at most.
    Instruction::JumpIfNotEqual { register, value, skip: skip as i16 }
}

fn verdict(rule: &Rule) -> Vec<Instruction> {
    let mask = u32::from(rule.access);
    match (rule.allow, rule.access) {
        // Something is undecided whenever a rule is reached, and this decides all there can be.
        (allow, ALL) => answer(allow).to_vec(),
        (true, _) => {
            let mut verdict = vec![Instruction::And { to: UNDECIDED, mask: !mask }];
            verdict.extend(allow_if_decided());
            verdict
        }
        (false, _) => {
            let mut verdict = vec![
                Instruction::JumpIfAny { register: UNDECIDED, mask, skip: 1 },
                Instruction::Jump { skip: 2 },
            ];
            verdict.extend(answer(false));
            verdict
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::interpreter::{Request, run};
    use super::super::{DeviceKind, MKNOD, READ, WRITE, default_rules};
    use super::*;

    /// The meaning of the rules, said as plainly as possible.
    fn means(rules: &[Rule], request: Request) -> bool {
        [MKNOD, READ, WRITE].into_iter().filter(|part| request.access & part != 0).all(|part| {
            let names = |rule: &&Rule| {
                rule.kind.is_none_or(|kind| kind == request.kind)
                    && rule.major.is_none_or(|major| major == request.major)
                    && rule.minor.is_none_or(|minor| minor == request.minor)
                    && rule.access & part != 0
            };
            rules.iter().rev().find(names).is_some_and(|rule| rule.allow)
        })
    }

    fn kind() -> impl Strategy<Value = DeviceKind> {
        prop_oneof![Just(DeviceKind::Block), Just(DeviceKind::Char)]
    }

    /// Few numbers, so that rules meet; among them those that a signed comparison would take for others.
    fn number() -> impl Strategy<Value = u32> {
        prop_oneof![0u32..4, Just(136), Just(0x7fff_ffff), Just(0x8000_0000), Just(u32::MAX)]
    }

    fn rule() -> impl Strategy<Value = Rule> {
        let parts = (proptest::option::weighted(0.7, kind()), proptest::option::weighted(0.7, number()));
        (any::<bool>(), parts, proptest::option::weighted(0.7, number()), 1u8..=ALL)
            .prop_map(|(allow, (kind, major), minor, access)| Rule { allow, kind, major, minor, access })
    }

    fn request() -> impl Strategy<Value = Request> {
        (kind(), number(), number(), 0u8..=ALL).prop_map(|(kind, major, minor, access)| Request {
            kind,
            major,
            minor,
            access,
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn the_program_decides_as_the_rules_mean(
            rules in proptest::collection::vec(rule(), 0..12),
            requests in proptest::collection::vec(request(), 1..40),
        ) {
            let program = compile(&rules);
            for request in requests {
                prop_assert_eq!(run(&program, request), means(&rules, request), "{:?}", request);
            }
        }

        #[test]
        fn every_instruction_is_reached(rules in proptest::collection::vec(rule(), 0..12)) {
            // The verifier refuses dead code. Jumps only go forward, so one pass finds all that can be reached.
            let program = compile(&rules);
            let mut reached = vec![false; program.len() + 1];
            reached[0] = true;
            for (at, instruction) in program.iter().enumerate() {
                prop_assert!(reached[at], "instruction {} of {:?}", at, program);
                let target = |skip: i16| at + 1 + usize::try_from(skip).unwrap();
                match *instruction {
                    Instruction::Exit => {}
                    Instruction::Jump { skip } => reached[target(skip)] = true,
                    Instruction::JumpIfNotEqual { skip, .. } | Instruction::JumpIfAny { skip, .. } => {
                        reached[target(skip)] = true;
                        reached[at + 1] = true;
                    }
                    _ => reached[at + 1] = true,
                }
            }
            prop_assert!(!reached[program.len()], "runs off the end");
        }
    }

    fn char(major: u32, minor: u32, access: u8) -> Request {
        Request { kind: DeviceKind::Char, major, minor, access }
    }

    #[test]
    fn nothing_is_allowed_without_rules() {
        let program = compile(&[]);
        assert!(!run(&program, char(1, 3, READ)));
        assert!(run(&program, char(1, 3, 0)));
    }

    #[test]
    fn a_later_rule_narrows_and_widens() {
        let allow = Rule { allow: true, kind: None, major: None, minor: None, access: ALL };
        let no_writing = Rule { allow: false, access: WRITE, major: Some(8), ..allow };
        let but_this = Rule { allow: true, access: WRITE, minor: Some(1), major: Some(8), ..allow };
        let program = compile(&[allow, no_writing, but_this]);
        assert!(run(&program, char(8, 0, READ)));
        assert!(!run(&program, char(8, 0, WRITE)));
        assert!(!run(&program, char(8, 0, READ | WRITE)));
        assert!(run(&program, char(8, 1, READ | WRITE)));
        assert!(run(&program, char(9, 0, ALL)));
    }

    #[test]
    fn the_parts_of_an_access_may_come_from_several_rules() {
        let read = Rule { allow: true, kind: None, major: Some(1), minor: None, access: READ };
        let write = Rule { allow: true, kind: None, major: None, minor: Some(3), access: WRITE };
        let program = compile(&[read, write]);
        assert!(run(&program, char(1, 3, READ | WRITE)));
        assert!(!run(&program, char(1, 4, READ | WRITE)));
    }

    #[test]
    fn a_privileged_container_has_the_shortest_program() {
        let rules: Vec<Rule> = default_rules().iter().map(|rule| Rule::parse(rule).unwrap()).collect();
        let all = Rule { allow: true, kind: None, major: None, minor: None, access: ALL };
        let mut privileged = vec![Rule { allow: false, ..all }, all];
        privileged.extend(&rules);
        assert_eq!(compile(&privileged), answer(true));
    }

    #[test]
    fn the_defaults_open_what_programs_need_and_no_disk_or_console() {
        let rules: Vec<Rule> = default_rules().iter().map(|rule| Rule::parse(rule).unwrap()).collect();
        let program = compile(&rules);
        for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2), (136, 77), (10, 200)] {
            assert!(run(&program, char(major, minor, ALL)), "{major}:{minor}");
        }
        // The last of them are consoles of the guest: by number, of serial ports and hvc, and `/dev/console` itself.
        for (major, minor) in [(1, 1), (1, 11), (10, 232), (4, 0), (4, 64), (204, 64), (229, 0), (5, 1)] {
            assert!(!run(&program, char(major, minor, READ)), "{major}:{minor}");
            assert!(run(&program, char(major, minor, MKNOD)), "{major}:{minor}");
        }
        let disk = |access| Request { kind: DeviceKind::Block, major: 1, minor: 3, access };
        assert!(!run(&program, disk(READ)));
        assert!(!run(&program, disk(READ | MKNOD)));
        assert!(run(&program, disk(MKNOD)));
    }
}
