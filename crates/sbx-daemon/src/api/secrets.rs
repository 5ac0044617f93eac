//! `/v1/secrets`. Values go in and never come out.

use super::{Nothing, Shared, nothing, parse};
use crate::secrets::STORE;
use crate::services::Service;
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use sbx_wire::api::{RemoveSecret, Secrets, SetSecret};

pub(super) async fn list(State(daemon): Shared) -> Json<Secrets> {
    Json(Secrets {
        secrets: daemon.secrets().rows(),
        store: STORE.to_owned(),
    })
}

pub(super) async fn set(State(daemon): Shared, body: Bytes) -> Nothing {
    let request: SetSecret = parse(&body)?;
    let service = Service::find(&request.service)?;
    let sandbox = request.sandbox.as_deref();
    if let Some(name) = sandbox {
        daemon.sandbox(name)?;
    }
    daemon
        .secrets()
        .set(service, sandbox, request.value, request.force)?;
    tracing::info!(service = service.name, sandbox, "secret stored");
    daemon.push(sandbox).await?;
    Ok(nothing())
}

pub(super) async fn remove(State(daemon): Shared, body: Bytes) -> Nothing {
    let request: RemoveSecret = parse(&body)?;
    let service = Service::find(&request.service)?;
    let sandbox = request.sandbox.as_deref();
    if let Some(name) = sandbox {
        daemon.sandbox(name)?;
    }
    daemon.secrets().remove(service, sandbox)?;
    tracing::info!(service = service.name, sandbox, "secret removed");
    daemon.push(sandbox).await?;
    Ok(nothing())
}
