//! Processes and their streams.

use std::sync::Arc;

use protocols::agent::{
    CloseStdinRequest, ReadStreamRequest, ReadStreamResponse, SignalProcessRequest, TtyWinResizeRequest,
    WaitProcessRequest, WaitProcessResponse, WriteStreamRequest, WriteStreamResponse,
};

use super::Api;
use super::status::Failure;
use crate::container::ContainerError;
use crate::listen::LARGEST_WRITE;
use crate::pod::Pod;
use crate::process::Process;
use crate::process::stdio::{STDERR, STDOUT};

/// Most bytes in one answer, well below a message's 4 MiB.
const MOST: u32 = 1 << 20;

fn find(pod: &Pod, container: &str, exec: &str) -> Result<Arc<Process>, Failure> {
    Ok(pod.container(container)?.process(exec)?)
}

pub(super) async fn signal(pod: &Pod, request: SignalProcessRequest) -> Result<(), Failure> {
    let container = pod.container(&request.container_id)?;
    Ok(container.signal(&request.exec_id, request.signal).await?)
}

pub(super) async fn wait(pod: &Pod, request: WaitProcessRequest) -> Result<WaitProcessResponse, Failure> {
    let process = find(pod, &request.container_id, &request.exec_id)?;
    let status = process.wait().await.map_err(ContainerError::from)?;
    Ok(WaitProcessResponse { status, ..Default::default() })
}

pub(super) async fn read_stdout(
    api: &Api,
    request: ReadStreamRequest,
) -> Result<ReadStreamResponse, Failure> {
    let process = find(&api.pod, &request.container_id, &request.exec_id)?;
    process.stdio.expect_served(STDOUT)?;
    let reading = api.tools.unread.reading();
    let data = process.stdio.read_stdout(reading.most(length(&request))).await;
    Ok(ReadStreamResponse { data, ..Default::default() })
}

pub(super) async fn read_stderr(
    api: &Api,
    request: ReadStreamRequest,
) -> Result<ReadStreamResponse, Failure> {
    let process = find(&api.pod, &request.container_id, &request.exec_id)?;
    process.stdio.expect_served(STDERR)?;
    let reading = api.tools.unread.reading();
    let data = process.stdio.read_stderr(reading.most(length(&request))).await;
    Ok(ReadStreamResponse { data, ..Default::default() })
}

/// Bytes of an answer beside the output that it carries, at most: ttrpc's header, its status, and the lengths.
const AROUND: usize = 64;

/// An empty answer means the end, so no answer before it may be empty: at least a byte is read. And no more than fills whole
/// writes: the rest would be a packet of its own.
fn length(request: &ReadStreamRequest) -> usize {
    let asked = request.len.clamp(1, MOST) as usize;
    match (asked + AROUND) / LARGEST_WRITE {
        0 => asked,
        writes => asked.min(writes * LARGEST_WRITE - AROUND),
    }
}

pub(super) async fn write_stdin(
    pod: &Pod,
    request: WriteStreamRequest,
) -> Result<WriteStreamResponse, Failure> {
    let process = find(pod, &request.container_id, &request.exec_id)?;
    let len = request.data.len() as u32;
    if request.data.is_empty() {
        // COMPAT(kata): `an_empty_write_closes_stdin`. It is how runtime-rs says that there is no more.
        process.stdio.close_stdin().await;
    } else {
        process.stdio.write(request.data).await?;
    }
    Ok(WriteStreamResponse { len, ..Default::default() })
}

pub(super) async fn close_stdin(pod: &Pod, request: CloseStdinRequest) -> Result<(), Failure> {
    find(pod, &request.container_id, &request.exec_id)?.stdio.close_stdin().await;
    Ok(())
}

pub(super) fn resize(pod: &Pod, request: &TtyWinResizeRequest) -> Result<(), Failure> {
    let cells = |count: u32, what: &str| {
        u16::try_from(count).map_err(|_| Failure::invalid(format!("{count} {what} are more than 65535")))
    };
    let (rows, columns) = (cells(request.row, "rows")?, cells(request.column, "columns")?);
    Ok(find(pod, &request.container_id, &request.exec_id)?.stdio.resize(rows, columns)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_fills_whole_writes() {
        let of = |len| length(&ReadStreamRequest { len, ..Default::default() });
        assert_eq!([0, 1, 100, 28_000].map(of), [1, 1, 100, 28_000]);
        // What shims ask for.
        assert_eq!(of(32 << 10), LARGEST_WRITE - AROUND);
        for asked in [1 << 20, 4 << 20, u32::MAX] {
            let most = of(asked);
            assert!(most <= MOST as usize && most + LARGEST_WRITE > MOST as usize);
            assert_eq!((most + AROUND) % LARGEST_WRITE, 0);
        }
    }
}
