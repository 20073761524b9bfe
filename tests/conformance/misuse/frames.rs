//! Frames that are none, requests that name nothing, and payloads that mean nothing. Each gets its answer where one can
//! be given, and other connections live on.

use anyhow::{Context as _, Result, ensure};
use tests::{Code, Frame, RawClient};

use crate::case::{Case, cases};
use crate::world::{DEADLINE, World, expect};

pub(crate) const CASES: &[Case] = cases! {
    Pod "*" Misuse services_and_methods_that_do_not_exist_are_answered;
    Pod "*" Misuse garbage_is_an_invalid_argument_of_every_method;
    Pod "*" Misuse frames_of_other_types_are_passed_over;
    Pod "*" Misuse even_stream_ids_are_refused;
    Pod "*" Misuse a_stream_id_may_be_used_again;
    Pod "*" Misuse a_request_of_four_mebibytes_is_read_and_a_larger_one_refused;
    Pod "*" Misuse a_header_that_promises_more_holds_up_nobody_else;
    Pod "*" Misuse connections_cut_within_a_frame_leave_nothing;
    Pod "*" Misuse noise_is_no_request;
};

/// Largest payload of a frame.
const LARGEST: usize = 4 << 20;
const SERVICE: &str = "grpc.AgentService";

/// Checks that a connection still works.
async fn is_well(client: &mut RawClient, stream: u32) -> Result<()> {
    let (code, text) =
        client.call(&Frame::check(stream)).await.context("the connection is of no use any more")?;
    ensure!(code == Code::OK, "Check: {code:?} {text}");
    Ok(())
}

/// Checks that a new connection works.
async fn agent_is_well(world: &World) -> Result<()> {
    is_well(&mut RawClient::dial(&world.guest).await?, 1).await
}

async fn services_and_methods_that_do_not_exist_are_answered(world: &World) -> Result<()> {
    let before = world.snapshot().await?;
    let mut client = RawClient::dial(&world.guest).await?;
    let cases = [
        (SERVICE, "NoSuchMethod", Code::UNIMPLEMENTED),
        (SERVICE, "", Code::UNIMPLEMENTED),
        (SERVICE, "createcontainer", Code::UNIMPLEMENTED),
        ("grpc.Health", "Watch", Code::UNIMPLEMENTED),
        // The ttrpc library's own answer, as in Kata's agent.
        ("grpc.NoSuchService", "Check", Code::INVALID_ARGUMENT),
        ("AgentService", "CreateContainer", Code::INVALID_ARGUMENT),
        ("", "", Code::INVALID_ARGUMENT),
    ];
    for (number, (service, method, wanted)) in (0..).zip(cases) {
        let frame = Frame::request(2 * number + 1, service, method, Vec::new(), 0);
        let (code, text) = client.call(&frame).await?;
        ensure!(code == wanted, "{service}/{method}: {code:?} {text}");
    }
    is_well(&mut client, 99).await?;
    drop(client);
    world.is_as_before(&before).await
}

async fn garbage_is_an_invalid_argument_of_every_method(world: &World) -> Result<()> {
    let before = world.snapshot().await?;
    // A field longer than what follows, a bad tag, a group that never ends, a varint without an end.
    let garbage: [&[u8]; 4] = [&[0x7a, 0x7f, 0x01], &[0x00, 0x01], &[0x0b, 0x08, 0x01], &[0x08, 0xff, 0xff]];
    let names: Vec<String> = world.methods.iter().map(|method| method.name.clone()).collect();
    for name in names {
        for bytes in garbage {
            let answer = world.send(&name, bytes.to_vec(), DEADLINE.as_nanos() as i64).await?;
            expect(&format!("{name} of {bytes:x?}"), answer, Code::INVALID_ARGUMENT)?;
        }
    }
    // The envelope itself can be garbage too.
    let mut client = RawClient::dial(&world.guest).await?;
    for (number, bytes) in (0..).zip(garbage) {
        let frame = Frame { stream: 2 * number + 1, kind: 1, flags: 0, payload: bytes.to_vec() };
        let (code, text) = client.call(&frame).await?;
        ensure!(code == Code::INVALID_ARGUMENT, "an envelope of {bytes:x?}: {code:?} {text}");
    }
    is_well(&mut client, 99).await?;
    drop(client);
    world.is_as_before(&before).await
}

async fn frames_of_other_types_are_passed_over(world: &World) -> Result<()> {
    let before = world.snapshot().await?;
    let mut client = RawClient::dial(&world.guest).await?;
    for (number, kind) in (0..).zip([0, 2, 4, 255]) {
        let frame = Frame { kind, ..Frame::check(2 * number + 1) };
        client.send(&frame.bytes()).await?;
    }
    is_well(&mut client, 99).await.context("after frames of unknown types")?;
    // Data for a stream that nobody has opened.
    let data = Frame { stream: 101, kind: 3, flags: 0, payload: b"data".to_vec() };
    let (code, text) = client.call(&data).await?;
    ensure!(code == Code::INVALID_ARGUMENT, "data for no stream: {code:?} {text}");
    // Flags of streams mean nothing to a call.
    for (number, flags) in (0..).zip([1, 2, 4, 255]) {
        let (code, text) = client.call(&Frame { flags, ..Frame::check(201 + 2 * number) }).await?;
        ensure!(code == Code::OK, "flags {flags}: {code:?} {text}");
    }
    is_well(&mut client, 301).await?;
    drop(client);
    world.is_as_before(&before).await
}

