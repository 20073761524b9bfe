//! Kernel modules that CreateSandbox asks for.

use anyhow::Result;
use machine::vm::AgentClient;
use protocols::agent::{CreateSandboxRequest, KernelModule, Storage};
use tests::{Code, Guest, expect_code};

use crate::console::Console;

fn request(modules: &[(&str, &[&str])]) -> CreateSandboxRequest {
    let modules = modules.iter().map(|(name, parameters)| KernelModule {
        name: (*name).into(),
        parameters: parameters.iter().map(|text| (*text).to_owned()).collect(),
        ..Default::default()
    });
    CreateSandboxRequest { sandbox_id: "pod".into(), kernel_modules: modules.collect(), ..Default::default() }
}

async fn create(guest: &Guest, request: &CreateSandboxRequest) -> ttrpc::Result<()> {
    guest.api().create_sandbox(AgentClient::call(), request).await.map(drop)
}

#[tokio::test]
async fn a_module_that_is_built_in_is_there_and_takes_its_parameters() -> Result<()> {
    let guest = Guest::boot().await?;
    // A parameter that only the kernel's command line sets is no failure.
    create(&guest, &request(&[("printk", &["time=N", "no_such_parameter=1"])])).await?;
    let container = guest.container("c1").run().await?;
    assert_eq!(container.sh("cat /sys/module/printk/parameters/time").await?, "N");
    let console = guest.vm().console_log();
    assert!(console.contains("no_such_parameter"), "{console}");
    Ok(())
}

#[tokio::test]
async fn a_module_that_is_not_there_is_refused_and_leaves_nothing_behind() -> Result<()> {
    let guest = Guest::boot().await?;
    let printk: (&str, &[&str]) = ("printk", &["time=N"]);
    let text =
        expect_code(create(&guest, &request(&[printk, ("no-such-module", &[])])).await, Code::UNIMPLEMENTED);
    assert!(text.contains("\"no-such-module\"") && text.contains("/sbin/modprobe"), "{text}");
    for bad in
        [("", &[][..]), ("-r", &[]), ("../printk", &[]), ("printk", &["../x=1"]), ("printk", &["time=maybe"])]
    {
        expect_code(create(&guest, &request(&[printk, bad])).await, Code::INVALID_ARGUMENT);
    }
    // Nor does a failure after the modules.
    let mut storage = request(&[printk]);
    storage.storages.push(Storage { driver: "no-such-driver".into(), ..Default::default() });
    expect_code(create(&guest, &storage).await, Code::INVALID_ARGUMENT);
    guest.sandbox().await?;
    let container = guest.container("c1").run().await?;
    assert_eq!(container.sh("cat /sys/module/printk/parameters/time").await?, "Y");
    // A sandbox that exists already loads nothing for another one.
    expect_code(create(&guest, &request(&[printk])).await, Code::ALREADY_EXISTS);
    assert_eq!(container.sh("cat /sys/module/printk/parameters/time").await?, "Y");
    Ok(())
}

#[tokio::test]
async fn a_guest_with_modprobe_loads_and_unloads() -> Result<()> {
    let guest = Guest::builder().flavour("debug").cmdline(&["agent.debug_console"]).boot().await?;
    let mut console = Console::open(&guest).await?;
    // One that notes what it is asked for, and refuses one module: this kernel loads none.
    let script = "#!/bin/sh\\necho \"$*\" >> /run/modprobe.log\\n\
        [ \"$3\" != refused ] || { echo no such luck >&2; exit 1; }\\n";
    console
        .run(&format!("mkdir -p /sbin; printf '{script}' > /sbin/modprobe; chmod 755 /sbin/modprobe"))
        .await?;
    let text = expect_code(
        create(&guest, &request(&[("wanted", &["a=1", "b=x y"]), ("refused", &[])])).await,
        Code::INTERNAL,
    );
    assert!(text.contains("\"refused\"") && text.contains("no such luck"), "{text}");
    let log = console.run("cat /run/modprobe.log").await?;
    assert!(log.contains("-v -- wanted a=1 b=x y\r\n-v -- refused\r\n-r -- wanted\r\n"), "{log}");
    create(&guest, &request(&[("wanted", &[])])).await?;
    assert!(console.run("tail -n 1 /run/modprobe.log").await?.contains("-v -- wanted\r\n"));
    Ok(())
}
