//! Tests of recipes.

use super::*;

const MINIMAL: &str = "description = 'd'\n[budget]\ncompressed = 9\n";

fn parse(text: &str) -> Result<Recipe, RecipeError> {
    Recipe::parse("t", "t.toml".into(), text)
}

fn cause(text: &str) -> String {
    let error = parse(text).unwrap_err();
    let source = std::error::Error::source(&error).map(|source| source.to_string()).unwrap_or_default();
    format!("{error}: {source}")
}

/// What a file says.
fn text(tree: &Tree, path: &str) -> String {
    String::from_utf8(tree.file(path.as_bytes()).unwrap().bytes().unwrap().into_owned()).unwrap()
}

#[test]
fn unknown_keys_are_refused_by_name_at_every_level() {
    for extra in
        ["colour = 1", "[budget.colour]", "[[file]]\npath='/a'\nmode='644'\ntext=''\ncolour=1", "[[colour]]"]
    {
        let text =
            if extra.starts_with('[') { format!("{MINIMAL}{extra}") } else { format!("{extra}\n{MINIMAL}") };
        assert!(cause(&text).contains("colour"), "{extra}: {}", cause(&text));
    }
}

#[test]
fn wrong_values_are_refused() {
    for (entry, expected) in [
        ("[[directory]]\npath='/a'\nmode='9'", "octal"),
        ("[[directory]]\npath='/a'\nmode='00755'", "octal"),
        ("[[file]]\npath='/a'\nmode='644'", "exactly one of"),
        ("[[file]]\npath='/a'\nmode='644'\ntext=''\nproduct='agent'", "exactly one of"),
        ("[[file]]\npath='/a'\nmode='644'\nproduct='kernel'", "kernel"),
        ("[[device]]\npath='/a'\nmode='644'\nkind='tape'\nmajor=1\nminor=1", "tape"),
    ] {
        let text = cause(&format!("{MINIMAL}{entry}"));
        assert!(text.contains(expected), "{entry}: {text}");
    }
}

#[test]
fn a_wrong_entry_is_named_with_its_line() {
    let error = parse(&format!("{MINIMAL}[[file]]\nmode='644'\npath='/a'\n")).unwrap_err().to_string();
    assert_eq!(error, "t.toml:6: /a needs exactly one of `product`, `text` and `source`");
    let layout = Layout::new("/nonexistent".into(), None);
    let recipe = parse(&format!(
        "{MINIMAL}[[directory]]\npath='/a'\nmode='755'\n[[directory]]\npath='/a'\nmode='755'\n"
    ));
    assert_eq!(recipe.unwrap().tree(&layout).unwrap_err().to_string(), "t.toml:8: an entry is wrong");
}

#[test]
fn a_file_of_the_source_tree_comes_in_under_another_name() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path().into(), None);
    store::cache::write_atomically(&layout.rootfs().join("files/motd"), b"hello").unwrap();
    let recipe = |source: &str| {
        parse(&format!("{MINIMAL}[[file]]\npath='/etc/motd'\nmode='0600'\nsource='{source}'\n")).unwrap()
    };
    let tree = recipe("files/motd").tree(&layout).unwrap();
    assert_eq!(tree.get("/etc/motd"), Some(&Inode::new(0o600, Kind::File("hello".into()))));
    let error = recipe("files/gone").tree(&layout).unwrap_err().to_string();
    assert!(error.contains("files/gone") && error.contains("below rootfs/"), "{error}");
}

#[test]
fn an_image_fills_what_the_recipe_leaves_open() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path().into(), None);
    for (path, text) in [("etc/motd", "image"), ("etc/more", "image"), ("bin/sh", "image")] {
        store::cache::write_atomically(&layout.rootfs().join("images/base").join(path), text.as_bytes())
            .unwrap();
    }
    let recipe = |image: &str| {
        parse(&format!(
            "{MINIMAL}[[file]]\npath='/etc/motd'\nmode='0600'\ntext='recipe'\n[[image]]\npath='{image}'\n"
        ))
        .unwrap()
    };
    let tree = recipe("images/base").tree(&layout).unwrap();
    let text = |path: &str| text(&tree, path);
    assert_eq!(
        (text("/etc/motd"), text("/etc/more"), text("/bin/sh")),
        ("recipe".into(), "image".into(), "image".into())
    );
    let error = recipe("images/gone").tree(&layout).unwrap_err();
    assert_eq!(error.to_string(), "t.toml:9: an image cannot be taken in");
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("images/gone"));
}

