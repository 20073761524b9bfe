//! The steps of a path through symbolic links, as a process chrooted into the tree would go them.

/// Symbolic links followed in one path before it counts as a loop; the kernel's limit.
const MAX_LINKS: u32 = 40;

/// See the module. `I` names a directory.
pub(super) struct Steps<I> {
    root: I,
    /// The directories below the root down to here, so that `..` in a link's target can go back up.
    chain: Vec<I>,
    /// What is still to be gone, the next part last.
    pending: Vec<Vec<u8>>,
    links: u32,
}

impl<I: Copy> Steps<I> {
    /// At the root, before the first part of `path`.
    pub(super) fn new(root: I, path: &[u8]) -> Self {
        Self { root, chain: Vec::new(), pending: reversed(path), links: 0 }
    }

    /// The next part of the path; none at its end.
    pub(super) fn next(&mut self) -> Option<Vec<u8>> {
        self.pending.pop()
    }

    /// Where they have led to.
    pub(super) fn at(&self) -> I {
        self.chain.last().copied().unwrap_or(self.root)
    }

    /// Goes down.
    pub(super) fn enter(&mut self, id: I) {
        self.chain.push(id);
    }

    /// Goes up, at the root nowhere.
    pub(super) fn leave(&mut self) {
        self.chain.pop();
    }

    /// Goes where a symbolic link points. Answers false when there were too many: they are a loop.
    pub(super) fn follow(&mut self, target: &[u8]) -> bool {
        self.links += 1;
        if target.starts_with(b"/") {
            self.chain.clear();
        }
        self.pending.extend(reversed(target));
        self.links <= MAX_LINKS
    }
}

/// The parts of a path that are not empty and not a dot.
pub(super) fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && *part != b".")
}

fn reversed(path: &[u8]) -> Vec<Vec<u8>> {
    let mut parts: Vec<Vec<u8>> = components(path).map(<[u8]>::to_vec).collect();
    parts.reverse();
    parts
}
