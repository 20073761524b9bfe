//! A filter of system calls as people read it: one instruction a line, jumps by the line they lead to.

use crate::seccomp::Instruction;

/// Fields of `struct seccomp_data`, by their offset in words.
const DATA: [&str; 4] = ["number", "architecture", "pointer", "pointer's high half"];

pub(super) fn of(program: &[Instruction]) -> Vec<String> {
    program
        .iter()
        .enumerate()
        .map(|(line, instruction)| format!("{line}: {}", text(line, *instruction)))
        .collect()
}

fn text(line: usize, Instruction { code, jt, jf, k }: Instruction) -> String {
    let to = |distance: u32| line + 1 + distance as usize;
    let jump = |test: &str| format!("if {test} {k:#x} go to {} else {}", to(jt.into()), to(jf.into()));
    match code {
        0x20 => match (k / 4) as usize {
            word @ 0..4 => format!("load {}", DATA[word]),
            word => {
                format!("load argument {}{}", (word - 4) / 2, if word % 2 == 0 { "" } else { "'s high half" })
            }
        },
        0x54 => format!("and {k:#x}"),
        0x05 => format!("go to {}", to(k)),
        0x15 => jump("=="),
        0x25 => jump(">"),
        0x35 => jump(">="),
        0x06 => format!("return {}", result(k)),
        _ => format!("{code:#x} {jt} {jf} {k:#x}"),
    }
}

fn result(value: u32) -> String {
    // linux/seccomp.h
    let name = match value & 0xffff_0000 {
        0 => "kill the thread",
        0x8000_0000 => "kill the process",
        0x0003_0000 => "trap",
        0x0005_0000 => "errno",
        0x7fc0_0000 => "ask the listener",
        0x7ff0_0000 => "tell the tracer",
        0x7ffc_0000 => "log",
        0x7fff_0000 => "allow",
        _ => return format!("{value:#x}"),
    };
    match value & 0xffff {
        0 => name.to_owned(),
        data => format!("{name} {data}"),
    }
}
