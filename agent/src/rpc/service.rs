//! The AgentService: every method of the API, each one line. What this guest does not have answers UNIMPLEMENTED; the
//! generated default would answer NOT_FOUND, which shims take for "the process is gone".

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use protocols::agent_ttrpc::AgentService;
use protocols::{Empty, agent, csi, types};
use ttrpc::r#async::TtrpcContext;

use super::api::Api;
use super::status::Failure;
use super::{container, guest, memory, network, policy, process, sandbox};
use crate::guest::swap::SwapSource;

/// See the module.
pub(super) struct Service {
    api: Arc<Api>,
}

impl Service {
    pub(super) fn new(api: Arc<Api>) -> Service {
        Service { api }
    }

    fn api(&self) -> Arc<Api> {
        Arc::clone(&self.api)
    }
}

fn empty((): ()) -> Empty {
    Empty::new()
}

/// For work that must be finished once it is begun: ttrpc drops a handler when its client goes away or its deadline
/// passes, so the work gets a task of its own. A panic there is an answer, never silence.
async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> ttrpc::Result<T> {
    match tokio::spawn(work).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(Failure::internal("the call panicked").into()),
    }
}

/// For calls that may be dropped at any await: they wait for a process or a stream, or only read.
async fn inline<T>(work: impl Future<Output = Result<T, Failure>>) -> ttrpc::Result<T> {
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(result) => Ok(result?),
        Err(_) => Err(Failure::internal("the call panicked").into()),
    }
}

#[async_trait]
impl AgentService for Service {
    async fn create_container(
        &self,
        _: &TtrpcContext,
        request: agent::CreateContainerRequest,
    ) -> ttrpc::Result<Empty> {
        let api = self.api();
        detached(async move { container::create(&api.pod, request).await.map(empty) }).await
    }

    async fn start_container(
        &self,
        _: &TtrpcContext,
        request: agent::StartContainerRequest,
    ) -> ttrpc::Result<Empty> {
        let api = self.api();
        detached(async move { container::start(&api.pod, &request.container_id).await.map(empty) }).await
    }

    async fn remove_container(
        &self,
        _: &TtrpcContext,
        request: agent::RemoveContainerRequest,
    ) -> ttrpc::Result<Empty> {
        let api = self.api();
        detached(async move { container::remove(&api.pod, request).await.map(empty) }).await
    }

    async fn exec_process(
        &self,
        _: &TtrpcContext,
        request: agent::ExecProcessRequest,
    ) -> ttrpc::Result<Empty> {
        let api = self.api();
        detached(async move { container::exec(&api.pod, request).await.map(empty) }).await
    }

    async fn signal_process(
        &self,
        _: &TtrpcContext,
        request: agent::SignalProcessRequest,
    ) -> ttrpc::Result<Empty> {
        let api = self.api();
        detached(async move { process::signal(&api.pod, request).await.map(empty) }).await
    }

    async fn wait_process(
        &self,
        _: &TtrpcContext,
        request: agent::WaitProcessRequest,
    ) -> ttrpc::Result<agent::WaitProcessResponse> {
        let api = self.api();
        inline(async move { process::wait(&api.pod, request).await }).await
    }

    async fn update_container(
        &self,
        _: &TtrpcContext,
        request: agent::UpdateContainerRequest,
    ) -> ttrpc::Result<Empty> {
        let api = self.api();
        detached(async move { container::update(&api.pod, request).await.map(empty) }).await
    }

    async fn update_ephemeral_mounts(
        &self,
        _: &TtrpcContext,
        request: agent::UpdateEphemeralMountsRequest,
    ) -> ttrpc::Result<Empty> {
        let api = self.api();
        detached(async move { sandbox::update_storages(Arc::clone(&api.tools), request).await.map(empty) })
            .await
    }

    async fn stats_container(
        &self,
        _: &TtrpcContext,
        request: agent::StatsContainerRequest,
    ) -> ttrpc::Result<agent::StatsContainerResponse> {
        let api = self.api();
        inline(async move { container::stats(&api.pod, &request.container_id).await }).await
    }

    async fn pause_container(
        &self,
        _: &TtrpcContext,
        request: agent::PauseContainerRequest,
    ) -> ttrpc::Result<Empty> {
        let api = self.api();
        detached(async move { container::pause(&api.pod, &request.container_id).await.map(empty) }).await
    }

    async fn resume_container(
        &self,
        _: &TtrpcContext,
        request: agent::ResumeContainerRequest,
    ) -> ttrpc::Result<Empty> {
        let api = self.api();
        detached(async move { container::resume(&api.pod, &request.container_id).await.map(empty) }).await
    }

    async fn remove_stale_virtiofs_share_mounts(
        &self,
        _: &TtrpcContext,
        _: agent::RemoveStaleVirtiofsShareMountsRequest,
    ) -> ttrpc::Result<Empty> {
        let api = self.api();
        detached(async move { sandbox::touch_shares(Arc::clone(&api.tools)).await.map(empty) }).await
    }

