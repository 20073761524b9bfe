//! What all requests of the sandbox API work on.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::{BoxFuture, FutureExt as _};
use sandbox_api::connect::decode_base64;
use sandbox_api::connect::{self, Code, Incoming};
use sandbox_api::http::{Head, Response};
use tokio::sync::Semaphore;

use super::account::{Account, Accounts, expand};
use super::auth::Auth;
use super::process::Commands;
use super::processors::Processors;
use super::storage::Storage;
use super::target::{self, NoContainer, Target};
use super::task;
use crate::guest::clock::Clock;
use crate::heap::Trimmer;
use crate::pod::Pod;

/// What `boot` hands over.
pub(crate) struct Parts {
    /// The pod.
    pub(crate) pod: Arc<Pod>,
    /// The guest's clock.
    pub(crate) clock: Clock,
    /// Gives memory back.
    pub(crate) trimmer: Trimmer,
    /// The policy that judges requests.
    #[cfg(feature = "policy")]
    pub(crate) policy: crate::policy::Policy,
    /// The container that requests are for, by the kernel command line.
    pub(crate) container: Option<String>,
}

/// See the module.
pub(crate) struct Sandbox {
    pub(super) parts: Parts,
    /// Who may.
    pub(super) auth: Auth,
    /// Room for large messages.
    pub(super) incoming: Incoming,
    /// Work on files, and watches.
    pub(super) storage: Storage,
    /// Commands that were started.
    pub(super) commands: Arc<Commands>,
    /// Room for large inputs of commands.
    pub(super) inputs: Semaphore,
    /// What the processors had done at the last look.
    pub(super) processors: Processors,
    /// What /init has set.
    settings: Mutex<Settings>,
}

/// Large inputs that are written at once.
const LARGE_INPUTS: usize = 4;

/// What /init sets.
#[derive(Debug, Clone, Default)]
pub(super) struct Settings {
    /// Its variables of every command.
    pub(super) envs: Vec<(String, String)>,
    /// The user of who names none.
    pub(super) user: Option<String>,
    /// Where commands begin and what empty paths mean.
    pub(super) workdir: Option<String>,
    /// How often /init was called: changes with every restore.
    pub(super) generation: u64,
    /// The latest time that /init has brought, in nanoseconds since 1970.
    pub(super) stamp: Option<i128>,
}

/// Somebody who asks for something in a container.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// The container.
    pub(super) target: Target,
    /// Its root, as its processes see it.
    pub(super) root: Arc<OwnedFd>,
    /// Its users.
    pub(super) accounts: Arc<Accounts>,
    /// As whom.
    pub(super) account: Account,
    /// What an empty path means, if it is not the home.
    pub(super) workdir: Option<String>,
}

/// Why nothing can be done for a caller.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallerError {
    /// See [`NoContainer`].
    #[error(transparent)]
    NoContainer(#[from] NoContainer),
    /// The container has no such user.
    #[error("invalid username: '{0}'")]
    Unknown(String),
    /// The container's root cannot be had.
    #[error("the container's files cannot be reached: {0}")]
    Root(std::io::Error),
}

impl CallerError {
    /// For a call of the Connect protocol.
    pub(super) fn to_connect(&self) -> connect::Error {
        let code = match self {
            CallerError::NoContainer(_) | CallerError::Root(_) => Code::Unavailable,
            CallerError::Unknown(_) => Code::Unauthenticated,
        };
        connect::Error::new(code, self.to_string())
    }

    /// For a plain request.
    pub(super) fn to_response(&self) -> Response {
        let error = self.to_connect();
        Response::failure(error.code.status(), &error.message)
    }
}

impl Caller {
    /// What a path of the caller's means: absolute, but not cleaned.
    ///
    /// # Errors
    /// A text about `~other`.
    pub(super) fn path(&self, path: &str) -> Result<String, String> {
        expand(path, &self.account.home, self.workdir.as_deref())
    }
}

impl Sandbox {
    /// One for a pod, open to everybody.
    pub(crate) fn new(parts: Parts) -> Arc<Sandbox> {
        let commands = Arc::new(Commands::new(parts.trimmer.clone()));
        Arc::new(Sandbox {
            parts,
            auth: Auth::default(),
            incoming: Incoming::default(),
            storage: Storage::default(),
            commands,
            processors: Processors::default(),
            inputs: Semaphore::new(LARGE_INPUTS),
            settings: Mutex::default(),
        })
    }

    /// What /init has set. The lock is held for moments.
    pub(super) fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Variables of every command: those of /init, and the one that tells programs where they run, which /init cannot set.
    pub(super) fn global(&self) -> Vec<(String, String)> {
        let mut envs = self.settings().envs.clone();
        envs.push(("E2B_SANDBOX".to_owned(), "true".to_owned()));
        envs
    }

    /// The container that a request is for, once it runs.
    ///
    /// # Errors
    /// [`NoContainer`] when none does in time.
    pub(super) async fn target(&self, head: &Head) -> Result<Target, NoContainer> {
        target::running(&self.parts.pod, head, self.parts.container.as_deref()).await
    }