#[test]
fn hard_links_and_attributes_of_an_image_are_in_the_tree_unless_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path().into(), None);
    let image = layout.rootfs().join("images/base");
    store::cache::write_atomically(&image.join("bin/ping"), b"ping").unwrap();
    std::fs::hard_link(image.join("bin/ping"), image.join("bin/ping6")).unwrap();
    if let Err(error) = xattr::set(image.join("bin/ping"), "user.note", b"x") {
        return eprintln!("skipped: the directory for temporary files has no extended attributes: {error}");
    }
    for (key, expected) in [("", 1), ("attributes = false", 0)] {
        let recipe = parse(&format!("{MINIMAL}[[image]]\npath='images/base'\n{key}\n")).unwrap();
        let tree = recipe.tree(&layout).unwrap();
        let id = |path: &str| tree.find(path.as_bytes()).unwrap().unwrap();
        assert_eq!(id("/bin/ping"), id("/bin/ping6"));
        assert_eq!(tree.inode(id("/bin/ping")).meta.xattrs.len(), expected);
    }
}

#[test]
fn users_are_in_the_files_and_own_entries() {
    let layout = Layout::new("/nonexistent".into(), None);
    let users = "[[user]]\nname='root'\nuid=0\nhome='/root'\nshell='/bin/sh'\n\
                 [[user]]\nname='www'\nuid=33\ngroup='web'\n[[user]]\nname='ftp'\nuid=34\ngid=33\ngroup='web'\n";
    let entry = |owner: &str| {
        let text = format!("{MINIMAL}{users}[[directory]]\npath='/srv'\nmode='750'\nowner='{owner}'\n");
        parse(&text).unwrap().tree(&layout)
    };
    for (owner, expected) in [("www:web", (33, 33)), ("5:web", (5, 33)), ("ftp:7", (34, 7))] {
        let tree = entry(owner).unwrap();
        let meta = &tree.get("/srv").unwrap().meta;
        assert_eq!((meta.uid, meta.gid), expected);
        let text = |path: &str| text(&tree, path);
        assert_eq!(
            text("/etc/passwd"),
            "root:x:0:0:root:/root:/bin/sh\nwww:x:33:33:www:/:/bin/false\nftp:x:34:33:ftp:/:/bin/false\n"
        );
        assert_eq!(text("/etc/group"), "root:x:0:\nweb:x:33:\n");
    }
    let error = entry("nobody:web").unwrap_err().to_string();
    assert!(
        error.starts_with("t.toml:") && error.contains("nobody") && error.contains("root, www, ftp"),
        "{error}"
    );
    assert!(
        cause(&format!("{MINIMAL}[[directory]]\npath='/a'\nmode='755'\nowner='www'\n"))
            .contains("USER:GROUP")
    );
}

#[test]
fn users_that_contradict_each_other_are_refused() {
    let layout = Layout::new("/nonexistent".into(), None);
    let user = |lines: &str| format!("[[user]]\n{lines}\n");
    for (users, expected) in [
        (user("name='a'\nuid=1") + &user("name='a'\nuid=2"), "twice"),
        (user("name='a'\nuid=1\ngroup='g'") + &user("name='b'\nuid=2\ngroup='g'"), "the numbers 1 and 2"),
        (user("name='a:b'\nuid=1"), "cannot hold"),
        (user("name='a'\nuid=1\nhome=''"), "cannot hold"),
    ] {
        let error = parse(&format!("{MINIMAL}{users}")).unwrap().tree(&layout).unwrap_err().to_string();
        assert!(error.starts_with("t.toml: ") && error.contains(expected), "{error}");
    }
}

