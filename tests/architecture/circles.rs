//! The files of the agent and of the crates in image-builder/ import each other without circles, and their modules only
//! what lies below them.
//!
//! A file imports another when it names something that is defined there: in a `use`, or by a path. Names are followed through
//! the imports of the modules on the way, so a `mod.rs` that only passes names on is no part of a circle. Tests are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::source::{Source, sources};

/// A crate whose files are looked at.
struct Crate {
    /// Where its files are.
    root: &'static str,
    /// Its modules, from what knows nobody to what knows all. Those of one row do not know each other.
    layers: &'static [&'static [&'static str]],
}

const AGENT: Crate = Crate {
    root: "agent/src",
    layers: &[
        &["cancel", "companion", "error", "patience", "sys", "undo"],
        &["config", "files", "heap", "policy", "reserve"],
        &["listen"],
        &["device"],
        &["process"],
        &["guest", "network", "storage"],
        &["observe", "container"],
        &["pod"],
        &["console", "rpc", "sandbox_api"],
        &["boot"],
        &["lib"],
        &["main"],
    ],
};

const STORE: Crate = Crate {
    root: "image-builder/store/src",
    layers: &[
        &["arch", "digest", "plain", "private", "progress", "text"],
        &["cache", "product", "segments"],
        &["layout"],
        &["lib"],
    ],
};

const MACHINE: Crate = Crate { root: "image-builder/machine/src", layers: &[&["vm"], &["lib"]] };

const IMAGES: Crate = Crate { root: "image-builder/images/src", layers: &[&["image"], &["lib"]] };

const PODS: Crate = Crate { root: "image-builder/pods/src", layers: &[&["run"], &["lib"]] };

const PRODUCTS: Crate = Crate {
    root: "image-builder/products/src",
    layers: &[
        &["elf", "place", "program", "svg"],
        &["debian", "format", "host"],
        &["inspect", "manifest", "source"],
        &["bootchart", "install", "recipe"],
        &["agent", "kernel", "pack", "uki"],
        &["daemon", "deploy", "disk", "initrd", "sbom", "size"],
        &["verify"],
        &["lib"],
    ],
};

const REGISTRY: Crate = Crate {
    root: "image-builder/registry/src",
    layers: &[
        &["challenge", "error", "login", "platform"],
        &["reference"],
        &["library", "watch"],
        &["repository"],
        &["image"],
        &["lib"],
    ],
};

const PITH: Crate = Crate {
    root: "image-builder/pith/src",
    layers: &[
        &["global", "signals", "time"],
        &["copy", "doctor", "events", "exec", "images", "stats"],
        &["detach", "platform", "request"],
        &["complete", "run", "volume"],
        &["look", "vm"],
        &["life", "logs"],
        &["attach"],
        &["cli"],
        &["lib"],
        &["main"],
    ],
};

const BUILDER: Crate =
    Crate { root: "image-builder/src", layers: &[&["artifact", "dist"], &["lib"], &["cli"], &["main"]] };

const FILE_SYSTEMS: Crate = Crate {
    root: "image-builder/fs/src",
    layers: &[
        &["content", "counted", "entry"],
        &["tree"],
        &["error", "sample"],
        &["cpio", "erofs"],
        &["ext4"],
        &["lib"],
    ],
};

const CRATES: [Crate; 10] =
    [AGENT, BUILDER, FILE_SYSTEMS, IMAGES, MACHINE, PITH, PODS, PRODUCTS, REGISTRY, STORE];

type Name = Vec<String>;

/// A module as the test sees it.
#[derive(Default)]
struct Module {
    path: PathBuf,
    /// Code without its imports.
    body: String,
    /// What its imports are called here, and what they are.
    imports: BTreeMap<String, Name>,
}

/// All modules of a crate by name; the empty one is its root.
struct Modules(BTreeMap<Name, Module>);

#[test]
fn no_files_import_each_other_in_a_circle() {
    let mut found = Vec::new();
    for Crate { root, .. } in CRATES {
        found.extend(circles(&Modules::of(root, &sources(root)).graph()));
    }
    assert!(
        found.is_empty(),
        "circles of imports; move what both need into a file below them:\n{}",
        found.join("\n")
    );
}

#[test]
fn modules_know_only_what_lies_below_them() {
    let mut wrong = BTreeSet::new();
    for Crate { root, layers, .. } in CRATES {
        let layer = |module: &Name| {
            let top = module.first().map_or("lib", String::as_str);
            let found = layers.iter().position(|row| row.contains(&top));
            found.unwrap_or_else(|| panic!("{top} of {root} has no layer"))
        };
        for (file, imports) in Modules::of(root, &sources(root)).graph() {
            for (other, how) in imports {
                let is_same = file.first() == other.first();
                if !is_same && layer(&other) >= layer(&file) {
                    wrong.insert(format!("{} knows {} ({how})", show(&file), show(&other)));
                }
            }
        }
    }
    let wrong: Vec<String> = wrong.into_iter().collect();
    assert!(wrong.is_empty(), "these imports go up, see the layers of the crate:\n{}", wrong.join("\n"));
}

fn show(module: &Name) -> String {
    if module.is_empty() { "lib".to_owned() } else { module.join("::") }
}

/// Which file imports which, and one way in which it does.
type Graph = BTreeMap<Name, BTreeMap<Name, String>>;

/// Every circle, as a line with its imports.
fn circles(graph: &Graph) -> Vec<String> {
    let reached: BTreeMap<&Name, BTreeSet<&Name>> =
        graph.keys().map(|file| (file, reach(graph, file))).collect();
    let is_mutual = |one: &Name, other: &Name| reached[one].contains(other) && reached[other].contains(one);
    let lines = graph.iter().flat_map(|(file, imports)| {
        let mutual =
            imports.iter().filter(|(other, _)| reached.contains_key(other) && is_mutual(file, other));
        mutual.map(|(other, how)| format!("{} -> {} ({how})", show(file), show(other))).collect::<Vec<_>>()
    });
    lines.collect()
}

/// The files that a file imports, and those that they import.
fn reach<'a>(graph: &'a Graph, from: &'a Name) -> BTreeSet<&'a Name> {
    let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(file) = next.pop() {
        let imports = graph.get(file).into_iter().flat_map(|imports| imports.keys());
        next.extend(imports.filter(|file| seen.insert(*file)));
    }
    seen
}

impl Modules {
    fn of(root: &str, sources: &[Source]) -> Modules {
        let mut modules = BTreeMap::new();
        for source in sources {
            let Some(name) = name_of(root, &source.path) else { continue };
            let code = without_tests(&source.code()).replace("r#", "");
            modules.insert(name, Module { path: source.path.clone(), body: code, ..Module::default() });
        }
        let names: BTreeSet<Name> = modules.keys().cloned().collect();
        for (name, module) in &mut modules {
            module.body = without_visibility(&module.body);
            let (imports, body) = imports(&module.body);
            module.body = body;
            let found =
                imports.into_iter().filter_map(|(alias, path)| Some((alias, absolute(name, &path, &names)?)));
            module.imports = found.collect();
        }
        Modules(modules)
    }

