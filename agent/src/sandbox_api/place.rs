//! From who asks to the files that are meant.

use std::sync::Arc;

use sandbox_api::http::{Head, Response};

use super::rooted::{Owner, Root};
use super::sandbox::{Caller, Sandbox};

/// The root of a caller's container, and as whom the caller works there.
pub(super) fn place(caller: &Caller) -> (Root, Owner) {
    let Caller { root, accounts, account, workdir, .. } = caller;
    let owner =
        Owner { uid: account.uid, gid: account.gid, home: account.home.clone(), workdir: workdir.clone() };
    (Root::with_accounts(Arc::clone(root), Arc::clone(accounts)), owner)
}

/// The root of the container that a request is for, and what its parameter `path` means there. `what` says what the path is to
/// lead to.
///
/// # Errors
/// The answer that says what is wrong.
pub(super) async fn named(sandbox: &Sandbox, head: &Head, what: &str) -> Result<(Root, String), Response> {
    let Some(path) = head.query.get("path").filter(|path| !path.is_empty()) else {
        return Err(Response::failure(400, &format!("the parameter path is missing: {what}")));
    };
    let caller = sandbox.caller(head, head.query.get("username")).await;
    let caller = caller.map_err(|error| error.to_response())?;
    let path = caller.path(path).map_err(|text| Response::failure(400, &text))?;
    Ok((place(&caller).0, path))
}
