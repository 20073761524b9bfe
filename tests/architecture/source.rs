//! Rust sources of the workspace, as the tests here look at them: code without comments and literals.

use std::path::{Path, PathBuf};

pub(crate) struct Source {
    /// Relative to the workspace.
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

pub(crate) fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The workspace's `.rs` files below `directory`, sorted.
pub(crate) fn sources(directory: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    collect(&workspace().join(directory), &mut sources);
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!sources.is_empty(), "{directory} has no sources");
    sources
}

fn collect(directory: &Path, sources: &mut Vec<Source>) {
    let entries = std::fs::read_dir(directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    for entry in entries.map(Result::unwrap) {
        let path = entry.path();
        let name = entry.file_name().into_string().unwrap();
        let kind = entry.file_type().unwrap();
        let built = directory == workspace() && (name == "target" || name == "out");
        if kind.is_dir() && !name.starts_with('.') && !built {
            collect(&path, sources);
        } else if kind.is_file() && path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            sources.push(Source { path: path.strip_prefix(workspace()).unwrap().to_owned(), text });
        }
    }
}

impl Source {
    /// The lines that use one of `names` as an identifier, as `path:line`.
    pub(crate) fn uses(&self, names: &[&str]) -> Vec<String> {
        let code = code(&self.text);
        let used =
            code.lines().enumerate().filter(|(_, line)| identifiers(line).any(|word| names.contains(&word)));
        used.map(|(i, line)| format!("{}:{}: {}", self.path.display(), i + 1, line.trim())).collect()
    }

    pub(crate) fn code(&self) -> String {
        code(&self.text)
    }
}

pub(crate) fn identifiers(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// The text with comments and the contents of literals left out and every line in its place.
pub(crate) fn code(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if c == '"' {
            string(rest)
        } else if rest.starts_with("r\"") || rest.starts_with("r#") {
            raw_string(rest)
        } else if c == '\'' {
            character(rest)
        } else {
            0
        };
        if skipped == 0 {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        } else {
            out.extend(rest[..skipped].chars().filter(|c| *c == '\n'));
            rest = &rest[skipped..];
        }
    }
    out
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        let here = &text.as_bytes()[at..];
        if here.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

fn string(text: &str) -> usize {
    let mut escaped = false;
    for (i, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return i + 1,
            _ => {}
        }
    }
    text.len()
}

/// 0 for a raw identifier such as `r#type`.
fn raw_string(text: &str) -> usize {
    let hashes = text[1..].chars().take_while(|c| *c == '#').count();
    if !text[1 + hashes..].starts_with('"') {
        return 0;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let content = 2 + hashes;
    text[content..].find(&end).map_or(text.len(), |at| content + at + end.len())
}

/// 0 for a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some(_)) => chars.find(|(_, c)| *c == '\'').map_or(0, |(i, _)| i + 1),
        (Some(_), Some((i, '\''))) => i + 1,
        _ => 0,
    }
}

#[test]
fn comments_and_literals_are_no_code() {
    let text = concat!(
        "//! ttrpc\nuse a::b; // ttrpc\n/* ttrpc /* more\n */ ttrpc */ let c = \"ttrpc \\\" ttrpc\";\n",
        "let d = r#\"ttrpc\n\"ttrpc\"#; let e = ('\"', '\\'', '\\u{41}'); fn f<'a>(r#type: &'a str) { br\"ttrpc\" }\n",
    );
    let expected = concat!(
        "\nuse a::b; \n\n let c = ;\n",
        "let d = \n; let e = (, , ); fn f<'a>(r#type: &'a str) { b }\n",
    );
    assert_eq!(code(text), expected);
    let source =
        Source { path: PathBuf::from("x.rs"), text: "a();\nb(ttrpc::Error);\nttrpc_server()".to_owned() };
    assert_eq!(source.uses(&["ttrpc"]), ["x.rs:2: b(ttrpc::Error);"]);
}
