//! From the finished jail to `execve`: identity, working directory, environment, the search for the program.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use capctl::caps::Cap;
use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::{Failure, Step, fail, filter, identity, refuse};
use crate::plan::{Command, JailPlan};
use crate::sys;

/// Where a program without a slash is sought when its environment names no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program that was found, ready to execute.
pub(super) struct Program {
    path: CString,
    args: Vec<CString>,
    env: Vec<CString>,
}

impl Program {
    /// Executes the program; returns only if that failed.
    pub(super) fn execute(&self) -> Failure {
        let error = sys::process::execve(&self.path, &self.args, &self.env);
        let failure = fail(format!("exec {}", self.path.to_string_lossy()), error);
        Failure { reason: words(&failure), ..failure }
    }
}

/// Why a file that was found does not run, in the words of shells and other runtimes.
fn words(failure: &Failure) -> String {
    let text = failure.reason.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    let lower = letters.next().map(|first| first.to_lowercase().chain(letters).collect::<String>());
    // The file itself was found a moment ago.
    let more = match failure.errno.map(Errno::from_raw_os_error) {
        Some(Errno::NOENT) => ": the interpreter or dynamic loader that it names",
        _ => "",
    };
    lower.unwrap_or_default() + more
}

/// Writes to the standard error that the program would have had, as far as that goes.
pub(super) fn say(mut text: &[u8]) {
    while let Ok(count @ 1..) = rustix::io::write(std::io::stderr(), text) {
        text = &text[count..];
    }
}

/// Exit status of a process whose program could not be executed, as a shell gives it: 127 for one that is missing,
/// 126 for one that cannot run.
pub(super) fn exit_code(errno: Option<i32>) -> i32 {
    if errno == Some(Errno::NOENT.raw_os_error()) { 127 } else { 126 }
}

/// Becomes the user, enters the working directory and finds the program.
pub(super) fn enter(plan: &JailPlan) -> Step<Program> {
    let command = &plan.command;
    // As root first, since the user may not be able to pass a parent; as the user again for what root may not enter.
    let entered = rustix::process::chdir(&command.cwd);
    let env = environment(command, plan.identity.uid);
    let kept = filter::needs_privilege(plan).then_some(Cap::SYS_ADMIN);
    rustix::process::umask(Mode::from_raw_mode(plan.identity.umask));
    identity::assume(&plan.identity, kept)?;
    if entered.is_err() {
        rustix::process::chdir(&command.cwd).map_err(|errno| {
            refuse(format!("enter the working directory {}", command.cwd.display()), errno)
        })?;
    }
    let here =
        rustix::process::getcwd(Vec::new()).map_err(|errno| fail("look at the working directory", errno))?;
    if !here.as_bytes().starts_with(b"/") {
        return Err(refuse("use a working directory outside the container's root", Errno::INVAL));
    }
    let path = find(command, &env)?;
    let strings = |list: &[String]| -> Step<Vec<CString>> {
        list.iter()
            .map(|text| CString::new(text.as_str()).map_err(|error| fail("pass a string", error)))
            .collect()
    };
    Ok(Program {
        path: CString::new(path.as_os_str().as_bytes()).map_err(|error| fail("pass a path", error))?,
        args: strings(&command.args)?,
        env: strings(&env)?,
    })
}

fn variable<'a>(env: &'a [String], name: &str) -> Option<&'a str> {
    env.iter().rev().find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='))
}

/// The environment, verbatim, with `HOME` added where it is missing.
fn environment(command: &Command, uid: u32) -> Vec<String> {
    let mut env = command.env.clone();
    if variable(&env, "HOME").is_none() {
        let table = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        env.push(format!("HOME={}", home(&table, uid).unwrap_or("/")));
    }
    env
}

/// Home directory of a user in the text of a `passwd(5)` file.
fn home(table: &str, uid: u32) -> Option<&str> {
    let uid = uid.to_string();
    table
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.len() >= 6 && fields[2] == uid)
        .map(|fields| fields[5])
        .filter(|home| home.starts_with('/'))
}