async fn even_stream_ids_are_refused(world: &World) -> Result<()> {
    let before = world.snapshot().await?;
    let mut client = RawClient::dial(&world.guest).await?;
    for stream in [0, 2, 1000, u32::MAX - 1] {
        let (code, text) = client.call(&Frame::check(stream)).await?;
        ensure!(code == Code::INVALID_ARGUMENT, "stream {stream}: {code:?} {text}");
    }
    is_well(&mut client, u32::MAX).await?;
    drop(client);
    world.is_as_before(&before).await
}

async fn a_stream_id_may_be_used_again(world: &World) -> Result<()> {
    let before = world.snapshot().await?;
    let mut client = RawClient::dial(&world.guest).await?;
    // After its answer, and while another call of the same id waits; falling ids as well.
    for stream in [7, 7, 5] {
        is_well(&mut client, stream).await?;
    }
    let waits = Frame::request(9, SERVICE, "GetOOMEvent", Vec::new(), 300_000_000);
    client.send(&waits.bytes()).await?;
    is_well(&mut client, 9).await?;
    let late = client.receive().await?;
    let (code, text) = late.status()?;
    ensure!(late.stream == 9 && code == Code::DEADLINE_EXCEEDED, "{code:?} {text}");
    is_well(&mut client, 11).await?;
    drop(client);
    world.is_as_before(&before).await
}

async fn a_request_of_four_mebibytes_is_read_and_a_larger_one_refused(world: &World) -> Result<()> {
    let before = world.snapshot().await?;
    let mut client = RawClient::dial(&world.guest).await?;
    let sized = |stream: u32, length: usize| {
        let frame = |fill: usize| Frame::request(stream, "grpc.Health", "Check", long_text(fill), 0);
        // What the envelope itself takes, its lengths being of four bytes.
        let around = frame(length / 2).payload.len() - long_text(length / 2).len();
        frame(length - around - (long_text(length / 2).len() - length / 2))
    };
    let largest = sized(1, LARGEST);
    ensure!(largest.payload.len() == LARGEST, "the test has made {} bytes", largest.payload.len());
    let (code, text) = client.call(&largest).await?;
    ensure!(code == Code::OK, "4 MiB: {code:?} {text}");
    let (code, text) = client.call(&sized(3, LARGEST + 1)).await?;
    ensure!(code == Code::INVALID_ARGUMENT || code == Code::RESOURCE_EXHAUSTED, "4 MiB + 1: {code:?} {text}");
    let (code, text) = client.call(&sized(5, 3 * LARGEST)).await?;
    ensure!(code == Code::INVALID_ARGUMENT || code == Code::RESOURCE_EXHAUSTED, "12 MiB: {code:?} {text}");
    is_well(&mut client, 7).await?;
    drop(client);
    world.is_as_before(&before).await
}

/// A CheckRequest with a service name of so many bytes.
fn long_text(length: usize) -> Vec<u8> {
    let request = protocols::health::CheckRequest { service: "s".repeat(length), ..Default::default() };
    protobuf::Message::write_to_bytes(&request).expect("no required fields")
}

async fn a_header_that_promises_more_holds_up_nobody_else(world: &World) -> Result<()> {
    let before = world.snapshot().await?;
    let mut silent = Vec::new();
    for length in [100, LARGEST as u32, LARGEST as u32 + 1, u32::MAX] {
        for follows in [0, 50] {
            let mut client = RawClient::dial(&world.guest).await?;
            client.send(&Frame::header(length, 1, 1, 0)).await?;
            client.send(&vec![0x0a; follows]).await?;
            silent.push(client);
        }
    }
    // Within a header too.
    let mut client = RawClient::dial(&world.guest).await?;
    client.send(&[0, 0, 0]).await?;
    silent.push(client);
    for _ in 0..3 {
        agent_is_well(world).await.context("while others are silent")?;
    }
    ensure!(world.shared().await?.sh("echo alive").await? == "alive");
    drop(silent);
    world.is_as_before(&before).await
}

async fn connections_cut_within_a_frame_leave_nothing(world: &World) -> Result<()> {
    let before = world.snapshot().await?;
    let whole = Frame::check(1).bytes();
    for length in 0..whole.len() {
        let mut client = RawClient::dial(&world.guest).await?;
        client.send(&whole[..length]).await?;
    }
    agent_is_well(world).await?;
    world.is_as_before(&before).await
}

async fn noise_is_no_request(world: &World) -> Result<()> {
    let before = world.snapshot().await?;
    // The same noise each time: a failure can be looked into.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..20 {
        let mut client = RawClient::dial(&world.guest).await?;
        let noise: Vec<u8> = (0..4096)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state as u8
            })
            .collect();
        client.send(&noise).await?;
        client.vanish().await?;
    }
    // Payloads of noise in good frames are answered.
    let mut client = RawClient::dial(&world.guest).await?;
    let frame = Frame { stream: 1, kind: 1, flags: 0, payload: b"GET / HTTP/1.1\r\n\r\n".to_vec() };
    let (code, text) = client.call(&frame).await?;
    ensure!(code == Code::INVALID_ARGUMENT, "{code:?} {text}");
    drop(client);
    agent_is_well(world).await?;
    world.is_as_before(&before).await
}
