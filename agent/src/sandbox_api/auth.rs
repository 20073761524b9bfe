//! Who may use the API: everybody who reaches it, or, once a token is set, who has the token.

use std::sync::{Mutex, MutexGuard, PoisonError};

use sandbox_api::http::{Head, Response};
use sandbox_api::signature::same;
use tokio::sync::watch;

/// Longest token, in bytes.
const LONGEST: usize = 4096;

/// The answer to who has no token.
const REFUSED: &str =
    "unauthorized access, please provide a valid access token or method signing if supported";

/// The token in force.
#[derive(Default)]
pub(super) struct Auth {
    /// Held for a comparison.
    token: Mutex<Option<String>>,
    is_set: watch::Sender<bool>,
}

impl Auth {
    fn token(&self) -> MutexGuard<'_, Option<String>> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The token, for a signature to be compared.
    pub(super) fn current(&self) -> Option<String> {
        self.token().clone()
    }

    /// Whether there is one.
    pub(super) fn is_set(&self) -> bool {
        self.token().is_some()
    }

    /// Whether a token is the one in force; true if none is.
    pub(super) fn is_right(&self, given: Option<&str>) -> bool {
        match (&*self.token(), given) {
            (None, _) => true,
            (Some(token), Some(given)) => same(token.as_bytes(), given.as_bytes()),
            (Some(_), None) => false,
        }
    }

    /// Puts another token in force, or none.
    ///
    /// # Errors
    /// A text about one that is too long.
    pub(super) fn set(&self, token: Option<String>) -> Result<(), String> {
        if token.as_ref().is_some_and(|token| token.len() > LONGEST) {
            return Err(format!("an access token has at most {LONGEST} bytes"));
        }
        let token = token.filter(|token| !token.is_empty());
        let is_set = token.is_some();
        *self.token() = token;
        self.is_set.send_replace(is_set);
        Ok(())
    }

    /// Waits until there is one.
    pub(super) async fn wait(&self) {
        let mut changes = self.is_set.subscribe();
        // The sender is this one's own, so the channel does not close.
        drop(changes.wait_for(|is_set| *is_set).await.map(drop));
    }

    /// Refuses a request without the token, unless its path judges for itself.
    /// A port of the pod has no such paths. In the pod's network, nobody is let in while there is no token: `/init` may have
    /// cleared it.
    pub(super) fn check(&self, head: &Head, is_for_port: bool, is_host: bool) -> Result<(), Response> {
        let is_open = !is_for_port
            && matches!(
                (head.method.as_str(), head.path.as_str()),
                ("GET" | "HEAD", "/health") | ("GET" | "HEAD" | "POST", "/files") | ("POST", "/init")
            );
        let is_let_in = is_open || self.is_right(head.headers.get("x-access-token"));
        if is_let_in && (is_host || self.is_set()) {
            return Ok(());
        }
        Err(Response::failure(401, REFUSED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_closes_all_but_what_judges_for_itself() {
        let auth = Auth::default();
        let check = |method: &str, path: &str, token: Option<&str>| {
            let mut head = Head::of(method, path);
            token.iter().for_each(|token| head.headers.push("X-Access-Token", token));
            auth.check(&head, false, true).map_err(|response| response.status)
        };
        assert_eq!(check("GET", "/metrics", None), Ok(()));
        auth.set(Some("secret".into())).unwrap();
        for (method, path) in [
            ("GET", "/metrics"),
            ("GET", "/envs"),
            ("POST", "/process.Process/List"),
            ("POST", "/files/compose"),
            ("GET", "/init"),
            ("POST", "/health"),
            ("GET", "/nosuch"),
        ] {
            assert_eq!(check(method, path, None), Err(401), "{path}");
            assert_eq!(check(method, path, Some("secreT")), Err(401), "{path}");
            assert_eq!(check(method, path, Some("secret2")), Err(401), "{path}");
            assert_eq!(check(method, path, Some("secret")), Ok(()), "{path}");
        }
        for (method, path) in
            [("GET", "/health"), ("GET", "/files?path=x"), ("POST", "/files"), ("POST", "/init")]
        {
            assert_eq!(check(method, path, None), Ok(()), "{path}");
        }
        assert_eq!(
            auth.check(&Head::of("GET", "/health"), true, true).map_err(|response| response.status),
            Err(401)
        );
        let from_pod =
            |path| auth.check(&Head::of("GET", path), false, false).map_err(|refused| refused.status);
        assert_eq!((from_pod("/health"), from_pod("/files"), from_pod("/envs")), (Ok(()), Ok(()), Err(401)));
        auth.set(None).unwrap();
        for path in ["/health", "/files", "/envs"] {
            assert_eq!(from_pod(path), Err(401), "{path}");
        }
        assert!(!auth.is_set());
        assert_eq!(check("GET", "/metrics", None), Ok(()));
        assert!(auth.set(Some("x".repeat(LONGEST + 1))).is_err());
    }
}
