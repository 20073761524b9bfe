//! The sandbox API, as its users have it: unmodified SDKs of E2B, Python's and JavaScript's, drive guests that
//! `image-builder run --sandbox-api` has booted. The checks are accept.py and accept.mjs; each is a line of what is printed.

mod behaviour;
mod checks;
mod ports;
mod quickstart;
mod sandbox;

use anyhow::Result;

use crate::checks::{Checks, Sdk};
use crate::sandbox::{Image, Sandbox};

/// Every check, by both SDKs, in the order of users: the guest is the same for both.
#[test]
fn a_debian_image_passes_every_check_of_both_sdks() -> Result<()> {
    let sdk = Sdk::pinned()?;
    let sandbox = Sandbox::start(Image::Debian, None)?;
    let python = sdk.python(&sandbox.url(), &[])?;
    python.all_passed(&["c43_meta"])?;
    if let Some(javascript) = sdk.javascript(&sandbox.url())? {
        javascript.all_passed(&[])?;
    }
    sandbox.end()
}

#[test]
fn with_a_token_it_passes_every_check_and_without_it_nobody_is_let_in() -> Result<()> {
    let sdk = Sdk::pinned()?;
    let token = "a.token-of_48+characters/that=is~no~secret:at,all";
    let sandbox = Sandbox::start(Image::Debian, Some(token))?;
    sdk.python(&sandbox.url(), &["--token", token])?.all_passed(&["c43_meta"])?;
    for wrong in ["", "a.token", &token.to_uppercase()] {
        sandbox.is_refused(wrong)?;
    }
    sandbox.end()
}

/// What needs bash is skipped by its name, and told.
#[test]
fn an_image_with_only_busybox_passes_what_needs_no_bash() -> Result<()> {
    let sdk = Sdk::pinned()?;
    let sandbox = Sandbox::start(Image::Busybox, None)?;
    sdk.python(&sandbox.url(), &[])?.all_passed(&["c43_meta"])?;
    sandbox.end()
}

/// Files need nothing of the image: no shell, no tar, no account.
#[test]
fn files_go_in_and_out_of_an_image_without_programs() -> Result<()> {
    let sdk = Sdk::pinned()?;
    let sandbox = Sandbox::start(Image::Bare, None)?;
    let only =
        ["--user", "root", "--dir", "/", "--only", "c01", "c02", "c29", "c30", "c31", "c32", "c35", "c39"];
    let more = ["c40", "c41", "c46"];
    sdk.python(&sandbox.url(), &[&only[..], &more[..]].concat())?.all_passed(&[])?;
    sandbox.end()
}

/// SDKs of tomorrow are no reason to fail today: what they do not pass is a warning.
#[test]
fn the_newest_sdk_is_tried() -> Result<()> {
    let sdk = match Sdk::newest() {
        Ok(sdk) => sdk,
        Err(error) => {
            println!("skipped: {error:#}");
            return Ok(());
        }
    };
    if sdk.version()? == Sdk::pinned()?.version()? {
        println!("skipped: the newest SDK is the pinned one, {}", sdk.version()?);
        return Ok(());
    }
    let sandbox = Sandbox::start(Image::Debian, None)?;
    let checks: Checks = sdk.python(&sandbox.url(), &[])?;
    if let Err(error) = checks.all_passed(&["c43_meta"]) {
        println!("warning: SDK {} does not pass all checks: {error:#}", sdk.version()?);
    }
    sandbox.end()
}
