//! What `.config/nextest.toml` says of modules of tests is about modules that exist: nextest itself passes over a name
//! that no test has, and a test that must run alone would not any more.

use crate::source::workspace;

/// Binary and module of every `binary(NAME) and test(/^MODULE::/)` in the configuration, also where several modules are named
/// in brackets: `/^(ONE|OTHER)::/`, `/^(ONE::|OTHER::it_does)/`.
fn named(config: &str) -> Vec<(&str, &str)> {
    let mut all = Vec::new();
    for rest in config.split("binary(").skip(1) {
        let Some((binary, rest)) = rest.split_once(") and test(/^") else { continue };
        let Some((modules, _)) = rest.split_once("/)") else { continue };
        if binary.contains(')') {
            continue;
        }
        // Without the colons it is the beginning of a name, of a module or of a test.
        let are_modules = modules.ends_with("::");
        for name in modules.trim_start_matches('(').split(['|', ')']) {
            match name.split_once("::") {
                Some(("", _)) => {}
                Some((module, _)) => all.push((binary, module)),
                None if are_modules => all.push((binary, name)),
                None => {}
            }
        }
    }
    all
}

#[test]
fn modules_with_settings_of_their_own_exist() {
    let config = std::fs::read_to_string(workspace().join(".config/nextest.toml")).unwrap();
    let named = named(&config);
    assert!(named.len() >= 3, "the configuration names modules in another way now: {named:?}");
    for (binary, module) in named {
        let path = workspace().join("tests").join(binary).join(module).with_extension("rs");
        assert!(path.is_file(), ".config/nextest.toml: there is no {binary} test in {module}::");
    }
}