    async fn get_diagnostic_data(
        &self,
        _: &TtrpcContext,
        request: agent::GetDiagnosticDataRequest,
    ) -> ttrpc::Result<agent::GetDiagnosticDataResponse> {
        let api = self.api();
        inline(async move { container::diagnostics(&api.pod, request).await }).await
    }

    async fn write_stdin(
        &self,
        _: &TtrpcContext,
        request: agent::WriteStreamRequest,
    ) -> ttrpc::Result<agent::WriteStreamResponse> {
        let api = self.api();
        inline(async move { process::write_stdin(&api.pod, request).await }).await
    }

    async fn read_stdout(
        &self,
        _: &TtrpcContext,
        request: agent::ReadStreamRequest,
    ) -> ttrpc::Result<agent::ReadStreamResponse> {
        let api = self.api();
        inline(async move { process::read_stdout(&api, request).await }).await
    }

    async fn read_stderr(
        &self,
        _: &TtrpcContext,
        request: agent::ReadStreamRequest,
    ) -> ttrpc::Result<agent::ReadStreamResponse> {
        let api = self.api();
        inline(async move { process::read_stderr(&api, request).await }).await
    }

    async fn close_stdin(&self, _: &TtrpcContext, request: agent::CloseStdinRequest) -> ttrpc::Result<Empty> {
        let api = self.api();
        inline(async move { process::close_stdin(&api.pod, request).await.map(empty) }).await
    }

    async fn tty_win_resize(
        &self,
        _: &TtrpcContext,
        request: agent::TtyWinResizeRequest,
    ) -> ttrpc::Result<Empty> {
        let api = self.api();
        inline(async move { process::resize(&api.pod, &request).map(empty) }).await
    }

    async fn update_interface(
        &self,
        _: &TtrpcContext,
        request: agent::UpdateInterfaceRequest,
    ) -> ttrpc::Result<types::Interface> {
        let api = self.api();
        detached(async move { network::update_interface(&api.network, request).await }).await
    }

    async fn update_routes(
        &self,
        _: &TtrpcContext,
        request: agent::UpdateRoutesRequest,
    ) -> ttrpc::Result<agent::Routes> {
        let api = self.api();
        detached(async move { network::update_routes(&api.network, request).await }).await
    }

    async fn list_interfaces(
        &self,
        _: &TtrpcContext,
        _: agent::ListInterfacesRequest,
    ) -> ttrpc::Result<agent::Interfaces> {
        let api = self.api();
        inline(async move { network::list_interfaces(&api.network).await }).await
    }

    async fn list_routes(
        &self,
        _: &TtrpcContext,
        _: agent::ListRoutesRequest,
    ) -> ttrpc::Result<agent::Routes> {
        let api = self.api();
        inline(async move { network::list_routes(&api.network).await }).await
    }

    async fn add_arp_neighbors(
        &self,
        _: &TtrpcContext,
        request: agent::AddARPNeighborsRequest,
    ) -> ttrpc::Result<Empty> {
        let api = self.api();
        detached(async move { network::add_neighbours(&api.network, request).await.map(empty) }).await
    }

    async fn get_ip_tables(
        &self,
        _: &TtrpcContext,
        request: agent::GetIPTablesRequest,
    ) -> ttrpc::Result<agent::GetIPTablesResponse> {
        let api = self.api();
        inline(async move { network::get_iptables(&api.tools.commands, request).await }).await
    }

    async fn set_ip_tables(
        &self,
        _: &TtrpcContext,
        request: agent::SetIPTablesRequest,
    ) -> ttrpc::Result<agent::SetIPTablesResponse> {
        let api = self.api();
        detached(async move { network::set_iptables(&api.tools.commands, request).await }).await
    }

    async fn get_metrics(
        &self,
        _: &TtrpcContext,
        _: agent::GetMetricsRequest,
    ) -> ttrpc::Result<agent::Metrics> {
        let api = self.api();
        inline(async move { guest::metrics(api).await }).await
    }

    async fn mem_agent_memcg_set(
        &self,
        _: &TtrpcContext,
        request: agent::MemAgentMemcgConfig,
    ) -> ttrpc::Result<Empty> {
        Ok(memory::reclaim(&self.api.mem_agent, &request).map(empty)?)
    }

    async fn mem_agent_compact_set(
        &self,
        _: &TtrpcContext,
        request: agent::MemAgentCompactConfig,
    ) -> ttrpc::Result<Empty> {
        Ok(memory::compaction(&self.api.mem_agent, &request).map(empty)?)
    }

