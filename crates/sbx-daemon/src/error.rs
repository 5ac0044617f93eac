//! How the daemon answers a request that failed: a [`Report`] and the HTTP status that goes with it.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
pub(crate) use sbx_files::io_report;
use sbx_wire::report::{Blame, Report};

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
