//! Connections over a stream in memory, with clients that are slow, silent or gone.

use super::*;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, DuplexStream};

/// Answers with what a request was about.
struct Echo;

impl Service for Echo {
    fn call(&self, mut request: Request) -> BoxFuture<'static, Response> {
        async move {
            match request.head.path.as_str() {
                "/unread" => Response::text(400, "no"),
                "/panic" => panic!("a bug"),
                "/forever" => std::future::pending().await,
                "/stream" => {
                    let pieces = ["one", "", "two"].map(|piece| Ok(Bytes::from(piece)));
                    Response::stream("text/plain", futures_util::stream::iter(pieces).boxed())
                }
                "/sized" => {
                    let pieces = ["one", "two"].map(|piece| Ok(Bytes::from(piece)));
                    let payload = Payload::Sized(6, futures_util::stream::iter(pieces).boxed());
                    Response { payload, ..Response::empty(200) }
                }
                "/silent" => Response::stream("text/plain", futures_util::stream::pending().boxed()),
                "/take" => Response::takeover(|mut peer| async move {
                    peer.writer.write_all(b"raw:").await.unwrap();
                    peer.writer.write_all(&peer.buffered).await.unwrap();
                    tokio::io::copy(&mut peer.reader, &mut peer.writer).await.unwrap();
                }),
                _ => match request.body.collect(1 << 20).await {
                    Ok(body) => Response::full(200, "text/plain", body),
                    Err(error) => Response::failure(error.status(), &error.to_string()),
                },
            }
        }
        .boxed()
    }
}

fn limits() -> Limits {
    let brief = Duration::from_millis(200);
    Limits { idle: brief, head: brief, body: brief, write: brief }
}

fn connect(limits: Limits) -> (DuplexStream, tokio::task::JoinHandle<()>) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    (far, tokio::spawn(async move { serve(Box::new(near), &Echo, &limits).await }))
}

/// Sends `text`, closes if asked, and gives all that comes until the server closes.
async fn talk(text: &str) -> String {
    let (mut far, served) = connect(limits());
    far.write_all(text.as_bytes()).await.unwrap();
    let mut all = Vec::new();
    far.read_to_end(&mut all).await.unwrap();
    drop(far);
    served.await.unwrap();
    String::from_utf8(all).unwrap()
}

fn bodies(answers: &str) -> Vec<&str> {
    answers.split("HTTP/1.1 ").skip(1).map(|answer| answer.split_once("\r\n\r\n").unwrap().1).collect()
}

#[tokio::test]
async fn a_connection_is_used_again_with_both_kinds_of_bodies() {
    let text = "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello\
                POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n\
                GET /none HTTP/1.1\r\n\r\n\
                GET /stream HTTP/1.1\r\n\r\n\
                GET /sized HTTP/1.1\r\n\r\n\
                HEAD /sized HTTP/1.1\r\n\r\n\
                GET / HTTP/1.1\r\nConnection: close\r\n\r\n";
    let answers = talk(text).await;
    let chunks = "3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n";
    assert_eq!(bodies(&answers), ["hello", "hello", "", chunks, "onetwo", "", ""]);
    assert_eq!(answers.matches("content-length: 0\r\n").count(), 2);
    assert_eq!(answers.matches("content-length: 6\r\n").count(), 2);
    assert_eq!(answers.matches("connection: close").count(), 1);
}

#[tokio::test]
async fn old_clients_get_streams_without_chunks() {
    let answer = talk("GET /stream HTTP/1.0\r\n\r\n").await;
    assert!(answer.ends_with("\r\n\r\nonetwo") && answer.contains("connection: close"), "{answer}");
}

#[tokio::test]
async fn what_cannot_be_understood_is_refused_and_ends_the_connection() {
    for (text, status) in [
        ("nonsense\r\n\r\n", "400"),
        ("POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", "400"),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", "501"),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", "400"),
        ("POST / HTTP/1.1\r\nContent-Length: 2000000\r\n\r\n", "413"),
    ] {
        let answer = talk(text).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{text}: {answer}");
        assert!(answer.contains("connection: close\r\n"), "{text}: {answer}");
    }
    let long = format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "b".repeat(70_000));
    assert!(talk(&long).await.starts_with("HTTP/1.1 431 "));
}

#[tokio::test]
async fn a_little_that_nobody_read_is_passed_over_and_much_ends_the_connection() {
    let text = "POST /unread HTTP/1.1\r\nContent-Length: 5\r\n\r\nhelloGET /next HTTP/1.1\r\n\r\n";
    assert_eq!(bodies(&talk(text).await), ["no", ""]);
    let answer = talk("POST /unread HTTP/1.1\r\nContent-Length: 1000000\r\n\r\nhello").await;
    assert!(answer.contains("connection: close") && answer.ends_with("no"), "{answer}");
}

#[tokio::test]
async fn a_panic_is_an_answer() {
    let answers = talk("GET /panic HTTP/1.1\r\n\r\nGET /next HTTP/1.1\r\n\r\n").await;
    assert!(answers.starts_with("HTTP/1.1 500 ") && answers.contains("HTTP/1.1 200 OK"), "{answers}");
}