/// Finds the program as `execvp(3)` would, so that a missing one is known before anybody waits for it.
fn find(command: &Command, env: &[String]) -> Step<PathBuf> {
    let name = command.args.first().map(String::as_str).unwrap_or_default();
    let missing = |errno: Errno| {
        let reason = std::io::Error::from(errno).to_string();
        Failure {
            step: format!("the file {name} was not found"),
            reason: if name.contains('/') { reason } else { format!("not in $PATH ({reason})") },
            errno: Some(errno.raw_os_error()),
            invalid: true,
        }
    };
    if name.contains('/') {
        return executable(Path::new(name)).map(|()| PathBuf::from(name)).map_err(|errno| match errno {
            Errno::NOENT | Errno::NOTDIR => missing(errno),
            // A link of /proc, which can lead out of the container: to the runtime's own program, for one.
            Errno::LOOP => refuse(format!("execute {name} by a link of the kernel's own"), errno),
            other => refuse(format!("execute {name}"), other),
        });
    }
    let mut denied = None;
    for directory in variable(env, "PATH").unwrap_or(DEFAULT_PATH).split(':') {
        // An empty entry is the working directory.
        let path = Path::new(if directory.is_empty() { "." } else { directory }).join(name);
        match executable(&path) {
            Ok(()) => return Ok(path),
            Err(Errno::ACCESS) => denied = Some(path),
            Err(_) => {}
        }
    }
    Err(match denied {
        Some(path) => refuse(format!("execute {}", path.display()), Errno::ACCESS),
        None => missing(Errno::NOENT),
    })
}

fn executable(path: &Path) -> rustix::io::Result<()> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let file = rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)?;
    let stat = rustix::fs::fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Err(Errno::ACCESS);
    }
    rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn home_comes_from_the_users_line() {
        let table = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/var/www:\nodd:x:9\n";
        assert_eq!(home(table, 33), Some("/var/www"));
        assert_eq!(home(table, 9), None);
        assert_eq!(home(table, 1), None);
    }

    #[test]
    fn the_last_of_equal_names_counts() {
        let env = ["PATH=/a".to_owned(), "PATHS=/c".to_owned(), "PATH=/b".to_owned()];
        assert_eq!(variable(&env, "PATH"), Some("/b"));
        assert_eq!(variable(&env, "HOME"), None);
    }

    #[test]
    fn shells_exit_codes() {
        assert_eq!(exit_code(Some(Errno::NOENT.raw_os_error())), 127);
        assert_eq!(exit_code(Some(Errno::NOEXEC.raw_os_error())), 126);
        assert_eq!(exit_code(None), 126);
    }

    #[test]
    fn a_program_that_does_not_run_has_the_usual_words() {
        let of = |errno: Errno| words(&fail("exec /bin/x", errno));
        assert_eq!(of(Errno::NOEXEC), "exec format error");
        assert_eq!(of(Errno::ACCESS), "permission denied");
        assert!(of(Errno::NOENT).starts_with("no such file or directory: the interpreter"));
    }

    #[test]
    fn a_program_is_sought_in_path_and_a_missing_one_is_named() {
        let mut command =
            Command { args: vec!["sh".into()], env: vec![], cwd: "/".into(), create_cwd: false };
        assert!(find(&command, &["PATH=/nonexistent:/bin".into()]).unwrap().ends_with("sh"));
        command.args = vec!["no-such-program".into()];
        let failure = find(&command, &[]).unwrap_err();
        assert!(failure.invalid);
        assert!(failure.to_string().contains("the file no-such-program was not found"), "{failure}");
        command.args = vec!["/etc".into()];
        assert_eq!(find(&command, &[]).unwrap_err().errno, Some(Errno::ACCESS.raw_os_error()));
    }
}
