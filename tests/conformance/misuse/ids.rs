//! Ids that are empty, unknown, too long, or paths, in every method that takes one. The methods are found by their
//! fields.

use anyhow::{Context as _, Result, ensure};
use protobuf::Message as _;
use tests::Code;

use crate::api::Method;
use crate::case::{Case, cases};
use crate::containers::creation;
use crate::processes::exec;
use crate::world::{Answer, DEADLINE, World, expect};

pub(crate) const CASES: &[Case] = cases! {
    Pod "*" Misuse no_method_takes_a_bad_container_id;
    Pod "*" Misuse no_method_takes_a_bad_exec_id;
    Pod "*" Misuse a_long_id_is_as_good_as_any;
};

/// No id of a container or process can be one of these.
fn bad() -> Vec<(&'static str, String)> {
    vec![
        ("a slash", "a/b".into()),
        ("a slash first", "/etc".into()),
        ("dots", "..".into()),
        ("a climb", "../../etc".into()),
        ("300 characters", "a".repeat(300)),
        ("a NUL", "a\0b".into()),
        ("a line's end", "ab\n".into()),
        ("a space", "a b".into()),
        ("a dash first", "-ab".into()),
    ]
}

/// A request that only lacks its ids.
fn rest(world: &World, method: &Method) -> Result<Vec<u8>> {
    let bytes = match method.name.as_str() {
        "CreateContainer" => creation(world, "other").write_to_bytes()?,
        "ExecProcess" => exec("", "other", &["true"]).write_to_bytes()?,
        "GetDiagnosticData" => method.request(&[], &[("log_type", "termination_log")])?,
        _ => Vec::new(),
    };
    Ok(bytes)
}

async fn call(world: &World, method: &Method, texts: &[(&str, &str)]) -> Result<Answer> {
    let request = method.request(&rest(world, method)?, texts)?;
    world.send(&method.name, request, DEADLINE.as_nanos() as i64).await
}

async fn no_method_takes_a_bad_container_id(world: &World) -> Result<()> {
    let before = world.snapshot().await?;
    let methods: Vec<&Method> = world.methods.iter().filter(|method| method.takes("container_id")).collect();
    ensure!(methods.len() > 10, "{} methods take a container id", methods.len());
    for method in methods {
        let mut ids = bad();
        ids.push(("nothing", String::new()));
        let creates = method.name == "CreateContainer";
        if !creates {
            ids.push(("nobody", "nobody".into()));
        }
        for (what, id) in ids {
            // Who looks for a container finds none of that name; who makes one is told that it is no name.
            let code = if creates { Code::INVALID_ARGUMENT } else { Code::NOT_FOUND };
            let answer = call(world, method, &[("container_id", &id)]).await?;
            expect(&format!("{} with {what} as container id", method.name), answer, code)?;
        }
    }
    world.is_as_before(&before).await
}

async fn no_method_takes_a_bad_exec_id(world: &World) -> Result<()> {
    let container = world.shared().await?.id().to_owned();
    let before = world.snapshot().await?;
    let methods: Vec<&Method> = world
        .methods
        .iter()
        .filter(|method| method.takes("exec_id") && method.name != "CreateContainer")
        .collect();
    ensure!(methods.len() > 5, "{} methods take an exec id", methods.len());
    for method in methods {
        let mut ids = bad();
        let creates = method.name == "ExecProcess";
        // For the others the empty id is the first process.
        ids.push(if creates { ("nothing", String::new()) } else { ("nobody", "nobody".into()) });
        for (what, id) in ids {
            let code = if creates { Code::INVALID_ARGUMENT } else { Code::NOT_FOUND };
            let answer = call(world, method, &[("container_id", &container), ("exec_id", &id)]).await?;
            expect(&format!("{} with {what} as exec id", method.name), answer, code)?;
        }
    }
    world.is_as_before(&before).await
}

async fn a_long_id_is_as_good_as_any(world: &World) -> Result<()> {
    let before = world.snapshot().await?;
    // Longer ones are good too, but the harness names directories after them in options of mounts, which have 255 bytes
    // at most. A hostname has 64.
    let id = "l".repeat(200);
    let container = world.guest.container(&id).spec(|spec| spec.Hostname.clear());
    let container = container.run().await.context("an id of 200 characters")?;
    let longest = container.exec(["true"]).id(&"e".repeat(255)).run().await?;
    ensure!(longest.status == 0, "{longest:?}");
    container.remove().await?;
    world.is_as_before(&before).await
}
