//! The recipes of docs/recipes.md: each is packed as it stands there, booted, and what it brings does its work in the guest.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use machine::vm::Root;
use products::format::compress::Compression;
use products::initrd::{self, Options};
use products::recipe::Choice;
use protocols::oci;
use tests::Guest;

use crate::layout;

/// The recipe in docs/recipes.md whose description is this.
fn recipe(description: &str) -> Result<String> {
    let text = fs::read_to_string(layout().root().join("docs/recipes.md"))?;
    let mut blocks = text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let wanted = format!("description = \"{description}\"");
    Ok(blocks.find(|block| block.contains(&wanted)).with_context(|| wanted.clone())?.to_owned())
}

/// Boots the recipe, and runs a command in the guest's own root, as a hook. Gives what it has written to `/run/out`.
async fn out_of(description: &str, command: &[&str]) -> Result<String> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("own.toml");
    fs::write(&path, recipe(description)?)?;
    let options = Options {
        flavour: Choice::File(path),
        compression: Compression::Zstd,
        epoch: 0,
        twice: false,
        cache: None,
    };
    let initrd = directory.path().join("initrd.img");
    initrd::pack(&layout(), &options)?.write(&initrd)?;
    let guest = Guest::builder().root(Root::Initrd(initrd)).memory(768).boot().await?;
    guest.sandbox().await?;
    let hook = oci::Hook {
        Path: command[0].into(),
        Args: command.iter().map(|&word| word.to_owned()).collect(),
        Env: vec!["HOME=/run".into(), "PATH=/usr/bin:/bin".into()],
        Timeout: 300,
        ..Default::default()
    };
    let hooks = oci::Hooks { CreateRuntime: vec![hook], ..Default::default() };
    guest.container("user").spec(|spec| spec.Hooks = Some(hooks).into()).run().await?;
    guest.inspector().await?.sh("cat /guest/run/out").await
}

#[tokio::test]
async fn python_runs_with_its_standard_library() -> Result<()> {
    let program = "import json, sqlite3, ssl, sys; one = sqlite3.connect(':memory:').execute('select 40 + 2').fetchone(); \
                   open('/run/out', 'w').write(json.dumps([one[0], sys.version_info.major, ssl.HAS_TLSv1_3]))";
    let said = out_of("The agent, and Python.", &["/usr/bin/python3", "-c", program]).await?;
    assert_eq!(said, "[42, 3, true]");
    Ok(())
}

#[tokio::test]
async fn git_commits_and_calls_the_shell() -> Result<()> {
    let script = "cd /run && git init -q tree && cd tree && echo text > file && git add file && \
                  git -c user.name=a -c user.email=b@c commit -q -m message && \
                  { git log --format=%s && git -c alias.say='!echo by a shell' say && git ls-files; } > /run/out";
    let said = out_of("The agent, and git with a shell.", &["/bin/sh", "-c", script]).await?;
    ensure!(said == "message\nby a shell\nfile", "{said}");
    Ok(())
}
