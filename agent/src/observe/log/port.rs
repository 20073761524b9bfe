//! Serves the log on a vsock port.
//!
//! Each connection gets the backlog, then what is logged while it lasts, as JSON lines. Readers come, go and come back;
//! one that does not read misses records and is told how many. Must never make a writer wait for a reader.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::task::AbortHandle;

use super::backlog::{Backlog, Reader};
use crate::config::Cid;
use crate::listen;

/// Readers at once. For one more, the one that is farthest behind has to go.
const READERS: usize = 16;
/// Bytes that are written at once: one write to a vsock.
const BATCH: usize = 28 * 1024;

/// The readers of a backlog.
#[derive(Debug, Default)]
pub(super) struct Port {
    backlog: Arc<Backlog>,
    readers: Mutex<Vec<Connected>>,
}

#[derive(Debug)]
struct Connected {
    /// Number of the line that it needs next.
    sent: Arc<AtomicU64>,
    task: AbortHandle,
}

impl Port {
    /// The backlog that is served.
    pub(super) fn backlog(&self) -> &Arc<Backlog> {
        &self.backlog
    }

    /// Listens. Accepts connections when this returns.
    pub(super) fn serve(self: &Arc<Self>, port: u32) -> io::Result<()> {
        let connections = listen::vsock(Cid::Any, port, None)?;
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let mut connections = std::pin::pin!(connections);
            while let Some(connection) = connections.next().await {
                if let Ok(stream) = connection {
                    this.admit(stream);
                }
            }
        });
        Ok(())
    }

    fn admit(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let sent = Arc::new(AtomicU64::new(0));
        let reader = Reader::new(Arc::clone(&self.backlog));
        let task = tokio::spawn(tell(stream, reader, Arc::clone(&sent))).abort_handle();
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.retain(|reader| !reader.task.is_finished());
        if readers.len() >= READERS {
            let behind = (0..readers.len()).min_by_key(|at| readers[*at].sent.load(Ordering::Relaxed));
            if let Some(at) = behind {
                readers.swap_remove(at).task.abort();
            }
        }
        readers.push(Connected { sent, task });
    }

    /// Waits until the connected readers have everything, at most `within`.
    pub(super) async fn delivered(&self, within: Duration) {
        let all = async {
            while self.is_behind() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        drop(tokio::time::timeout(within, all).await);
    }

    fn is_behind(&self) -> bool {
        let end = self.backlog.end();
        let readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.iter().any(|reader| !reader.task.is_finished() && reader.sent.load(Ordering::Relaxed) < end)
    }
}

/// Tells a reader everything, until it hangs up.
async fn tell(mut stream: impl AsyncRead + AsyncWrite + Unpin, mut reader: Reader, sent: Arc<AtomicU64>) {
    let mut may_hang_up = true;
    loop {
        let text = tokio::select! {
            biased;
            // One that is gone while there is much to tell is found out by the write.
            text = reader.next(BATCH) => text,
            is_gone = hung_up(&mut stream), if may_hang_up => {
                if is_gone {
                    return;
                }
                may_hang_up = false;
                continue;
            }
        };
        if stream.write_all(text.as_bytes()).await.is_err() {
            return;
        }
        sent.store(reader.at(), Ordering::Relaxed);
    }
}

/// Waits until the reader closes its sending half, and tells whether it has closed the other one too: programs that
/// only want to read may close the first at once.
async fn hung_up(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> bool {
    let mut ignored = [0; 64];
    while matches!(stream.read(&mut ignored).await, Ok(1..)) {}
    // Of no bytes, the kernel writes none, but fails if nobody could receive them.
    stream.write(&[]).await.is_err()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncBufReadExt as _, BufReader, duplex};

    #[tokio::test]
    async fn readers_get_the_past_and_the_present_and_may_come_back() {
        let port = Arc::new(Port::default());
        port.backlog().put("before\n".into());
        for _ in 0..2 {
            let (near, far) = duplex(1000);
            port.admit(near);
            let mut lines = BufReader::new(far).lines();
            assert_eq!(lines.next_line().await.unwrap().unwrap(), "before");
        }
        let (near, far) = duplex(1000);
        port.admit(near);
        port.backlog().put("now\n".into());
        port.delivered(Duration::from_secs(60)).await;
        assert!(!port.is_behind());
        let mut lines = BufReader::new(far).lines();
        assert_eq!(lines.next_line().await.unwrap().unwrap(), "before");
        assert_eq!(lines.next_line().await.unwrap().unwrap(), "now");
    }

    #[tokio::test]
    async fn a_reader_too_many_replaces_the_one_that_is_farthest_behind() {
        let port = Arc::new(Port::default());
        port.backlog().put("x".repeat(100) + "\n");
        // It takes only a part of the first line.
        let (near, mut stuck) = duplex(10);
        port.admit(near);
        let mut others = Vec::new();
        for _ in 1..READERS {
            let (near, far) = duplex(1000);
            port.admit(near);
            others.push(far);
        }
        while port.readers.lock().unwrap().iter().filter(|r| r.sent.load(Ordering::Relaxed) == 0).count() > 1
        {
            tokio::task::yield_now().await;
        }
        let (near, _last) = duplex(1000);
        port.admit(near);
        let mut all = Vec::new();
        stuck.read_to_end(&mut all).await.unwrap();
        assert_eq!(all.len(), 10);
        assert_eq!(port.readers.lock().unwrap().len(), READERS);
    }
}
