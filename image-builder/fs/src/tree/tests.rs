//! Tests of trees.

use super::*;

fn dir() -> Inode {
    Inode { meta: Meta::implied_directory(), kind: Kind::directory() }
}

fn file(len: usize) -> Inode {
    Inode { meta: Meta::default(), kind: Kind::File(vec![0; len].into()) }
}

fn symlink(target: &str) -> Inode {
    Inode { meta: Meta::default(), kind: Kind::Symlink(target.into()) }
}

pub(super) fn listing(tree: &Tree) -> Vec<String> {
    fn visit(tree: &Tree, id: InodeId, prefix: &str, out: &mut Vec<String>) {
        for (name, child) in tree.names(id) {
            let path = format!("{prefix}/{}", String::from_utf8_lossy(name));
            out.push(path.clone());
            visit(tree, child, &path, out);
        }
    }
    let mut out = Vec::new();
    visit(tree, InodeId::ROOT, "", &mut out);
    out
}

#[test]
fn parents_are_made_and_directories_merge() {
    let mut tree = Tree::new();
    tree.put(b"./a/b/c", file(1)).unwrap();
    tree.begin_layer();
    let mut again = dir();
    again.meta.mode = 0o700;
    let id = tree.put(b"a/b", again).unwrap();
    assert_eq!(tree.inode(id).meta.mode, 0o700);
    assert_eq!(listing(&tree), ["/a", "/a/b", "/a/b/c"]);
}

#[test]
fn a_tree_deeper_than_any_stack_is_pruned() {
    let mut tree = Tree::new();
    let deep = b"d/".repeat(250_000);
    tree.put(&deep, dir()).unwrap();
    tree.put(b"kept", file(1)).unwrap();
    tree.begin_layer();
    tree.white_out(b"d").unwrap();
    assert_eq!(listing(&tree), ["/kept"]);
    tree.put(&deep, dir()).unwrap();
    tree.begin_layer();
    tree.make_opaque(b"").unwrap();
    assert!(listing(&tree).is_empty());
}

#[test]
fn a_file_replaces_a_directory_and_back() {
    let mut tree = Tree::new();
    tree.put(b"a/b", file(1)).unwrap();
    tree.begin_layer();
    tree.put(b"a", file(2)).unwrap();
    assert_eq!(listing(&tree), ["/a"]);
    tree.begin_layer();
    tree.put(b"a", dir()).unwrap();
    tree.put(b"a/c", file(3)).unwrap();
    assert_eq!(listing(&tree), ["/a", "/a/c"]);
}

#[test]
fn whiteouts_spare_the_own_layer() {
    let mut tree = Tree::new();
    tree.put(b"d/old", file(1)).unwrap();
    tree.put(b"x", file(1)).unwrap();
    tree.begin_layer();
    tree.put(b"d/new", file(1)).unwrap();
    tree.put(b"x", file(2)).unwrap();
    tree.white_out(b"d").unwrap();
    tree.white_out(b"x").unwrap();
    tree.white_out(b"absent/too").unwrap();
    assert_eq!(listing(&tree), ["/d", "/d/new", "/x"]);
}

#[test]
fn opaque_hides_lower_layers_whatever_the_order() {
    let mut tree = Tree::new();
    tree.put(b"d/sub/old", file(1)).unwrap();
    tree.put(b"d/gone", file(1)).unwrap();
    tree.begin_layer();
    tree.put(b"d/sub/new", file(1)).unwrap();
    tree.make_opaque(b"d").unwrap();
    tree.put(b"d/later", file(1)).unwrap();
    assert_eq!(listing(&tree), ["/d", "/d/later", "/d/sub", "/d/sub/new"]);
}

#[test]
fn hard_links_share_an_inode() {
    let mut tree = Tree::new();
    let id = tree.put(b"a", file(1)).unwrap();
    tree.put_hard_link(b"b/c", b"/a").unwrap();
    assert_eq!(tree.find(b"b/c").unwrap(), Some(id));
    let refused = tree.put_hard_link(b"e", b"nothing").unwrap_err();
    assert!(matches!(refused, TreeError::NoTarget(path) if path == "nothing"));
    let refused = tree.put_hard_link(b"e", b"b").unwrap_err();
    assert!(matches!(refused, TreeError::LinkToDirectory(path) if path == "b"));
    // A new file under one name leaves the other name alone.
    tree.put(b"a", file(7)).unwrap();
    assert_eq!(tree.find(b"b/c").unwrap(), Some(id));
    assert_ne!(tree.find(b"a").unwrap(), Some(id));
}

#[test]
fn parents_follow_links_inside_the_tree_only() {
    let mut tree = Tree::new();
    tree.put(b"usr/lib", dir()).unwrap();
    tree.put(b"lib", symlink("usr/lib")).unwrap();
    tree.put(b"up", symlink("../../../usr")).unwrap();
    tree.put(b"abs", symlink("/usr/lib")).unwrap();
    tree.put(b"lib/one", file(1)).unwrap();
    tree.put(b"up/two", file(1)).unwrap();
    tree.put(b"abs/three", file(1)).unwrap();
    let names = listing(&tree);
    for name in ["/usr/lib/one", "/usr/two", "/usr/lib/three"] {
        assert!(names.contains(&name.to_owned()), "{name} in {names:?}");
    }
}

#[test]
fn escapes_loops_and_files_as_parents_are_refused() {
    let mut tree = Tree::new();
    tree.put(b"loop", symlink("loop")).unwrap();
    tree.put(b"f", file(1)).unwrap();
    tree.put(b"to-f", symlink("f")).unwrap();
    for (path, expected) in [
        ("../x", TreeError::Escape("../x".into())),
        ("a/../../x", TreeError::Escape("a/../../x".into())),
        ("/", TreeError::Root),
        ("loop/x", TreeError::Loop("/loop".into())),
        ("to-f/x", TreeError::NotDirectory("/to-f".into())),
        ("f/x", TreeError::NotDirectory("/f".into())),
    ] {
        let refused = tree.put(path.as_bytes(), file(1)).unwrap_err();
        assert_eq!(refused.to_string(), expected.to_string());
    }
}

#[test]
fn where_a_dangling_link_leads_a_directory_is_made_inside_the_root() {
    let mut tree = Tree::new();
    tree.put(b"var/run", symlink("/run")).unwrap();
    tree.put(b"up", symlink("../../outside/./deep")).unwrap();
    tree.put(b"chain", symlink("up/absent/../more")).unwrap();
    tree.put(b"var/run/lock/x", file(1)).unwrap();
    tree.put(b"chain/y", file(1)).unwrap();
    let names = listing(&tree);
    for name in ["/run/lock/x", "/outside/deep/more/y"] {
        assert!(names.contains(&name.to_owned()), "{name} in {names:?}");
    }
    assert!(!names.contains(&"/outside/deep/absent".to_owned()), "{names:?}");
    let id = tree.make_directories(b"/var/run/new").unwrap();
    assert_eq!(tree.find(b"run/new").unwrap(), Some(id));
    assert_eq!(tree.make_directories(b"").unwrap(), InodeId::ROOT);
}

#[test]
fn replacing_a_symlink_does_not_follow_it() {
    let mut tree = Tree::new();
    tree.put(b"target", file(1)).unwrap();
    tree.put(b"link", symlink("target")).unwrap();
    let id = tree.put(b"link", file(2)).unwrap();
    assert_eq!(tree.find(b"link").unwrap(), Some(id));
    assert_ne!(tree.find(b"target").unwrap(), Some(id));
}
