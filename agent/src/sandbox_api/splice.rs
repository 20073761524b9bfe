//! Two connections that become one.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sandbox_api::http::Peer;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Bytes that are moved at once.
const CHUNK: usize = 32 * 1024;
/// How long the client may still send after the other side has said that it sends no more.
const LINGER: Duration = Duration::from_secs(30);
/// How long it may be silent then. Some vsock devices do not tell a client that one direction has ended, only that both have: it
/// would wait in vain for the end of an answer without a length.
const SILENCE: Duration = Duration::from_millis(500);

/// Moves all that one side sends, and then tells the other that there is no more. Counts what it moves.
async fn one_way(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    moved: &AtomicUsize,
) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(CHUNK);
    loop {
        buffer.clear();
        if from.read_buf(&mut buffer).await? == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer).await?;
        moved.fetch_add(buffer.len(), Ordering::Relaxed);
    }
}

/// Ends when nothing was moved for a while, and in any case after [`LINGER`].
async fn silent(moved: &AtomicUsize) {
    let until_silent = async {
        let mut before = None;
        loop {
            let now = moved.load(Ordering::Relaxed);
            if before == Some(now) {
                return;
            }
            before = Some(now);
            tokio::time::sleep(SILENCE).await;
        }
    };
    // Either way it is over.
    drop(tokio::time::timeout(LINGER, until_silent).await);
}

/// Joins a client with `far`, which is sent `first` at first. Ends when both have ended, when one breaks, or when `far` has ended
/// and the client sends nothing any more.
pub(super) async fn join(peer: Peer, far: impl AsyncRead + AsyncWrite, first: Vec<u8>) {
    let Peer { buffered, mut reader, mut writer, .. } = peer;
    let (mut far_reader, mut far_writer) = tokio::io::split(far);
    let (sent, received) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let there = async {
        far_writer.write_all(&first).await?;
        far_writer.write_all(&buffered).await?;
        one_way(&mut reader, &mut far_writer, &sent).await
    };
    let back = one_way(&mut far_reader, &mut writer, &received);
    tokio::pin!(there, back);
    // Each end is how connections end; there is nobody to tell.
    tokio::select! {
        biased;
        // First, since what `far` says is then still read to its end.
        ended = &mut there => if ended.is_ok() { drop(back.await) },
        ended = &mut back => if ended.is_ok() {
            tokio::select! {
                biased;
                _ = there => {}
                () = silent(&sent) => {}
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use sandbox_api::http::{Head, Io};

    #[tokio::test]
    async fn bytes_and_ends_pass_both_ways() {
        let (mut client, near) = tokio::io::duplex(64);
        let (far, mut server) = tokio::io::duplex(64);
        let (reader, writer) = tokio::io::split(Box::new(near) as Box<dyn Io>);
        let peer = Peer { head: Head::of("GET", "/"), buffered: Bytes::from("buffered "), reader, writer };
        let joined = tokio::spawn(join(peer, far, b"first ".to_vec()));
        client.write_all(b"more").await.unwrap();
        client.shutdown().await.unwrap();
        let mut all = String::new();
        server.read_to_string(&mut all).await.unwrap();
        assert_eq!(all, "first buffered more");
        server.write_all(b"answer").await.unwrap();
        drop(server);
        let mut all = String::new();
        client.read_to_string(&mut all).await.unwrap();
        assert_eq!(all, "answer");
        joined.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_waits_hears_that_the_other_side_has_ended() {
        let (client, near) = tokio::io::duplex(64);
        let (far, mut server) = tokio::io::duplex(64);
        let (reader, writer) = tokio::io::split(Box::new(near) as Box<dyn Io>);
        let peer = Peer { head: Head::of("GET", "/"), buffered: Bytes::new(), reader, writer };
        let joined = tokio::spawn(join(peer, far, Vec::new()));
        let (mut answers, mut requests) = tokio::io::split(client);
        server.write_all(b"answer").await.unwrap();
        server.shutdown().await.unwrap();
        // What is still sent arrives.
        for _ in 0..3 {
            tokio::time::sleep(SILENCE / 2).await;
            requests.write_all(b"more").await.unwrap();
        }
        let began = tokio::time::Instant::now();
        joined.await.unwrap();
        assert!(began.elapsed() <= SILENCE * 2, "{:?}", began.elapsed());
        let (mut all, mut sent) = (String::new(), String::new());
        answers.read_to_string(&mut all).await.unwrap();
        server.read_to_string(&mut sent).await.unwrap();
        assert_eq!((all.as_str(), sent.as_str()), ("answer", "moremoremore"));
    }
}
