//! Why the records of pods could not be read or written.

use std::io;
use std::path::{Path, PathBuf};

/// Why state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A file operation failed.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The place is not this user's alone.
    #[error("cannot keep pods in {}; set PITH_STATE to a directory of your own", path.display())]
    Place {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: io::Error,
    },
    /// The name is taken by a pod that runs.
    #[error("a pod {0:?} is running already; `pith stop {0}` ends it, or --name chooses another name")]
    Running(String),
    /// The pod is there, and has ended.
    #[error(
        "pod {0:?} has ended; `pith logs` and `pith inspect` show what it left, `pith restart` starts it again"
    )]
    Ended(String),
    /// The pod runs, and only one that has ended was asked for.
    #[error("pod {0:?} is running; end it first with `pith stop {0}`, or use --force")]
    StillRunning(String),
    /// There is no such pod.
    #[error("there is no pod {name:?}; {}", known(pods))]
    NoPod {
        /// The name asked for.
        name: String,
        /// The names there are.
        pods: Vec<String>,
    },
    /// The pod has no such container.
    #[error("pod {pod:?} has no container {name:?}; it has {}", containers.join(", "))]
    NoContainer {
        /// The pod.
        pod: String,
        /// The name asked for.
        name: String,
        /// The names there are.
        containers: Vec<String>,
    },
    /// The pod has not come far enough to be talked to.
    #[error("pod {0:?} is not up yet")]
    NotUp(String),
}

/// The pods there are, of which only the first are named.
fn known(pods: &[String]) -> String {
    const NAMED: usize = 10;
    match pods.len() {
        0 => "there are no pods at all".to_owned(),
        1..=NAMED => format!("pods: {}", pods.join(", ")),
        more => {
            format!("pods: {} and {} more; `pith ps -a` lists them", pods[..NAMED].join(", "), more - NAMED)
        }
    }
}

pub(super) fn io_error(operation: &'static str, path: &Path, source: io::Error) -> StateError {
    StateError::Io { operation, path: path.to_path_buf(), source }
}

pub(super) fn place_error(path: &Path, source: io::Error) -> StateError {
    StateError::Place { path: path.to_path_buf(), source }
}
