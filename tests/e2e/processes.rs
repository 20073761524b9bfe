//! Who a process is, where it may join, and how signals reach it.

use std::time::Duration;

use anyhow::Result;
use protobuf::MessageField;
use protocols::agent::StringUser;
use protocols::oci;
use tests::{Code, Guest, expect_code, refusal};

const TERM: u32 = 15;

fn string_user(uid: &str, gid: &str, groups: &[&str]) -> MessageField<StringUser> {
    MessageField::some(StringUser {
        uid: uid.into(),
        gid: gid.into(),
        additionalGids: groups.iter().map(|name| (*name).to_owned()).collect(),
        ..Default::default()
    })
}

#[tokio::test]
async fn a_user_by_name_is_sought_in_the_containers_own_tables() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let web = guest.container("web").script("id -u; id -g; id -G; sleep 1000");
    let web = web
        .request(|request| request.string_user = string_user("www-data", "tty", &["nogroup"]))
        .run()
        .await?;
    let text = web.init().read_until("65534\n").await?;
    assert_eq!(text, "33\n5\n5 65534\n");
    // An exec is its spec's user again, unless it names another.
    assert_eq!(web.sh("id -u").await?, "0");
    web.sh("echo dev:x:1234:33::/:/bin/sh >> /etc/passwd; echo team:x:77:dev >> /etc/group").await?;
    let dev = web.exec(["sh", "-c", "echo $(id -u) $(id -g) $(id -G) $(stat -c %u /proc/self/fd/1)"]);
    let dev = dev.request(|request| request.string_user = string_user("dev", "", &[]));
    assert_eq!(dev.run().await?.success()?, "1234 33 33 77 1234");
    Ok(())
}

#[tokio::test]
async fn a_user_nobody_knows_is_refused_and_leaves_nothing() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let inspector = guest.inspector().await?;
    let before = inspector.snapshot().await?;
    let nobody =
        guest.container("c1").request(|request| request.string_user = string_user("stranger", "", &[]));
    let text = expect_code(nobody.try_create().await, Code::INVALID_ARGUMENT);
    assert!(text.contains("stranger"), "{text}");
    assert_eq!(inspector.settled(&before).await?, before);
    let container = guest.container("c1").run().await?;
    let exec =
        container.exec(["true"]).id("e1").request(|r| r.string_user = string_user("", "strangers", &[]));
    expect_code(exec.start().await, Code::INVALID_ARGUMENT);
    expect_code(container.signal("e1", TERM).await, Code::NOT_FOUND);
    assert_eq!(container.exec(["true"]).id("e1").run().await?.status, 0);
    Ok(())
}

#[tokio::test]
async fn a_users_table_that_is_a_trap_is_no_way_out_and_no_hang() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let container = guest.container("c1").run().await?;
    let exec = |name: &str| {
        let user = string_user(name, "", &[]);
        container.exec(["id", "-u"]).request(|request| request.string_user = user)
    };
    container.sh("rm /etc/passwd; ln -s /../../../../../../etc/passwd.guest /etc/passwd").await?;
    expect_code(exec("root").start().await, Code::INVALID_ARGUMENT);
    // A number needs no table.
    assert_eq!(exec("12").run().await?.success()?, "12");
    container.sh("rm /etc/passwd; mkfifo /etc/passwd").await?;
    let (code, text) = refusal(exec("root").start().await);
    assert_ne!(code, Code::DEADLINE_EXCEEDED);
    assert!(text.contains("not a regular file"), "{text}");
    Ok(())
}

#[tokio::test]
async fn an_exec_in_a_shared_pid_namespace_sees_its_neighbours_until_the_containers_own_end() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let first = guest.container("first").args(["sleep", "11111"]).run().await?;
    let second = guest.container("second").request(|request| request.sandbox_pidns = true);
    let second = second.args(["sleep", "22222"]).run().await?;
    let exec = second.exec(["sleep", "33333"]).start().await?;
    let seen = first.sh("grep -al '^sleep' /proc/[0-9]*/cmdline | wc -l").await?;
    assert_eq!(seen, "3");
    second.signal("", 9).await?;
    assert_eq!((second.wait().await?, exec.wait().await?), (137, 137));
    // Its namespaces live on in the first, and still it has ended.
    expect_code(second.exec(["true"]).start().await, Code::FAILED_PRECONDITION);
    assert_eq!(first.sh("grep -al '^sleep' /proc/[0-9]*/cmdline | wc -l").await?, "1");
    Ok(())
}

#[tokio::test]
async fn a_container_whose_init_is_gone_answers_for_what_it_was() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    // In the guest's pid namespace an exec outlives the init.
    let container = guest.container("c1").script("read line; exit 4").linux(|linux| {
        linux.Namespaces.push(oci::LinuxNamespace {
            Type: "pid".into(),
            Path: "/proc/1/ns/pid".into(),
            ..Default::default()
        });
    });
    let container = container.run().await?;
    let survivor = container.exec(["sh", "-c", "read line; echo got $line; exit 6"]).id("s1").start().await?;
    container.init().write(b"end\n").await?;
    assert_eq!(container.wait().await?, 4);
    expect_code(container.exec(["true"]).start().await, Code::FAILED_PRECONDITION);
    survivor.write(b"on\n").await?;
    assert_eq!(survivor.read_until("got on\n").await?, "got on\n");
    assert_eq!(survivor.wait().await?, 6);
    container.signal("", TERM).await?;
    container.signal("", 9).await?;
    assert_eq!(container.wait().await?, 4);
    container.remove().await?;
    expect_code(container.wait().await, Code::NOT_FOUND);
    Ok(())
}

#[tokio::test]
async fn signals_to_a_paused_container_wait_and_sigkill_does_not() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let script = "trap 'echo caught; exit 21' TERM; echo up; while :; do sleep 0.1; done";
    let container = guest.container("c1").script(script).run().await?;
    container.init().read_until("up\n").await?;
    container.pause().await?;
    container.signal("", TERM).await?;
    let waiting = tokio::spawn({
        let container = container.clone();
        async move { container.wait().await }
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!waiting.is_finished(), "a paused process handled a signal");
    container.resume().await?;
    assert_eq!(waiting.await??, 21);
    let other = guest.container("c2").run().await?;
    let exec = other.exec(["sleep", "1000"]).start().await?;
    other.pause().await?;
    other.signal(exec.exec_id(), 9).await?;
    assert_eq!(exec.wait().await?, 137);
    other.signal("", 9).await?;
    assert_eq!(other.wait().await?, 137);
    Ok(())
}
