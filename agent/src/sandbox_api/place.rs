//! From who asks to the files that are meant.

use std::sync::Arc;

use super::rooted::{Owner, Root};
use super::sandbox::Caller;

/// The root of a caller's container, and as whom the caller works there.
pub(super) fn place(caller: &Caller) -> (Root, Owner) {
    let Caller { root, accounts, account, workdir, .. } = caller;
    let owner =
        Owner { uid: account.uid, gid: account.gid, home: account.home.clone(), workdir: workdir.clone() };
    (Root::with_accounts(Arc::clone(root), Arc::clone(accounts)), owner)
}
