//! `linux.cgroupsPath`: what is printed of it is read back as the same.

#![no_main]

use rustjail::cgroup::CgroupPath;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let Ok(path) = CgroupPath::parse(text, "c1") else { return };
    let printed = path.to_string();
    assert!(printed.len() > 1 && printed.split('/').skip(1).all(|name| !matches!(name, "" | "." | "..")));
    assert_eq!(CgroupPath::parse(&printed, "c1").as_ref().ok(), Some(&path));
});