    /// The container that a request is for, if it is there at all.
    pub(super) fn target_now(&self, head: &Head) -> Option<Target> {
        target::now(&self.parts.pod, head, self.parts.container.as_deref())
    }

    /// Who asks, and in which container. The user is `named` if that is given, else the one in the header of the request, else the
    /// default.
    ///
    /// # Errors
    /// [`CallerError`].
    pub(super) fn caller<'a>(
        &'a self,
        head: &'a Head,
        named: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Caller, CallerError>> {
        let caller = async move {
            let target = self.target(head).await?;
            let settings = self.settings().clone();
            let named = named.filter(|name| !name.is_empty()).map(str::to_owned).or_else(|| basic_user(head));
            let work = move || {
                let root = target.root().map_err(CallerError::Root)?;
                let accounts = Accounts::read(root.as_fd());
                let account =
                    choose(&accounts, named.as_deref(), settings.user.as_deref(), own_user(&target))?;
                let (root, accounts) = (Arc::new(root), Arc::new(accounts));
                Ok(Caller { target, root, accounts, account, workdir: settings.workdir })
            };
            let done = task::blocking(work).await;
            done.unwrap_or_else(|error| Err(CallerError::Root(error.into())))
        };
        caller.boxed()
    }
}

/// The user that a container's first process has.
fn own_user(target: &Target) -> u32 {
    let spec = target.container.spec();
    spec.and_then(|spec| spec.process().as_ref().map(|process| process.user().uid())).unwrap_or_default()
}

/// The name in the field `Authorization: Basic`; none if there is none, or an empty one.
fn basic_user(head: &Head) -> Option<String> {
    let field = head.headers.get("authorization")?;
    let (scheme, encoded) = field.split_once(' ')?;
    let decoded = scheme.eq_ignore_ascii_case("basic").then(|| decode_base64(encoded.trim()))??;
    let text = String::from_utf8_lossy(&decoded);
    let name = text.split_once(':').map_or(&*text, |(name, _)| name);
    (!name.is_empty()).then(|| name.to_owned())
}

/// What old SDKs call the user, unasked.
const ALIAS: &str = "user";

/// The account of a user: the named one, else the default, else the container's own. `user` is the default where the container
/// has no account of that name.
fn choose(
    accounts: &Accounts,
    named: Option<&str>,
    default: Option<&str>,
    own: u32,
) -> Result<Account, CallerError> {
    let find = |name: &str| accounts.find(name).ok_or_else(|| CallerError::Unknown(name.to_owned()));
    let fallback = || match default {
        Some(name) if name != ALIAS => find(name),
        Some(name) => find(name).or_else(|_| find(&own.to_string())),
        None => find(&own.to_string()),
    };
    match named {
        None => fallback(),
        Some(ALIAS) => find(ALIAS).or_else(|_| fallback()),
        Some(name) => find(name),
    }
}

/// A sandbox of a pod that was never created.
#[cfg(test)]
pub(super) fn empty(dir: &std::path::Path) -> Arc<Sandbox> {
    Sandbox::new(Parts {
        pod: Arc::new(Pod::new(crate::container::fake::tools(dir, &[]).0)),
        clock: Clock::keep(false),
        trimmer: Trimmer::default(),
        #[cfg(feature = "policy")]
        policy: crate::policy::Policy::start_in_threads(&dir.join("none.rego")).unwrap(),
        container: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn large_inputs_wait_for_one_another() {
        let dir = tempfile::tempdir().unwrap();
        let sandbox = empty(dir.path());
        let held: Vec<_> = (0..LARGE_INPUTS).map(|_| sandbox.inputs.try_acquire().unwrap()).collect();
        assert!(sandbox.inputs.try_acquire().is_err());
        drop(held);
        assert!(sandbox.inputs.try_acquire().is_ok());
    }

    #[test]
    fn users_are_named_by_a_header() {
        let name = |value: &str| {
            let mut head = Head::of("POST", "/");
            head.headers.push("Authorization", value);
            basic_user(&head)
        };
        assert_eq!(name("Basic cm9vdDo=").as_deref(), Some("root"));
        assert_eq!(name("basic dXNlcg").as_deref(), Some("user"));
        assert_eq!(name("Basic Og=="), None);
        assert_eq!(name("Bearer cm9vdDo="), None);
        assert_eq!(name("Basic !"), None);
    }

    #[test]
    fn an_alias_is_the_default_where_there_is_no_such_user() {
        let none = Accounts::default();
        let uid = |named, default, own| choose(&none, named, default, own).map(|account| account.uid);
        assert_eq!(uid(None, None, 7).unwrap(), 7);
        assert_eq!(uid(Some("user"), None, 7).unwrap(), 7);
        assert_eq!(uid(Some("user"), Some("root"), 7).unwrap(), 0);
        assert_eq!(uid(None, Some("user"), 7).unwrap(), 7);
        assert_eq!(uid(Some("root"), None, 7).unwrap(), 0);
        let refused = uid(Some("nosuch"), None, 0).unwrap_err();
        assert_eq!(refused.to_string(), "invalid username: 'nosuch'");
        assert_eq!(refused.to_connect().code, Code::Unauthenticated);
        assert!(uid(None, Some("gone"), 0).is_err());
    }
}