#[test]
fn a_tree_has_the_recipe_and_the_overlays_over_it() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path().into(), None);
    store::cache::write_atomically(&layout.agent(), b"ELF").unwrap();
    store::cache::write_atomically(&layout.rootfs().join("overlay/o/etc/b"), b"over").unwrap();
    let recipe = parse(
        "description = 'd'\noverlays = ['o']\n[budget]\ncompressed = 9\n\
         [[directory]]\npath='/tmp'\nmode='1777'\n\
         [[file]]\npath='/init'\nmode='0755'\nproduct='agent'\n\
         [[file]]\npath='/etc/b'\nmode='0600'\ntext='recipe'\n\
         [[symlink]]\npath='/sbin/init'\ntarget='../init'\n\
         [[device]]\npath='/dev/console'\nkind='character'\nmajor=5\nminor=1\nmode='0600'\n",
    )
    .unwrap();
    let tree = recipe.tree(&layout).unwrap();
    let get = |path: &str| tree.get(path).cloned().unwrap();
    assert_eq!(get("/init"), Inode::new(0o755, Kind::File("ELF".into())));
    assert_eq!(get("/etc/b"), Inode::new(0o644, Kind::File("over".into())));
    assert_eq!(get("/tmp"), Inode::new(0o1777, Kind::directory()));
    assert_eq!(get("/sbin/init").kind, Kind::Symlink("../init".into()));
    assert_eq!(get("/dev/console").kind, Kind::Char { major: 5, minor: 1 });
}

#[test]
fn a_flavour_has_all_that_it_extends_and_circles_end() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path().into(), None);
    let write = |name: &str, text: &str| {
        store::cache::write_atomically(&layout.flavour(name), text.as_bytes()).unwrap();
    };
    let links = "[[symlinks]]\ndirectory='/bin'\ntarget='box'\nnames=['a', 'b']\n";
    write("base", &format!("{MINIMAL}[[directory]]\npath='/tmp'\nmode='1777'\n"));
    write("more", &format!("extends = 'base'\n{MINIMAL}{links}"));
    let more = Recipe::load(&layout, &"more".into()).unwrap();
    let tree = more.tree(&layout).unwrap();
    let get = |path: &str| tree.get(path).cloned().unwrap();
    assert_eq!(get("/tmp"), Inode::new(0o1777, Kind::directory()));
    assert_eq!(get("/bin/b").kind, Kind::Symlink("box".into()));
    assert!(more.packages(&layout).unwrap().is_empty());
    write("base", MINIMAL);
    assert_ne!(Recipe::load(&layout, &"more".into()).unwrap().digest(), more.digest());
    write("base", &format!("extends = 'more'\n{MINIMAL}"));
    assert!(matches!(Recipe::load(&layout, &"more".into()), Err(RecipeError::Depth(_))));
    write("base", &format!("extends = 'none'\n{MINIMAL}"));
    assert!(matches!(Recipe::load(&layout, &"more".into()), Err(RecipeError::NoFlavour { .. })));
}

#[test]
fn a_missing_program_names_the_recipe_and_the_package() {
    let layout = Layout::new("/nonexistent".into(), None);
    let entry = "[[host]]\npackage='thing'\nfiles=['/no/such/program']";
    let error = parse(&format!("{MINIMAL}{entry}")).unwrap().tree(&layout).unwrap_err();
    assert!(chain(&error).contains("Debian package thing"), "{error}");
}

fn chain(error: &dyn std::error::Error) -> String {
    format!("{error}: {}", error.source().map(ToString::to_string).unwrap_or_default())
}

#[test]
fn an_agent_has_the_features_of_all_that_is_extended() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path().into(), None);
    let write = |name: &str, text: &str| {
        store::cache::write_atomically(&layout.flavour(name), text.as_bytes()).unwrap();
    };
    let init = "[[file]]\npath='/init'\nmode='0755'\nproduct='agent'\n";
    write("a", &format!("{MINIMAL}[agent]\nfeatures = ['x']\n{init}"));
    write("b", &format!("extends = 'a'\n{MINIMAL}[agent]\nfeatures = ['p', 'x']\n"));
    let recipe = Recipe::load(&layout, &"b".into()).unwrap();
    assert_eq!(recipe.features(), ["p", "x"].map(String::from).into());
    let error = recipe.tree(&layout).unwrap_err().to_string();
    assert!(error.contains("out/agent-p-x"), "{error}");
    store::cache::write_atomically(&layout.out().join("agent-p-x"), b"ELF").unwrap();
    let tree = recipe.tree(&layout).unwrap();
    assert_eq!(tree.get("/init").unwrap().kind, Kind::File("ELF".into()));
    assert!(cause(&format!("{MINIMAL}[agent]\nfeature = 'p'")).contains("feature"));
}

