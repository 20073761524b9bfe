//! The guest that cases run in, and the calls they make. Every answer is noted, so that a case which says that a method
//! succeeds, or is refused, must have seen it.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use protobuf::MessageFull;
use protocols::Empty;
use tests::{Code, Container, ContainerBuilder, Frame, Guest, Inspector, RawClient, Snapshot};
use tokio::sync::OnceCell;
use ttrpc::proto::Request;

use crate::api::{self, Method};

/// The agent's port.
const PORT: u32 = 1024;
/// The deadline of a call that says none: what shims use.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// How long what has ended may take to be gone.
const SETTLES: Duration = Duration::from_secs(60);

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    pub(crate) text: String,
}

/// What came back.
pub(crate) type Answer = Result<Vec<u8>, Refusal>;

/// See the module.
pub(crate) struct World {
    pub(crate) guest: Guest,
    pub(crate) methods: Vec<Method>,
    client: ttrpc::r#async::Client,
    answers: RefCell<Vec<(String, Option<Code>)>>,
    made: RefCell<Vec<String>>,
    number: Cell<u32>,
    shared: OnceCell<Container>,
    inspector: OnceCell<Inspector>,
}

impl World {
    pub(crate) async fn new(guest: Guest) -> Result<World> {
        let stream = guest.vm().dial(PORT).await.context("dial the agent")?;
        let client = ttrpc::r#async::Client::new(ttrpc::r#async::transport::Socket::new(stream));
        Ok(World {
            guest,
            methods: api::methods(),
            client,
            answers: RefCell::default(),
            made: RefCell::default(),
            number: Cell::new(0),
            shared: OnceCell::new(),
            inspector: OnceCell::new(),
        })
    }

    /// The answers since the last call of this, as method and code, none for success.
    pub(crate) fn take_answers(&self) -> Vec<(String, Option<Code>)> {
        self.answers.take()
    }

    pub(crate) fn method(&self, name: &str) -> Result<&Method> {
        self.methods.iter().find(|method| method.name == name).with_context(|| format!("no method {name}"))
    }

    /// Sends bytes as a request. `nanoseconds` is its deadline; 0 is none.
    pub(crate) async fn send(&self, name: &str, payload: Vec<u8>, nanoseconds: i64) -> Result<Answer> {
        let method = self.method(name)?;
        let request = Request {
            service: method.service.clone(),
            method: method.name.clone(),
            payload,
            timeout_nano: nanoseconds,
            ..Request::default()
        };
        let (answer, code) = match self.client.request(request).await {
            Ok(response) => (Ok(response.payload), None),
            Err(ttrpc::Error::RpcStatus(status)) => {
                let code = status.code();
                (Err(Refusal { code, text: status.message().to_owned() }), Some(code))
            }
            Err(other) => bail!("{name} was not answered: {other}"),
        };
        self.answers.borrow_mut().push((name.to_owned(), code));
        Ok(answer)
    }

    /// Sends bytes as a request over a connection of its own that leaves the deadline to the agent: ttrpc's client would
    /// watch it itself.
    pub(crate) async fn send_timed(&self, name: &str, payload: Vec<u8>, nanoseconds: i64) -> Result<Answer> {
        let service = self.method(name)?.service.clone();
        let mut client = RawClient::dial(&self.guest).await?;
        let (code, text) = client.call(&Frame::request(1, &service, name, payload, nanoseconds)).await?;
        let is_ok = code == Code::OK;
        self.answers.borrow_mut().push((name.to_owned(), (!is_ok).then_some(code)));
        Ok(if is_ok { Ok(Vec::new()) } else { Err(Refusal { code, text }) })
    }

    /// Calls a method that is to succeed.
    pub(crate) async fn ok<Q: MessageFull, A: MessageFull>(&self, name: &str, request: &Q) -> Result<A> {
        self.method(name)?.check::<Q, A>()?;
        match self.send(name, request.write_to_bytes()?, DEADLINE.as_nanos() as i64).await? {
            Ok(payload) => A::parse_from_bytes(&payload).with_context(|| format!("decode {name}'s answer")),
            Err(refusal) => bail!("{name} answered {:?}: {}", refusal.code, refusal.text),
        }
    }

    /// The same for a method that has nothing to tell.
    pub(crate) async fn done<Q: MessageFull>(&self, name: &str, request: &Q) -> Result<()> {
        self.ok::<Q, Empty>(name, request).await.map(drop)
    }

