//! Numbers that differ from one processor to another come from the C library's constants: those of system calls, and of the flags
//! of `open(2)`. `O_DIRECTORY` of x86_64, written as a number, is `O_DIRECT` on 64-bit Arm.

use crate::source::{Source, sources};

/// Beginnings of names that stand for such numbers.
const NAMES: [&str; 3] = ["O_", "SYS_", "__NR_"];

/// Functions whose first argument is such a number.
const FUNCTIONS: [&str; 2] = ["syscall(", "custom_flags("];

/// What breaks the rule, each as a piece of the code.
fn numbers(code: &str) -> Vec<String> {
    let words: Vec<&str> = code.split_whitespace().collect();
    let close = words.join(" ").replace("( ", "(");
    let is_number = |text: &str| text.starts_with(|first: char| first.is_ascii_digit());
    let mut found = Vec::new();
    for constant in close.split("const ").skip(1) {
        // `NAME: TYPE = VALUE;`
        let Some((name, value)) = constant.split(';').next().unwrap_or_default().split_once('=') else {
            continue;
        };
        if NAMES.iter().any(|start| name.starts_with(start)) && is_number(value.trim_start()) {
            found.push(format!("const {name}={value}"));
        }
    }
    for function in FUNCTIONS {
        let calls = close.split(function).skip(1).filter(|arguments| is_number(arguments));
        found.extend(
            calls.map(|call| format!("{function}{}", call.split([',', ')']).next().unwrap_or_default())),
        );
    }
    found
}

#[test]
fn numbers_of_one_processor_are_the_c_librarys() {
    let found: Vec<String> = sources(".")
        .iter()
        .flat_map(|source: &Source| {
            let path = source.path.display().to_string();
            numbers(&source.code()).into_iter().map(move |number| format!("{path}: {number}"))
        })
        .collect();
    assert!(found.is_empty(), "take these from `libc` or `rustix`: {found:#?}");
}

#[test]
fn numbers_are_told_from_names() {
    for bad in [
        "const O_NOFOLLOW: i32 = 0o400000;",
        "pub(crate) const SYS_openat2: c_long\n    = 437;",
        "unsafe { libc::syscall(\n    437,\n    dir) }",
        "options.custom_flags(0x20000)",
    ] {
        assert_eq!(numbers(bad).len(), 1, "{bad}");
    }
    for good in [
        "const FLAGS: i32 = libc::O_NOFOLLOW;",
        "const O_FLAGS: OFlags = OFlags::PATH;",
        "const OTHER: i32 = 4;",
        "libc::syscall(libc::SYS_openat2, 4)",
        "libc::syscall(argument, 0, 0)",
        "options.custom_flags(flags.bits())",
    ] {
        assert_eq!(numbers(good), [""; 0], "{good}");
    }
}
