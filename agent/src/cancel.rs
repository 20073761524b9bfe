//! One word for all that waits: give up.

use std::sync::Arc;

use tokio::sync::watch;

/// A token that is cancelled once and stays so. Clones are the same token; a [`Cancel::child`] is cancelled with its parent,
/// or alone. What waits in a task awaits [`Cancel::cancelled`], what waits on a thread looks at [`Cancel::is_cancelled`].
#[derive(Debug, Clone)]
pub(crate) struct Cancel {
    own: Arc<watch::Sender<bool>>,
    parent: Option<Arc<Cancel>>,
}

impl Default for Cancel {
    fn default() -> Cancel {
        Cancel { own: Arc::new(watch::channel(false).0), parent: None }
    }
}

impl Cancel {
    /// A token of its own that is cancelled with this one, too.
    pub(crate) fn child(&self) -> Cancel {
        Cancel { parent: Some(Arc::new(self.clone())), ..Cancel::default() }
    }

    /// Cancels this token and its children.
    pub(crate) fn cancel(&self) {
        self.own.send_replace(true);
    }

    /// Whether it, or its parent, was cancelled.
    pub(crate) fn is_cancelled(&self) -> bool {
        *self.own.borrow() || self.parent.as_ref().is_some_and(|parent| parent.is_cancelled())
    }

    /// Waits until it is cancelled.
    pub(crate) async fn cancelled(&self) {
        let mut tokens = vec![self];
        while let Some(parent) = tokens[tokens.len() - 1].parent.as_deref() {
            tokens.push(parent);
        }
        let waits = tokens.iter().map(|token| {
            let mut own = token.own.subscribe();
            // The sender is held by the token, so the channel does not close.
            Box::pin(async move { drop(own.wait_for(|is_cancelled| *is_cancelled).await.map(drop)) })
        });
        futures_util::future::select_all(waits).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_child_ends_with_its_parent_and_alone() {
        let parent = Cancel::default();
        let (first, second) = (parent.child(), parent.child());
        first.cancel();
        first.cancelled().await;
        assert!(first.is_cancelled() && !second.is_cancelled() && !parent.is_cancelled());
        let waiter = tokio::spawn({
            let second = second.clone();
            async move { second.cancelled().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        parent.cancel();
        waiter.await.unwrap();
        assert!(second.is_cancelled() && second.child().is_cancelled());
    }
}