    async fn create_sandbox(
        &self,
        _: &TtrpcContext,
        request: agent::CreateSandboxRequest,
    ) -> ttrpc::Result<Empty> {
        let api = self.api();
        detached(async move { sandbox::create(&api.pod, request).await.map(empty) }).await
    }

    async fn destroy_sandbox(
        &self,
        _: &TtrpcContext,
        _: agent::DestroySandboxRequest,
    ) -> ttrpc::Result<Empty> {
        let api = self.api();
        detached(async move { sandbox::destroy(&api.pod).await.map(empty) }).await
    }

    async fn online_cpu_mem(
        &self,
        _: &TtrpcContext,
        request: agent::OnlineCPUMemRequest,
    ) -> ttrpc::Result<Empty> {
        let api = self.api();
        detached(async move { guest::online(api, request).await.map(empty) }).await
    }

    async fn reseed_random_dev(
        &self,
        _: &TtrpcContext,
        request: agent::ReseedRandomDevRequest,
    ) -> ttrpc::Result<Empty> {
        inline(async move { guest::reseed(request).await.map(empty) }).await
    }

    async fn get_guest_details(
        &self,
        _: &TtrpcContext,
        request: agent::GuestDetailsRequest,
    ) -> ttrpc::Result<agent::GuestDetailsResponse> {
        inline(async move { guest::details(request).await }).await
    }

    async fn mem_hotplug_by_probe(
        &self,
        _: &TtrpcContext,
        request: agent::MemHotplugByProbeRequest,
    ) -> ttrpc::Result<Empty> {
        let api = self.api();
        detached(async move { guest::probe_memory(Arc::clone(&api.tools), request).await.map(empty) }).await
    }

    async fn set_guest_date_time(
        &self,
        _: &TtrpcContext,
        request: agent::SetGuestDateTimeRequest,
    ) -> ttrpc::Result<Empty> {
        let api = self.api();
        inline(async move { guest::set_clock(&api.clock, &request).map(empty) }).await
    }

    async fn copy_file(&self, _: &TtrpcContext, request: agent::CopyFileRequest) -> ttrpc::Result<Empty> {
        let api = self.api();
        detached(async move { guest::copy_file(api, request).await.map(empty) }).await
    }

    async fn get_oom_event(
        &self,
        _: &TtrpcContext,
        _: agent::GetOOMEventRequest,
    ) -> ttrpc::Result<agent::OOMEvent> {
        let api = self.api();
        inline(async move { container::oom_event(&api.pod, &api.tools).await }).await
    }

    async fn add_swap(&self, _: &TtrpcContext, request: agent::AddSwapRequest) -> ttrpc::Result<Empty> {
        let api = self.api();
        detached(async move { guest::add_swap(api, SwapSource::Pci(request.PCIPath)).await.map(empty) }).await
    }

    async fn add_swap_path(
        &self,
        _: &TtrpcContext,
        request: agent::AddSwapPathRequest,
    ) -> ttrpc::Result<Empty> {
        let api = self.api();
        detached(async move { guest::add_swap(api, SwapSource::Path(request.path.into())).await.map(empty) })
            .await
    }

    async fn get_volume_stats(
        &self,
        _: &TtrpcContext,
        request: agent::VolumeStatsRequest,
    ) -> ttrpc::Result<csi::VolumeStatsResponse> {
        inline(async move { guest::volume_stats(request.volume_guest_path.into()).await }).await
    }

    async fn resize_volume(
        &self,
        _: &TtrpcContext,
        request: agent::ResizeVolumeRequest,
    ) -> ttrpc::Result<Empty> {
        let api = self.api();
        detached(async move { guest::resize_volume(api, request).await.map(empty) }).await
    }

    async fn set_policy(&self, _: &TtrpcContext, request: agent::SetPolicyRequest) -> ttrpc::Result<Empty> {
        let api = self.api();
        detached(async move { policy::set(&api, request).await.map(empty) }).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ttrpc::Code;

    fn code<T: std::fmt::Debug>(result: ttrpc::Result<T>) -> Code {
        match result {
            Err(ttrpc::Error::RpcStatus(status)) => status.code(),
            other => panic!("no status: {other:?}"),
        }
    }

    #[tokio::test]
    async fn a_panic_is_an_answer() {
        let panics = || async { if true { panic!("a bug") } else { Ok(()) } };
        assert_eq!(code(detached(panics()).await), Code::INTERNAL);
        assert_eq!(code(inline(panics()).await), Code::INTERNAL);
    }

    #[tokio::test]
    async fn detached_work_outlives_its_caller() {
        let (told, heard) = tokio::sync::oneshot::channel();
        let work = async move {
            tokio::task::yield_now().await;
            told.send(()).map_err(|()| Failure::internal("nobody hears"))
        };
        let call = tokio::spawn(detached(work));
        tokio::task::yield_now().await;
        call.abort();
        heard.await.expect("the work was dropped with its caller");
    }
}
