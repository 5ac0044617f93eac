//! `/v1/settings`.

use super::{Shared, parse};
use crate::error::ApiResult;
use crate::settings;
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use sbx_wire::api::{SetSetting, Setting, Settings, UnsetSetting};

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
    daemon.small.look_again();
    daemon.push(None).await?;
    Ok(Json(shown))
}

pub(super) async fn unset(State(daemon): Shared, body: Bytes) -> ApiResult<Json<Setting>> {
    let request: UnsetSetting = parse(&body)?;
    let shown = settings::show(&request.key, None)?;
    daemon.store().change_setting(&request.key, None)?;
    tracing::info!(key = request.key, "setting unset");
    daemon.small.look_again();
    daemon.push(None).await?;
    Ok(Json(shown))
}