    /// The module that defines what `path` names.
    fn resolve(&self, path: &[String], depth: usize) -> Option<Name> {
        for length in (0..=path.len()).rev() {
            let Some((name, module)) = self.0.get_key_value(&path[..length]) else { continue };
            let passed_on = path.get(length).and_then(|item| module.imports.get(item));
            return match passed_on {
                Some(import) if depth < 16 => {
                    let whole: Name = import.iter().chain(&path[length + 1..]).cloned().collect();
                    self.resolve(&whole, depth + 1)
                }
                _ => Some(name.clone()),
            };
        }
        None
    }

    fn graph(&self) -> Graph {
        let names: BTreeSet<Name> = self.0.keys().cloned().collect();
        let mut graph = Graph::new();
        for (name, module) in &self.0 {
            let paths = paths(&module.body);
            let used: BTreeSet<&String> = paths.iter().flatten().collect();
            let mut named: Vec<Name> = Vec::new();
            // An import that nothing here uses is only passed on.
            named.extend(
                module.imports.iter().filter(|(alias, _)| used.contains(alias)).map(|(_, path)| path.clone()),
            );
            for path in paths.iter().filter(|path| path.len() > 1) {
                named.extend(match module.imports.get(&path[0]) {
                    Some(import) => Some(import.iter().chain(&path[1..]).cloned().collect()),
                    None => absolute(name, path, &names),
                });
            }
            let imports = graph.entry(name.clone()).or_default();
            for path in named {
                if let Some(other) = self.resolve(&path, 0)
                    && other != *name
                {
                    imports
                        .entry(other)
                        .or_insert_with(|| format!("{}: {}", module.path.display(), path.join("::")));
                }
            }
        }
        graph
    }
}

/// The module that a file is; none for one of tests.
fn name_of(root: &str, path: &Path) -> Option<Name> {
    let inner = path.strip_prefix(root).ok()?.with_extension("");
    let mut name: Name = inner.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    let last = name.last()?.clone();
    if last == "tests" || last.ends_with("_test") || last.ends_with("_tests") {
        return None;
    }
    if last == "mod" || (last == "lib" && name.len() == 1) {
        name.pop();
    }
    Some(name)
}

/// A path from the crate's root; none for one of another crate.
fn absolute(module: &[String], path: &[String], modules: &BTreeSet<Name>) -> Option<Name> {
    let joined = |base: &[String], rest: &[String]| Some(base.iter().chain(rest).cloned().collect());
    match path.first()?.as_str() {
        "crate" => Some(path[1..].to_vec()),
        "self" => joined(module, &path[1..]),
        "super" => {
            let ups = path.iter().take_while(|part| *part == "super").count();
            joined(&module[..module.len().checked_sub(ups)?], &path[ups..])
        }
        child => {
            let child: Name = module.iter().cloned().chain([child.to_owned()]).collect();
            if modules.contains(&child) { joined(module, path) } else { None }
        }
    }
}

/// The code without what is compiled for tests only.
fn without_tests(code: &str) -> String {
    let (mut out, mut rest) = (String::new(), code);
    while let Some((before, after)) = rest.split_once("#[cfg(test)]") {
        out.push_str(before);
        let end = match (after.find(';'), after.find('{')) {
            (Some(semicolon), brace) if brace.is_none_or(|brace| semicolon < brace) => semicolon + 1,
            (_, Some(brace)) => brace + block(&after[brace..]),
            _ => after.len(),
        };
        rest = &after[end..];
    }
    out + rest
}

/// The code without `in PATH` of what is visible in a part of the crate: to say who may use a thing is not to use them.
fn without_visibility(code: &str) -> String {
    let mut parts = code.split("pub(in ");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str("pub ");
        out.push_str(part.split_once(')').map_or("", |(_, rest)| rest));
    }
    out
}

