//! What `.config/nextest.toml` says of modules of tests is about modules that exist: nextest itself passes over a name
//! that no test has, and a test that must run alone would not any more.

use crate::source::workspace;

/// Binary and module of every `binary(NAME) and test(/^MODULE::/)` in the configuration.
fn named(config: &str) -> Vec<(&str, &str)> {
    config
        .split("binary(")
        .filter_map(|rest| {
            let (binary, rest) = rest.split_once(") and test(/^")?;
            let (module, _) = rest.split_once("::/)")?;
            (!binary.contains(')')).then_some((binary, module))
        })
        .collect()
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
