//! Files as a whole: `/files` and `/files/compose`.
//!
//! Promises that a file of any size passes in pieces, both ways, and that who hangs up stops the work.

mod compose;
mod content_type;
mod download;
mod metadata;
#[cfg(test)]
mod tests;
mod upload;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::future::FutureExt as _;
use sandbox_api::http::{Body, Head, Headers, Request, Response};
use sandbox_api::signature::{Operation, Signed};
use serde_json::Value;

use self::compose::Composition;
use self::download::Download;
use self::upload::{Destination, Encoding, Upload, Written};
use super::answer::not_found;
use super::failure::{Failure, pass_over};
use super::place::place;
use super::rooted::{FileError, Owner, Root};
use super::sandbox::Sandbox;
use super::storage::Storage;

/// Most bytes of a request to join files.
const MOST_COMPOSITION: usize = 1 << 20;

/// Answers a request for `/files` or below it. The token is not checked yet for `/files` itself: that is by signature.
pub(super) async fn call(sandbox: &Arc<Sandbox>, request: Request) -> Response {
    let (method, path) = (request.head.method.clone(), request.head.path.clone());
    let answered = match (method.as_str(), path.as_str()) {
        ("GET" | "HEAD", "/files") => download(sandbox, &request.head).boxed().await,
        ("POST", "/files") => upload(sandbox, request).boxed().await,
        ("POST", "/files/compose") => compose(sandbox, request).boxed().await,
        (_, "/files" | "/files/compose") => {
            return Response::failure(405, &format!("{path} has no {method}"));
        }
        _ => return not_found(),
    };
    answered.unwrap_or_else(|failure| failure.answer())
}

/// Whether a request for one file may: by the token, or by a signature of its address.
fn check(sandbox: &Sandbox, head: &Head, operation: Operation) -> Result<(), Failure> {
    let Some(token) = sandbox.auth.current() else { return Ok(()) };
    let given = head.headers.get("x-access-token").filter(|token| !token.is_empty());
    if given.is_some() && sandbox.auth.is_right(given) {
        return Ok(());
    }
    let refuse = |text: String| Err(Failure::Unauthorized(text));
    // A wrong token is refused even where the signature is right.
    if given.is_some() {
        return refuse("access token present in header but does not match".to_owned());
    }
    let expiration = head.query.get("signature_expiration").filter(|text| !text.is_empty());
    let number = expiration.map(str::parse::<i64>).transpose();
    let expiration =
        number.map_err(|_| FileError::Invalid("signature_expiration is no number".to_owned()))?;
    let signed = Signed {
        path: head.query.get("path").unwrap_or_default(),
        username: head.query.get("username").unwrap_or_default(),
        signature: head.query.get("signature"),
        expiration,
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let verified = signed.verify(operation, &token, i64::try_from(now).unwrap_or(i64::MAX));
    verified.or_else(|error| refuse(error.to_string()))
}

/// The container's root, and who asks.
async fn asked(sandbox: &Sandbox, head: &Head, username: Option<&str>) -> Result<(Root, Owner), Failure> {
    Ok(place(&sandbox.caller(head, username).await?))
}

async fn download(sandbox: &Sandbox, head: &Head) -> Result<Response, Failure> {
    check(sandbox, head, Operation::Read)?;
    if !accepts_identity(&head.headers) {
        return Err(Failure::NotAcceptable);
    }
    let (root, owner) = asked(sandbox, head, head.query.get("username")).await?;
    let path = owner.expand(head.query.get("path").unwrap_or_default())?;
    let place = sandbox.storage.download();
    let piece = place.piece;
    let opened = sandbox.storage.workers.run(move |_| Download::open(&root, &path, piece)).await?;
    Ok(opened.answer(&head.headers, &sandbox.storage.workers, place))
}

/// Whether `Accept-Encoding` leaves a file as it is (RFC 9110, section 12.5.3).
fn accepts_identity(headers: &Headers) -> bool {
    let (mut identity, mut others) = (None, None);
    for item in headers.all("accept-encoding").flat_map(|list| list.split(',')) {
        let (name, parameters) = item.split_once(';').unwrap_or((item, ""));
        let weight = parameters.split(';').find_map(|parameter| parameter.trim().strip_prefix("q="));
        let is_allowed = weight.is_none_or(|weight| is_more_than_nothing(weight.trim()));
        match name.trim() {
            name if name.eq_ignore_ascii_case("identity") => identity = Some(is_allowed),
            "*" => others = Some(is_allowed),
            _ => {}
        }
    }
    identity.or(others).unwrap_or(true)
}

/// Whether a weight, such as `0.5`, is one and is not zero.
fn is_more_than_nothing(weight: &str) -> bool {
    weight.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
        && weight.bytes().any(|byte| matches!(byte, b'1'..=b'9'))
}

async fn upload(sandbox: &Sandbox, mut request: Request) -> Result<Response, Failure> {
    check(sandbox, &request.head, Operation::Write)?;
    let Request { head, body } = &mut request;
    let written = write(sandbox, head, body).await;
    // A client that still sends when the connection ends never sees the answer.
    if matches!(written, Err(Failure::File(_) | Failure::Caller(_))) {
        pass_over(body).await;
    }
    written.map(|written| text(&written))
}

async fn write(sandbox: &Sandbox, head: &Head, body: &mut Body) -> Result<Vec<Written>, Failure> {
    let metadata = metadata::read(&head.headers)?;
    let (root, owner) = asked(sandbox, head, head.query.get("username")).await?;
    let to = Destination { root, owner, path: head.query.get("path").map(str::to_owned), metadata };
    let field = |name: &str| head.headers.get(name).unwrap_or_default().to_owned();
    let _place = sandbox.storage.uploads.take().await?;
    let (content_type, content_encoding) = (field("content-type"), field("content-encoding"));
    receive(&sandbox.storage, to, content_type, content_encoding, body).await
}

/// Writes what a body brings.
async fn receive(
    storage: &Storage,
    to: Destination,
    content_type: String,
    content_encoding: String,
    body: &mut Body,
) -> Result<Vec<Written>, Failure> {
    let encoding = Encoding { content_type: &content_type, content_encoding: &content_encoding };
    let mut upload = Upload::new(to, encoding)?;
    let workers = &storage.workers;
    let mut next = storage.uploads.piece(body).await?;
    while let Some(piece) = next {
        let feed = move |stop: &_| {
            let mut upload = upload;
            upload.feed(&piece, stop).map(|()| upload)
        };
        upload = tokio::select! {
            biased;
            // What was written counts. What comes meanwhile makes the next piece large.
            written = workers.run(feed) => written?,
            never = body.gather() => match never {},
        };
        next = storage.uploads.piece(body).await?;
    }
    Ok(workers.run(move |stop| upload.finish(stop)).await?)
}

/// Envd sends this JSON as a text, and clients take it so.
fn text(written: &[Written]) -> Response {
    let written: Vec<Value> = written.iter().map(Written::to_json).collect();
    Response::text(200, Value::from(written).to_string())
}

async fn compose(sandbox: &Sandbox, mut request: Request) -> Result<Response, Failure> {
    let composition = Composition::parse(&request.body.collect(MOST_COMPOSITION).await?)?;
    let named = composition.username.clone();
    let (root, owner) = asked(sandbox, &request.head, named.as_deref()).await?;
    let _place = sandbox.storage.uploads.take().await?;
    let written = sandbox.storage.workers.run(move |stop| composition.compose(&root, &owner, stop)).await?;
    Ok(Response::json(200, &written.to_json()))
}
