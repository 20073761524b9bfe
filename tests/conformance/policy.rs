//! SetPolicy, and the gate before every call.

use anyhow::{Result, ensure};
use protocols::agent::*;
use tests::Code;

use crate::case::{Case, cases};
use crate::world::World;

pub(crate) const CASES: &[Case] = cases! {
    Policy "SetPolicy" Success a_policy_allows_and_denies_call_by_call;
    Policy "SetPolicy" Failure a_policy_that_is_no_rego_changes_nothing;
    Bare "SetPolicy" Failure an_agent_without_policies_says_so;
};

fn policy(text: &str) -> SetPolicyRequest {
    SetPolicyRequest { policy: text.into(), ..Default::default() }
}

/// Allows everything but `denied`.
fn rules(denied: &str) -> String {
    let all = crate::api::methods();
    let mut names: Vec<&str> = all.iter().map(|method| method.input.name()).collect();
    names.sort_unstable();
    names.dedup();
    names.iter().fold(String::from("package agent_policy\n\n"), |text, name| {
        text + &format!("default {name} := {}\n", *name != denied)
    })
}

async fn a_policy_allows_and_denies_call_by_call(world: &World) -> Result<()> {
    world.done("SetPolicy", &policy(&rules("ListRoutesRequest"))).await?;
    let _: Interfaces = world.ok("ListInterfaces", &ListInterfacesRequest::new()).await?;
    let text = world.refused("ListRoutes", &ListRoutesRequest::new(), Code::PERMISSION_DENIED).await?;
    ensure!(text.contains("ListRoutesRequest is blocked by policy"), "{text}");
    world.done("SetPolicy", &policy(&rules(""))).await?;
    let _: Routes = world.ok("ListRoutes", &ListRoutesRequest::new()).await?;
    Ok(())
}

async fn a_policy_that_is_no_rego_changes_nothing(world: &World) -> Result<()> {
    world.done("SetPolicy", &policy(&rules("ListRoutesRequest"))).await?;
    world.refused("SetPolicy", &policy("this is no Rego {"), Code::INVALID_ARGUMENT).await?;
    world.refused("ListRoutes", &ListRoutesRequest::new(), Code::PERMISSION_DENIED).await?;
    world.done("SetPolicy", &policy(&rules(""))).await
}

async fn an_agent_without_policies_says_so(world: &World) -> Result<()> {
    let text = world.refused("SetPolicy", &policy(&rules("")), Code::UNIMPLEMENTED).await?;
    ensure!(text.to_lowercase().contains("policy"), "{text}");
    Ok(())
}