#[tokio::test]
async fn slow_heads_slow_bodies_and_idle_connections_end() {
    for text in ["", "GET / HT", "GET / HTTP/1.1\r\nHost: x\r\n"] {
        assert_eq!(talk(text).await, "", "{text}");
    }
    assert!(talk("POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhe").await.starts_with("HTTP/1.1 408 "));
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_given_up() {
    let (mut far, served) = connect(limits());
    let body = "x".repeat(1 << 20);
    let (mut reading, mut writing) = tokio::io::split(&mut far);
    // The answer is larger than what the stream holds.
    let text = format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    writing.write_all(text.as_bytes()).await.unwrap();
    timeout(Duration::from_secs(5), served).await.expect("ends").unwrap();
    assert!(reading.read(&mut [0; 16]).await.unwrap() > 0);
}

#[tokio::test]
async fn a_client_that_hangs_up_ends_its_stream_and_its_request() {
    for path in ["/silent", "/forever"] {
        let patient = Limits::default();
        let (mut far, served) = connect(patient);
        far.write_all(format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!served.is_finished());
        drop(far);
        timeout(Duration::from_secs(10), served).await.expect("ends").unwrap();
    }
}

#[tokio::test]
async fn who_closes_the_sending_side_still_gets_an_answer() {
    let (mut far, served) = connect(limits());
    far.write_all(b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi").await.unwrap();
    far.shutdown().await.unwrap();
    let mut all = String::new();
    far.read_to_string(&mut all).await.unwrap();
    assert!(all.ends_with("\r\n\r\nhi"), "{all}");
    served.await.unwrap();
}

#[test]
fn a_head_is_complete_with_its_empty_line() {
    let text = b"GET / HTTP/1.1\r\nA: b\r\n\r\n";
    for seen in 0..text.len() {
        assert!(is_complete(text, seen), "{seen}");
        assert!(!is_complete(&text[..text.len() - 1], seen.min(text.len() - 1)), "{seen}");
    }
    assert!(is_complete(b"GET /\n\n", 6));
}

#[tokio::test]
async fn who_closes_the_sending_side_still_gets_a_body_of_known_length() {
    struct Slow;
    impl Service for Slow {
        fn call(&self, _: Request) -> BoxFuture<'static, Response> {
            let pieces = futures_util::stream::unfold(0, |count| async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                (count < 3).then(|| (Ok(Bytes::from("x")), count + 1))
            });
            let payload = Payload::Sized(3, pieces.boxed());
            std::future::ready(Response { payload, ..Response::empty(200) }).boxed()
        }
    }
    let (near, mut far) = tokio::io::duplex(1024);
    tokio::spawn(async move { serve(Box::new(near), &Slow, &limits()).await });
    far.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    far.shutdown().await.unwrap();
    let mut all = String::new();
    far.read_to_string(&mut all).await.unwrap();
    assert!(all.ends_with("\r\n\r\nxxx"), "{all}");
}

#[tokio::test]
async fn a_connection_can_be_taken_over_with_what_was_sent_already() {
    let (mut far, served) = connect(limits());
    far.write_all(b"GET /take HTTP/1.1\r\nUpgrade: x\r\n\r\nmore").await.unwrap();
    let mut all = [0; 8];
    far.read_exact(&mut all).await.unwrap();
    assert_eq!(&all, b"raw:more");
    far.write_all(b"!").await.unwrap();
    far.shutdown().await.unwrap();
    let mut rest = String::new();
    far.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "!");
    served.await.unwrap();
}

#[tokio::test]
async fn a_body_is_asked_for_when_the_client_waits_for_that() {
    let (mut far, _served) = connect(limits());
    far.write_all(b"POST / HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n").await.unwrap();
    let mut all = [0; 25];
    far.read_exact(&mut all).await.unwrap();
    assert_eq!(&all, b"HTTP/1.1 100 Continue\r\n\r\n");
    far.write_all(b"hi").await.unwrap();
    let mut rest = String::new();
    far.read_to_string(&mut rest).await.unwrap();
    assert!(rest.ends_with("hi"));
}

#[tokio::test]
async fn a_body_can_be_read_while_the_answer_is_under_way() {
    struct Duplex;
    impl Service for Duplex {
        fn call(&self, request: Request) -> BoxFuture<'static, Response> {
            let echo = futures_util::stream::unfold(request.body, |mut body| async {
                let chunk = body.chunk().await.unwrap()?;
                Some((Ok(chunk), body))
            });
            std::future::ready(Response::stream("text/plain", echo.boxed())).boxed()
        }
    }
    let (near, mut far) = tokio::io::duplex(1024);
    let service = Arc::new(Duplex);
    tokio::spawn(async move { serve(Box::new(near), &*service, &limits()).await });
    far.write_all(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n").await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"2\r\nab\r\n") {
        far.read_buf(&mut seen).await.unwrap();
    }
    far.write_all(b"1\r\nc\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut rest = String::new();
    far.read_to_string(&mut rest).await.unwrap();
    assert!(rest.starts_with("1\r\nc\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n"), "{rest}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_can_have_less_patience_than_others() {
    struct Impatient;
    impl Service for Impatient {
        fn call(&self, _: Request) -> BoxFuture<'static, Response> {
            let patience = Some(Duration::from_secs(30));
            let large = Response::full(200, "text/plain", vec![b'x'; 1 << 20]);
            std::future::ready(Response { patience, ..large }).boxed()
        }
    }
    let (near, mut far) = tokio::io::duplex(1024);
    let begun = tokio::time::Instant::now();
    let served = tokio::spawn(async move { serve(Box::new(near), &Impatient, &Limits::default()).await });
    far.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    served.await.unwrap();
    assert_eq!(begun.elapsed(), Duration::from_secs(30));
}
