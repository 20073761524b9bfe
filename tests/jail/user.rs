//! User, groups, umask, home directory, limits and oom score of a process.

use anyhow::Result;
use protocols::oci::{POSIXRlimit, Process};
use tests::{Code, Container, Guest, expect_code};

use crate::{in_guest, status};

/// What a first process with this change reads from a file of its own.
async fn read(guest: &Guest, id: &str, path: &str, change: impl FnOnce(&mut Process)) -> Result<String> {
    guest.container(id).args(["cat", path]).process(change).run().await?.output().await?.success()
}

async fn read_exec(container: &Container, path: &str, change: impl FnOnce(&mut Process)) -> Result<String> {
    container.exec(["cat", path]).process(change).run().await?.success()
}

const STATUS: &str = "/proc/self/status";

fn become_user(process: &mut Process, uid: u32, gid: u32, groups: &[u32]) {
    let user = process.User.mut_or_insert_default();
    (user.UID, user.GID, user.AdditionalGids) = (uid, gid, groups.to_vec());
}

#[tokio::test]
async fn user_and_groups_are_those_of_the_spec_and_no_others() -> Result<()> {
    in_guest(async |guest| {
        let root = read(guest, "root", STATUS, |_| {}).await?;
        assert_eq!(status(&root, "Uid"), "0\t0\t0\t0");
        assert_eq!(status(&root, "Gid"), "0\t0\t0\t0");
        // An empty list means none, not the agent's.
        assert_eq!(status(&root, "Groups"), "");
        assert_eq!(status(&root, "Umask"), "0022");

        let user =
            read(guest, "user", STATUS, |process| become_user(process, 33, 34, &[5, 4_000_000])).await?;
        assert_eq!(status(&user, "Uid"), "33\t33\t33\t33");
        assert_eq!(status(&user, "Gid"), "34\t34\t34\t34");
        assert_eq!(status(&user, "Groups"), "5 4000000");

        let one = guest.container("one").process(|process| become_user(process, 33, 33, &[5])).run().await?;
        // An exec is whom it says, not whom the container's first process is.
        let exec = read_exec(&one, STATUS, |_| {}).await?;
        assert_eq!(status(&exec, "Uid"), "0\t0\t0\t0");
        assert_eq!(status(&exec, "Groups"), "");
        assert_eq!(status(&exec, "Umask"), "0022");
        let exec = read_exec(&one, STATUS, |process| become_user(process, 1000, 1001, &[7, 8])).await?;
        assert_eq!(status(&exec, "Uid"), "1000\t1000\t1000\t1000");
        assert_eq!(status(&exec, "Gid"), "1001\t1001\t1001\t1001");
        assert_eq!(status(&exec, "Groups"), "7 8");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_users_process_can_use_its_streams_by_name() -> Result<()> {
    in_guest(async |guest| {
        let one = guest
            .container("one")
            .process(|process| become_user(process, 65534, 65534, &[]))
            .script(
                "echo out >/dev/stdout; echo err >/dev/stderr; echo fd >/proc/self/fd/1; touch /x || id -u",
            )
            .run()
            .await?;
        let output = one.output().await?;
        assert_eq!(String::from_utf8(output.stdout)?, "out\nfd\n65534\n");
        assert!(String::from_utf8(output.stderr)?.starts_with("err\n"));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn home_comes_from_the_images_passwd_unless_it_is_set() -> Result<()> {
    in_guest(async |guest| {
        let one = guest.container("one").run().await?;
        let home = async |uid: u32, env: &[&str]| {
            let set = |process: &mut Process| {
                become_user(process, uid, 0, &[]);
                process.Env.extend(env.iter().map(|entry| (*entry).to_owned()));
            };
            one.exec(["sh", "-c", "echo $HOME"]).process(set).run().await?.success()
        };
        assert_eq!(home(0, &[]).await?, "/root");
        assert_eq!(home(33, &[]).await?, "/var/www");
        assert_eq!(home(12345, &[]).await?, "/");
        assert_eq!(home(33, &["HOME=/elsewhere"]).await?, "/elsewhere");
        let environ =
            read(guest, "two", "/proc/self/environ", |process| become_user(process, 33, 0, &[])).await?;
        assert!(environ.split('\0').any(|entry| entry == "HOME=/var/www"), "{environ:?}");
        Ok(())
    })
    .await
}

fn limit(kind: &str, soft: u64, hard: u64) -> POSIXRlimit {
    POSIXRlimit { Type: kind.into(), Soft: soft, Hard: hard, ..POSIXRlimit::default() }
}

/// Soft and hard limit in the text of `/proc/PID/limits`.
fn limits<'a>(text: &'a str, name: &str) -> (&'a str, &'a str) {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let mut words = line.unwrap_or_else(|| panic!("no {name} in {text}")).split_whitespace();
    (words.next().unwrap_or_default(), words.next().unwrap_or_default())
}

#[tokio::test]
async fn limits_are_those_of_the_spec_and_usual_ones_otherwise() -> Result<()> {
    in_guest(async |guest| {
        let usual = read(guest, "usual", "/proc/self/limits", |_| {}).await?;
        assert_eq!(limits(&usual, "Max open files"), ("1024", "1048576"));

        let set = |process: &mut Process| {
            process.Rlimits = vec![
                limit("RLIMIT_NOFILE", 100, 200),
                limit("RLIMIT_CORE", 0, u64::MAX),
                limit("RLIMIT_NICE", 5, 20),
                limit("RLIMIT_MEMLOCK", 4096, 8192),
            ];
            // Raised for a user too: limits are set before the privilege goes.
            become_user(process, 65534, 65534, &[]);
        };
        let own = read(guest, "own", "/proc/self/limits", set).await?;
        assert_eq!(limits(&own, "Max open files"), ("100", "200"));
        assert_eq!(limits(&own, "Max core file size"), ("0", "unlimited"));
        assert_eq!(limits(&own, "Max nice priority"), ("5", "20"));
        assert_eq!(limits(&own, "Max locked memory"), ("4096", "8192"));

        let one = guest.container("one").process(set).run().await?;
        let exec = read_exec(&one, "/proc/self/limits", |_| {}).await?;
        assert_eq!(limits(&exec, "Max open files"), ("1024", "1048576"));
        let exec = read_exec(&one, "/proc/self/limits", |process| {
            process.Rlimits = vec![limit("RLIMIT_NOFILE", 7, 7)];
        });
        assert_eq!(limits(&exec.await?, "Max open files"), ("7", "7"));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn limits_that_cannot_be_are_refused() -> Result<()> {
    in_guest(async |guest| {
        let cases = [
            vec![limit("RLIMIT_NOFILE", 2, 1)],
            vec![limit("RLIMIT_NO_SUCH", 1, 1)],
            vec![limit("RLIMIT_CORE", 1, 1), limit("RLIMIT_CORE", 2, 2)],
            // Above fs.nr_open.
            vec![limit("RLIMIT_NOFILE", 3, 3_000_000_000)],
        ];
        for list in cases {
            let named = list[0].Type.clone();
            let hard = list[0].Hard;
            let container = guest.container("c1").process(|process| process.Rlimits = list);
            let text = expect_code(container.try_create().await, Code::INVALID_ARGUMENT);
            assert!(text.contains(&named), "{named} is not in {text:?}");
            let is_high = hard == 3_000_000_000;
            assert!(!is_high || (text.contains("3000000000") && text.contains("fs.nr_open is")), "{text}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_oom_score_is_the_specs_and_never_the_agents() -> Result<()> {
    in_guest(async |guest| {
        let inspector = guest.inspector().await?;
        let agents: i32 = inspector.sh("cat /guest/proc/1/oom_score_adj").await?.parse()?;
        assert!(agents < 0, "the agent is not protected: {agents}");
        let score = "/proc/self/oom_score_adj";
        assert_eq!(read(guest, "usual", score, |_| {}).await?.trim(), "0");
        assert_eq!(read(guest, "high", score, |process| process.OOMScoreAdj = 987).await?.trim(), "987");
        assert_eq!(read(guest, "low", score, |process| process.OOMScoreAdj = -500).await?.trim(), "-500");
        let one = guest.container("one").process(|process| process.OOMScoreAdj = 10).run().await?;
        assert_eq!(read_exec(&one, score, |_| {}).await?.trim(), "0");
        assert_eq!(read_exec(&one, score, |process| process.OOMScoreAdj = 3).await?.trim(), "3");
        let wrong = guest.container("wrong").process(|process| process.OOMScoreAdj = 1001);
        expect_code(wrong.try_create().await, Code::INVALID_ARGUMENT);
        Ok(())
    })
    .await
}
