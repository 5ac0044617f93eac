//! How the daemon answers a request that failed: a [`Report`] and the HTTP status that goes with it.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use sbx_wire::report::{Blame, Report};
use std::io;
use std::path::Path;

/// A failed request.
#[derive(Debug)]
pub(crate) struct ApiError(pub(crate) Report);

/// What request handlers return.
pub(crate) type ApiResult<T> = Result<T, ApiError>;

impl From<Report> for ApiError {
    fn from(report: Report) -> Self {
        Self(report)
    }
}

/// Codes whose status is not the one of their blame.
const NOT_FOUND: [&str; 5] = [
    "sandbox-not-found",
    "rule-not-found",
    "secret-not-found",
    "setting-unknown",
    "no-such-request",
];
const CONFLICT: [&str; 7] = [
    "sandbox-not-stopped",
    "name-in-use",
    "policy-conflict",
    "policy-already-initialized",
    "policy-not-initialized",
    "sessions-attached",
    "secret-exists",
];

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let report = self.0;
        let code = report.code.as_str();
        let status = if NOT_FOUND.contains(&code) {
            StatusCode::NOT_FOUND
        } else if CONFLICT.contains(&code) {
            StatusCode::CONFLICT
        } else {
            match report.blame {
                Blame::User => StatusCode::BAD_REQUEST,
                Blame::Environment => StatusCode::SERVICE_UNAVAILABLE,
                Blame::Bug => StatusCode::INTERNAL_SERVER_ERROR,
            }
        };
        (status, axum::Json(report)).into_response()
    }
}

/// A file operation that failed: a full disk and missing permission get a next step of their own.
pub(crate) fn io_report(what: &str, path: &Path, error: &io::Error) -> Report {
    let message = format!("cannot {what} {}: {error}", path.display());
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Report::environment(
            "disk-full",
            message,
            "free space on that disk, or point SBX_HOME at another one",
        ),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Report::environment(
            "no-permission",
            message,
            "make the folder writable for you, or point SBX_HOME at another one",
        ),
        _ => Report::environment(
            "file",
            message,
            "look at the path; the daemon's log may tell more",
        ),
    }
}