#[test]
fn a_missing_agent_says_how_to_build_it() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path().into(), None);
    let recipe = parse(&format!("{MINIMAL}[[file]]\npath='/init'\nmode='755'\nproduct='agent'")).unwrap();
    assert!(recipe.tree(&layout).unwrap_err().to_string().ends_with("image-builder agent"));
}

#[test]
fn contradictions_name_the_recipe() {
    let layout = Layout::new("/nonexistent".into(), None);
    let twice = "[[directory]]\npath='/a'\nmode='755'\n";
    let error = parse(&format!("{MINIMAL}{twice}{twice}")).unwrap().tree(&layout).unwrap_err();
    assert!(matches!(error, RecipeError::Tree { source: TreeError::Twice(_), .. }), "{error:?}");
}

#[test]
fn every_shipped_flavour_is_understood() {
    let layout = Layout::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."), None);
    let names = known(&layout);
    assert!(names.contains(&"minimal".to_string()), "{names:?}");
    for name in names {
        let recipe = Recipe::load(&layout, &name.as_str().into()).unwrap();
        assert!(!recipe.description().is_empty() && recipe.budget(Arch::host()) > Some(0), "{name}");
    }
    let error = Recipe::load(&layout, &"../x".into()).unwrap_err().to_string();
    assert!(error.contains("minimal"), "{error}");
}

/// The keys that the types know in a table, or at the top; serde lists them when it meets another one.
fn known_keys(table: &str) -> std::collections::BTreeSet<String> {
    let error = cause(&format!("{table}\nzzz = 1\n"));
    let (_, expected) =
        error.split_once("unknown field `zzz`, expected ").unwrap_or_else(|| panic!("{error}"));
    expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn the_document_has_every_key_of_the_types_and_no_other() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/recipes.md");
    let text = std::fs::read_to_string(path).unwrap();
    // Sections are called after their tables: "### `[[file]]`". What is before the first one is about the top.
    let (_, keys) = text.split_once("\n## Keys\n").expect("a section on keys");
    let (keys, _) = keys.split_once("\n## ").unwrap_or((keys, ""));
    let mut documented = std::collections::BTreeMap::<String, std::collections::BTreeSet<String>>::new();
    let mut table = String::new();
    for line in keys.lines() {
        if let Some(heading) = line.strip_prefix("### `").and_then(|rest| rest.strip_suffix('`')) {
            table = heading.to_owned();
            documented.entry(table.clone()).or_default();
        }
        if let Some(key) = line.strip_prefix("| `").and_then(|rest| rest.split('`').next()) {
            documented.entry(table.clone()).or_default().insert(key.to_owned());
        }
    }
    let mut top = documented[""].clone();
    for (table, found) in documented.iter().filter(|(table, _)| !table.is_empty()) {
        assert_eq!(*found, known_keys(table), "{table} in docs/recipes.md");
        top.insert(table.trim_matches(['[', ']']).to_owned());
    }
    assert_eq!(top, known_keys(""), "the tables in docs/recipes.md, and the keys at the top");
    // Its examples are recipes.
    let examples: Vec<_> =
        text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(examples.len() >= 3);
    for example in examples {
        parse(example).unwrap_or_else(|error| panic!("{error}: {:?}\n{example}", chain(&error)));
    }
}