/// Bytes of the block in braces that a text begins with.
fn block(text: &str) -> usize {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    text.len()
}

/// The imports of a file by what they are called, and the code without them.
fn imports(code: &str) -> (Vec<(String, Name)>, String) {
    let (mut imports, mut body, mut rest) = (Vec::new(), String::new(), code);
    while let Some(at) = find_word(rest, "use") {
        body.push_str(&rest[..at]);
        let after = &rest[at + 3..];
        let end = after.find(';').unwrap_or(after.len());
        tree(&Vec::new(), &after[..end], &mut imports);
        rest = &after[end..];
    }
    (imports, body + rest)
}

/// Where a word begins a statement.
fn find_word(text: &str, word: &str) -> Option<usize> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let mut from = 0;
    while let Some(at) = text[from..].find(word).map(|at| at + from) {
        let is_start = !text[..at].ends_with(is_part);
        if is_start && text[at + word.len()..].starts_with(char::is_whitespace) {
            return Some(at);
        }
        from = at + word.len();
    }
    None
}

/// The leaves of what stands after `use`.
fn tree(prefix: &Name, text: &str, leaves: &mut Vec<(String, Name)>) {
    let text = text.trim();
    let parts = |text: &str| -> Name {
        text.split("::").map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
    };
    if let Some((path, group)) = text.split_once('{') {
        let prefix: Name = prefix.iter().cloned().chain(parts(path)).collect();
        let (mut depth, mut start) = (0, 0);
        let group =
            group.trim_end().trim_end_matches('}').to_owned() + &"}".repeat(group.matches('{').count()) + ",";
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    tree(&prefix, &group[start..at], leaves);
                    start = at + 1;
                }
                _ => {}
            }
        }
        return;
    }
    let (path, alias) =
        text.split_once(" as ").map_or((text, None), |(path, alias)| (path, Some(alias.trim())));
    let mut path: Name = prefix.iter().cloned().chain(parts(path)).collect();
    path.pop_if(|last| last == "self");
    if let Some(last) = path.last().cloned() {
        leaves.push((alias.map_or(last, str::to_owned), path));
    }
}

