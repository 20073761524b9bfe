//! Answers that several parts give.

use sandbox_api::http::Response;

/// What envd says to a path, or a method of a service, that it does not have.
pub(super) fn not_found() -> Response {
    Response::text(404, "404 page not found\n")
}
