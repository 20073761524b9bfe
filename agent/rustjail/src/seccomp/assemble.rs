//! Puts a filter together from its end to its beginning.
//!
//! Jumps of classic BPF lead forward only, and conditional ones by 255 instructions at most (kernel documentation, "Linux Socket
//! Filtering"). Built backwards, a filter knows where each jump leads when it is written. So an end that many calls share, such as
//! "allowed", stands there once for all jumps that reach it. The kernel checks and translates every instruction for each process
//! that loads the filter: a short filter makes a process start sooner.

use super::Instruction;
use super::bpf;
use super::profile::{Decision, Return};

/// Furthest that a conditional jump is made to lead. Two instructions may still come between, and the jump has 8 bits.
const REACH: usize = 253;

/// A place in the filter, by the number of instructions behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Label(usize);

/// Where a jump leads.
#[derive(Debug, Clone, Copy)]
pub(super) enum Goal<'a> {
    /// To code that is written.
    To(Label),
    /// To what is decided of a call. It is written once for all jumps that reach it.
    Decide(&'a Decision),
}

/// A filter in the making.
#[derive(Debug)]
pub(super) struct Assembler {
    default: Return,
    /// The last instruction first.
    backwards: Vec<Instruction>,
    /// Decisions that are written, by their code.
    decisions: Vec<(Vec<Instruction>, Label)>,
}

impl Assembler {
    /// An empty filter. Calls that no rule decides end with `default`.
    pub(super) fn new(default: Return) -> Assembler {
        Assembler { default, backwards: Vec::new(), decisions: Vec::new() }
    }

    /// The filter from its beginning.
    pub(super) fn finish(mut self) -> Vec<Instruction> {
        self.backwards.reverse();
        self.backwards
    }

    /// Writes one instruction in front of all others.
    pub(super) fn push(&mut self, instruction: Instruction) -> Label {
        self.backwards.push(instruction);
        Label(self.backwards.len() - 1)
    }

    /// Writes a jump on a condition: to `yes` if what is loaded is in the relation `code` to `k`, else to `no`.
    pub(super) fn branch(&mut self, code: u16, k: u32, yes: Goal<'_>, no: Goal<'_>) -> Label {
        let (yes, no) = (self.place(yes), self.place(no));
        // Each may put an unconditional jump in between, which leads further.
        let (yes, no) = (self.near(yes), self.near(no));
        let distance = |label| u8::try_from(self.distance(label)).unwrap_or(u8::MAX);
        self.push(Instruction { code, jt: distance(yes), jf: distance(no), k })
    }

    /// Makes what is written next go on at `goal`.
    pub(super) fn lead_to(&mut self, goal: Goal<'_>) {
        let label = self.place(goal);
        if self.distance(label) > 0 {
            self.push(bpf::skip(self.distance(label)));
        }
    }

    /// Instructions between the next one that is written and `label`.
    fn distance(&self, label: Label) -> usize {
        self.backwards.len() - 1 - label.0
    }

    fn place(&mut self, goal: Goal<'_>) -> Label {
        let decision = match goal {
            Goal::To(label) => return label,
            Goal::Decide(decision) => decision,
        };
        let code = bpf::decision(decision, self.default);
        if let Some((_, label)) = self.decisions.iter().rev().find(|(written, _)| *written == code)
            && self.distance(*label) <= REACH
        {
            return *label;
        }
        self.backwards.extend(code.iter().rev());
        let label = Label(self.backwards.len() - 1);
        self.decisions.push((code, label));
        label
    }

    fn near(&mut self, label: Label) -> Label {
        match self.distance(label) {
            0..=REACH => label,
            far => self.push(bpf::skip(far)),
        }
    }
}