/// The paths in a code, word by word; a single word is a path, too.
fn paths(code: &str) -> Vec<Name> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let (mut paths, mut path, mut rest) = (Vec::<Name>::new(), Name::new(), code);
    loop {
        rest = rest.trim_start();
        let word = &rest[..rest.find(|c: char| !is_part(c)).unwrap_or(rest.len())];
        if word.is_empty() {
            paths.extend((!path.is_empty()).then(|| std::mem::take(&mut path)));
            let Some(c) = rest.chars().next() else { return paths };
            rest = &rest[c.len_utf8()..];
            continue;
        }
        path.push(word.to_owned());
        rest = rest[word.len()..].trim_start();
        match rest.strip_prefix("::") {
            Some(after) => rest = after,
            None => paths.push(std::mem::take(&mut path)),
        }
    }
}

#[test]
fn a_circle_is_seen_and_what_is_passed_on_is_none() {
    let source =
        |path: &str, text: &str| Source { path: Path::new(AGENT.root).join(path), text: text.to_owned() };
    let knot = [
        source("lib.rs", "mod a; mod b;"),
        source("a/mod.rs", "mod c; mod d; pub(crate) use c::{C, self as e}; pub(crate) use d::D;"),
        source("a/c.rs", "use super::D; pub struct C(D);"),
        source("a/d.rs", "pub struct D; #[cfg(test)] mod tests { use super::super::C; fn f(_: C) {} }"),
        source("b.rs", "use crate::a::{self, C}; fn f(_: C, _: a::D) {}"),
    ];
    let graph = Modules::of(AGENT.root, &knot).graph();
    assert_eq!(circles(&graph), Vec::<String>::new());
    let name = |text: &str| -> Name { text.split("::").map(str::to_owned).collect() };
    let of_b: Vec<Name> = graph[&name("b")].keys().cloned().collect();
    assert_eq!(of_b, [name("a"), name("a::c"), name("a::d")]);
    let mut tied: Vec<Source> = knot.into_iter().filter(|source| !source.path.ends_with("d.rs")).collect();
    tied.push(source("a/d.rs", "pub struct D(Option<Box<super::e::C>>);"));
    let circles = circles(&Modules::of(AGENT.root, &tied).graph());
    assert_eq!(circles.len(), 2, "{circles:?}");
    assert!(circles[0].starts_with("a::c -> a::d (agent/src/a/c.rs"), "{circles:?}");
}