    /// Calls a method that is to be refused with a code; gives the text.
    pub(crate) async fn refused<Q: MessageFull>(
        &self,
        name: &str,
        request: &Q,
        code: Code,
    ) -> Result<String> {
        let method = self.method(name)?;
        ensure!(Q::descriptor().full_name() == method.input.full_name(), "{name} takes another request");
        let answer = self.send(name, request.write_to_bytes()?, DEADLINE.as_nanos() as i64).await?;
        expect(name, answer, code)
    }

    /// Sends what is no message of the method's type: INVALID_ARGUMENT.
    pub(crate) async fn garbage(&self, name: &str) -> Result<String> {
        // A length-delimited field that promises more than follows.
        let answer = self.send(name, vec![0x7a, 0x7f, 0x01], DEADLINE.as_nanos() as i64).await?;
        expect(&format!("{name} of garbage"), answer, Code::INVALID_ARGUMENT)
    }

    /// An id that no case before has used.
    pub(crate) fn id(&self, stem: &str) -> String {
        self.number.set(self.number.get() + 1);
        let id = format!("{stem}-{}", self.number.get());
        self.made.borrow_mut().push(id.clone());
        id
    }

    /// Describes a container which is removed after the case.
    pub(crate) fn container(&self) -> ContainerBuilder {
        self.guest.container(&self.id("c"))
    }

    /// A container that runs as long as the guest, for cases which change nothing about it.
    pub(crate) async fn shared(&self) -> Result<&Container> {
        self.shared.get_or_try_init(|| async { self.guest.container("shared").run().await }).await
    }

    /// A look at the guest from outside.
    pub(crate) async fn inspector(&self) -> Result<&Inspector> {
        self.inspector.get_or_try_init(|| async { self.guest.inspector().await }).await
    }

    /// What the guest holds now; the containers that stay are made before the look.
    pub(crate) async fn snapshot(&self) -> Result<Snapshot> {
        self.shared().await?.sh("true").await?;
        self.inspector().await?.snapshot().await
    }

    /// Checks that the guest holds what it held; what ended may take some seconds to be closed. Of descriptors it may
    /// hold fewer: those of something that had ended before the first look.
    pub(crate) async fn is_as_before(&self, before: &Snapshot) -> Result<()> {
        let inspector = self.inspector().await?;
        let started = Instant::now();
        loop {
            let now = inspector.snapshot().await?;
            let fewer = now.descriptors <= before.descriptors;
            if fewer && now == (Snapshot { descriptors: now.descriptors, ..before.clone() }) {
                return Ok(());
            }
            let is_late = started.elapsed() > SETTLES;
            ensure!(!is_late, "something is left or missing: {}", difference(before, &now));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Removes what a case has made and checks that the agent is well.
    pub(crate) async fn tidy(&self) -> Result<()> {
        let made = self.made.take();
        for id in made {
            let payload = self.method("RemoveContainer")?.request(&[], &[("container_id", &id)])?;
            if let Err(refusal) = self.send("RemoveContainer", payload, DEADLINE.as_nanos() as i64).await?
                && refusal.code != Code::NOT_FOUND
            {
                bail!("removing {id} after the case: {refusal:?}");
            }
        }
        let check = self.send("Check", Vec::new(), DEADLINE.as_nanos() as i64).await?;
        ensure!(check.is_ok(), "the agent is not well after the case: {check:?}");
        Ok(())
    }
}

/// Checks that an answer is a refusal with a code; gives the text.
pub(crate) fn expect(what: &str, answer: Answer, code: Code) -> Result<String> {
    match answer {
        Ok(_) => bail!("{what} was accepted, {code:?} expected"),
        Err(refusal) if refusal.code == code => Ok(refusal.text),
        Err(refusal) => bail!("{what} answered {:?} ({}), {code:?} expected", refusal.code, refusal.text),
    }
}

fn difference(before: &Snapshot, now: &Snapshot) -> String {
    let sets = [
        ("mounts", &before.mounts, &now.mounts),
        ("cgroups", &before.cgroups, &now.cgroups),
        ("processes", &before.processes, &now.processes),
        ("directories", &before.directories, &now.directories),
    ];
    let mut text = format!("descriptors {} -> {}", before.descriptors, now.descriptors);
    for (what, before, now) in sets.into_iter().filter(|(_, before, now)| before != now) {
        let (gone, new) =
            (before.difference(now).collect::<Vec<_>>(), now.difference(before).collect::<Vec<_>>());
        text += &format!("; {what}: gone {gone:?}, new {new:?}");
    }
    text
}
