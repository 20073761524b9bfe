//! Two connections that become one.

use std::io;
use std::time::Duration;

use sandbox_api::http::Peer;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Bytes that are moved at once.
const CHUNK: usize = 32 * 1024;
/// How long the one side may still send after the other has said that it sends no more.
const LINGER: Duration = Duration::from_secs(30);

/// Moves all that one side sends, and then tells the other that there is no more.
async fn one_way(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(CHUNK);
    loop {
        buffer.clear();
        if from.read_buf(&mut buffer).await? == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer).await?;
    }
}

/// Joins a client with `far`, which is sent `first` at first. Ends when both have ended, when one breaks, or some time after `far`
/// has ended.
pub(super) async fn join(peer: Peer, far: impl AsyncRead + AsyncWrite, first: Vec<u8>) {
    let Peer { buffered, mut reader, mut writer, .. } = peer;
    let (mut far_reader, mut far_writer) = tokio::io::split(far);
    let there = async {
        far_writer.write_all(&first).await?;
        far_writer.write_all(&buffered).await?;
        one_way(&mut reader, &mut far_writer).await
    };
    let back = one_way(&mut far_reader, &mut writer);
    tokio::pin!(there, back);
    // Each end is how connections end; there is nobody to tell.
    tokio::select! {
        ended = &mut there => if ended.is_ok() { drop(back.await) },
        ended = &mut back => if ended.is_ok() { drop(tokio::time::timeout(LINGER, there).await) },
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
}