#[test]
fn a_recipe_of_ones_own_is_anywhere_and_names_what_is_beside_it() {
    let (dir, tree) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let layout = Layout::new(tree.path().into(), None);
    let write = |path: PathBuf, text: &str| store::cache::write_atomically(&path, text.as_bytes()).unwrap();
    write(layout.flavour("minimal"), &format!("{MINIMAL}[[directory]]\npath='/tmp'\nmode='1777'\n"));
    write(dir.path().join("motd"), "hello");
    write(dir.path().join("files/etc/conf"), "conf");
    write(dir.path().join("image/bin/tool"), "tool");
    write(
        dir.path().join("base.toml"),
        "description='d'\nextends='minimal'\n[[directory]]\npath='/a'\nmode='755'\n",
    );
    let mine = dir.path().join("my-own.toml");
    write(
        mine.clone(),
        "description='d'\nextends='base.toml'\noverlays=['files']\n[[file]]\npath='/etc/motd'\nmode='644'\nsource='motd'\n\
         [[image]]\npath='image'\n",
    );
    let choice = Choice::File(mine.clone());
    let recipe = Recipe::load(&layout, &choice).unwrap();
    assert_eq!(
        (recipe.name(), choice.name().as_str(), recipe.budget(Arch::host())),
        ("my-own", "my-own", None)
    );
    let made = recipe.tree(&layout).unwrap();
    for (path, expected) in [("/etc/motd", "hello"), ("/etc/conf", "conf"), ("/bin/tool", "tool")] {
        assert_eq!(text(&made, path), expected, "{path}");
    }
    assert!(made.get("/tmp").is_some() && made.get("/a").is_some());

    std::fs::remove_file(dir.path().join("motd")).unwrap();
    let error = recipe.tree(&layout).unwrap_err().to_string();
    assert!(error.contains("/motd") && error.contains("relative to the recipe"), "{error}");
    for name in ["minimal.toml", "a.b.toml", "my_own.toml", "recipe", ".toml"] {
        let path = dir.path().join(name);
        write(path.clone(), MINIMAL);
        let error = Recipe::load(&layout, &Choice::File(path)).unwrap_err().to_string();
        assert!(error.contains("cannot be the name of a recipe"), "{name}: {error}");
    }
    let error = Recipe::load(&layout, &Choice::File(dir.path().join("gone.toml"))).unwrap_err().to_string();
    assert!(error.contains("gone.toml"), "{error}");
    // What the source tree has must keep within a bound.
    write(layout.flavour("free"), "description='d'\n");
    let error = Recipe::load(&layout, &"free".into()).unwrap_err().to_string();
    assert!(error.contains("needs a budget"), "{error}");
}

#[test]
fn a_package_that_is_not_installed_is_named_with_the_line() {
    let layout = Layout::new("/nonexistent".into(), None);
    let recipe = parse(&format!("{MINIMAL}[[package]]\nname='no-such-package'\n")).unwrap();
    let error = recipe.tree(&layout).unwrap_err();
    assert_eq!(error.to_string(), "t.toml:5: a package cannot be taken in");
    assert!(chain(&error).contains("no-such-package"), "{}", chain(&error));
}

#[test]
fn a_processor_has_bounds_of_its_own_or_those_of_all() {
    let text = "description = 'd'\n[budget]\ncompressed = 9\ndisk = 7\naarch64 = { compressed = 10 }\n";
    let recipe = parse(text).unwrap();
    assert_eq!((recipe.budget(Arch::X86_64), recipe.disk_budget(Arch::X86_64)), (Some(9), Some(7)));
    assert_eq!((recipe.budget(Arch::Aarch64), recipe.disk_budget(Arch::Aarch64)), (Some(10), Some(7)));
    assert_eq!(parse(MINIMAL).unwrap().budget(Arch::Aarch64), Some(9));
    assert!(parse("description = 'd'\n[budget]\naarch64 = { colour = 1 }\n").is_err());
}

#[test]
fn the_name_of_a_recipe_does_not_end_with_that_of_a_processor() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path().into(), None);
    for name in ["aarch64", "mine-aarch64", "mine-x86_64"] {
        let path = dir.path().join(format!("{name}.toml"));
        store::cache::write_atomically(&path, b"description = 'd'\n").unwrap();
        let error = Recipe::load(&layout, &Choice::File(path)).unwrap_err().to_string();
        assert!(error.contains("must not end with the name of a processor"), "{error}");
    }
}
