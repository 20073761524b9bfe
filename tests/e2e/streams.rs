//! Standard streams and terminals: nothing lost, ends where they belong.

use anyhow::Result;
use tests::{Code, Guest, expect_code};

/// Bytes that differ from their neighbours, so that a loss or a swap shows.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n % 251) as u8 ^ (n / 251 % 256) as u8).collect()
}

#[tokio::test]
async fn eight_mebibytes_go_through_cat_and_come_back_the_same() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let container = guest.container("c1").run().await?;
    let data = pattern(8 << 20);
    let finished = container.exec(["cat"]).stdin(data.clone()).run().await?;
    assert_eq!(finished.status, 0);
    assert_eq!(finished.stdout.len(), data.len());
    assert!(finished.stdout == data, "the bytes differ");
    Ok(())
}

#[tokio::test]
async fn output_of_a_process_that_ends_at_once_is_complete() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let script = "dd if=/dev/zero bs=1M count=16 2>/dev/null; echo end >&2";
    let finished = guest.container("c1").script(script).run().await?.output().await?;
    assert_eq!((finished.status, finished.stdout.len()), (0, 16 << 20));
    assert_eq!(finished.stderr, b"end\n");
    Ok(())
}

#[tokio::test]
async fn output_stays_readable_after_the_wait() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let container = guest.container("c1").script("echo out; echo err >&2; exit 2").run().await?;
    assert_eq!(container.wait().await?, 2);
    let finished = container.output().await?;
    assert_eq!((finished.stdout.as_slice(), finished.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
    Ok(())
}

#[tokio::test]
async fn a_grandchild_that_holds_stdout_does_not_keep_its_end_away() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let container = guest.container("c1").run().await?;
    let finished = container.exec(["sh", "-c", "sleep 1000 & echo started"]).run().await?;
    assert_eq!((finished.status, finished.stdout.as_slice()), (0, &b"started\n"[..]));
    Ok(())
}

#[tokio::test]
async fn an_empty_write_closes_stdin() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let container = guest.container("c1").run().await?;
    let cat = container.exec(["cat"]).start().await?;
    assert_eq!(cat.write(b"last").await?, 4);
    assert_eq!(cat.write(b"").await?, 0);
    let finished = cat.finish().await?;
    assert_eq!((finished.status, finished.stdout.as_slice()), (0, &b"last"[..]));
    Ok(())
}

#[tokio::test]
async fn a_terminal_has_a_name_a_size_and_echo() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let container = guest.container("c1").run().await?;
    let shell = container.exec(["sh"]).terminal().start().await?;
    shell.resize(33, 99).await?;
    shell.write(b"stty size; tty; test -t 2 && echo all $((1 + 2))\n").await?;
    let text = shell.read_until("all 3\r\n").await?;
    assert!(text.contains("33 99"), "{text}");
    assert!(text.contains("/dev/pts/"), "{text}");
    shell.resize(44, 111).await?;
    shell.write(b"stty size\n").await?;
    shell.read_until("44 111").await?;
    shell.write(b"exit 6\n").await?;
    assert_eq!(shell.finish().await?.status, 6);
    Ok(())
}

#[tokio::test]
async fn a_terminals_end_of_input_is_typed_and_its_output_kept() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let container = guest.container("c1").run().await?;
    let cat = container.exec(["cat"]).terminal().start().await?;
    cat.write(b"words\n").await?;
    cat.read_until("words\r\nwords\r\n").await?;
    cat.close_stdin().await?;
    assert_eq!(cat.finish().await?.status, 0);
    Ok(())
}

#[tokio::test]
async fn an_init_with_a_terminal_has_a_console() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let builder = guest.container("c1").terminal().process(|process| {
        let size = protocols::oci::Box { Height: 20, Width: 70, ..Default::default() };
        process.ConsoleSize = protobuf::MessageField::some(size);
    });
    let container =
        builder.script("stty size; tty; echo to the console > /dev/console; sleep 1000").run().await?;
    let text = container.init().read_until("to the console").await?;
    assert!(text.contains("20 70"), "{text}");
    Ok(())
}

#[tokio::test]
async fn resizing_what_is_no_terminal_is_unavailable() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let container = guest.container("c1").run().await?;
    let text = expect_code(container.init().resize(1, 1).await, Code::UNAVAILABLE);
    assert_eq!(text, "no tty");
    Ok(())
}

#[tokio::test]
async fn a_reader_that_goes_away_takes_no_bytes_with_it() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let container = guest.container("c1").run().await?;
    let cat = container.exec(["cat"]).start().await?;
    let other = guest.vm().client().await?;
    let reader = cat.over(&other);
    let abandoned = tokio::spawn(async move { reader.read(100).await });
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    abandoned.abort();
    drop(abandoned.await);
    drop(other);
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    cat.write(b"for the one who stays").await?;
    assert_eq!(cat.read(100).await?, b"for the one who stays");
    Ok(())
}
