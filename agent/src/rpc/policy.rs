//! SetPolicy, and the gate that every call of the AgentService passes first. Both exist in agents that are built with
//! the feature `policy`; in others there is no gate, and SetPolicy says why it does nothing.
//!
//! Health has no gate, as in other agents of this API: a shim must see that a guest lives before it can send a policy.

#[cfg(feature = "policy")]
mod gate;
#[cfg(feature = "policy")]
mod input;

use protocols::agent::SetPolicyRequest;

use super::api::Api;
use super::status::Failure;

#[cfg(feature = "policy")]
pub(super) use gate::gated;

/// What GetGuestDetails calls this feature.
pub(super) fn feature() -> Option<String> {
    cfg!(feature = "policy").then(|| "agent-policy".to_owned())
}

#[cfg(feature = "policy")]
pub(super) async fn set(api: &Api, request: SetPolicyRequest) -> Result<(), Failure> {
    Ok(api.policy.set(request.policy).await?)
}

#[cfg(not(feature = "policy"))]
pub(super) async fn set(_: &Api, _: SetPolicyRequest) -> Result<(), Failure> {
    Err(Failure::unsupported("this agent is built without the feature `policy`, so there is no SetPolicy"))
}
