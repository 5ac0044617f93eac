//! `/v1/settings`.

use super::{Shared, parse};
use crate::daemon::Daemon;
use crate::error::ApiResult;
use crate::settings;
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use sbx_wire::api::{SetSetting, Setting, Settings, UnsetSetting};
use sbx_wire::report::Report;

pub(super) async fn list(State(daemon): Shared) -> Json<Settings> {
    Json(Settings {
        settings: settings::list(daemon.store().settings()),
    })
}

pub(super) async fn set(State(daemon): Shared, body: Bytes) -> ApiResult<Json<Setting>> {
    let request: SetSetting = parse(&body)?;
    let stored = settings::check(&request.key, &request.value)?;
    let shown = settings::show(&request.key, Some(&stored))?;
    daemon.store().change_setting(&request.key, Some(stored))?;
    tracing::info!(key = request.key, "setting changed");
    store_again(&daemon, &request.key)?;
    daemon.small.look_again();
    daemon.push(None).await?;
    Ok(Json(shown))
}

pub(super) async fn unset(State(daemon): Shared, body: Bytes) -> ApiResult<Json<Setting>> {
    let request: UnsetSetting = parse(&body)?;
    let shown = settings::show(&request.key, None)?;
    daemon.store().change_setting(&request.key, None)?;
    tracing::info!(key = request.key, "setting unset");
    store_again(&daemon, &request.key)?;
    daemon.small.look_again();
    daemon.push(None).await?;
    Ok(Json(shown))
}

/// Whoever changes where secrets are kept wants the keychain to be looked for again.
fn store_again(daemon: &Daemon, key: &str) -> Result<(), Report> {
    if key == settings::SECRET_STORE {
        daemon.secrets().set_verdict(None)?;
    }
    Ok(())
}
