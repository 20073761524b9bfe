//! What a case is: a method, what is expected of it, and an async function whose name docs/protocol.md cites.

use std::future::Future;
use std::pin::Pin;

use anyhow::Result;

use crate::world::World;

/// In which guest a case runs, and when. Cases of one guest run in the order of their stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// The agent is up, no sandbox was asked for.
    Bare,
    /// There is a sandbox.
    Pod,
    /// The last case of the guest: it ends with it.
    End,
    /// A guest of its own whose sandbox comes and goes by cases.
    Brief,
    /// The last case of that guest.
    BriefEnd,
    /// A guest of its own with PCI and disks, with a sandbox.
    Disks,
    /// The last case of that guest.
    DisksEnd,
    /// The `standard` flavour, with a sandbox.
    Standard,
    /// The `policy` flavour, without a sandbox.
    Policy,
}

/// What the method is to do in a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    /// It answers OK at least once.
    Success,
    /// It is refused at least once.
    Failure,
    /// Not about one method: what no well-behaved client does.
    Misuse,
}

impl Expect {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Expect::Success => "success",
            Expect::Failure => "failure",
            Expect::Misuse => "misuse",
        }
    }
}

/// A case at work.
pub(crate) type Work<'a> = Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// See the module.
pub(crate) struct Case {
    /// As in the `.proto`; `*` for misuse of any.
    pub(crate) method: &'static str,
    pub(crate) expect: Expect,
    pub(crate) stage: Stage,
    pub(crate) name: &'static str,
    pub(crate) run: for<'a> fn(&'a World) -> Work<'a>,
}

/// A table of cases: `Stage "Method" Expect name_of_an_async_fn;`.
macro_rules! cases {
    ($($stage:ident $method:literal $expect:ident $name:ident;)*) => {
        &[$($crate::case::Case {
            method: $method,
            expect: $crate::case::Expect::$expect,
            stage: $crate::case::Stage::$stage,
            name: stringify!($name),
            run: |world| Box::pin($name(world)),
        }),*]
    };
}
pub(crate) use cases;
