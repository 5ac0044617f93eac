//! `sbx inspect`: one sandbox in full.

use super::Context;
use crate::exit::Exit;
use crate::{guarding, lookup, table};
use sbx_wire::api::{DaemonStatus, Sandbox};
use sbx_wire::launch::Accel;
use sbx_wire::report::Report;
use serde_json::{Value, json};

/// Show one sandbox in full
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Sandbox
    sandbox: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(context: &mut Context, args: Args) -> Result<Exit, Report> {
    let sandbox = lookup::one(&context.client, &args.sandbox).await?;
    let daemon = context.client.status().await?;
    let mut value = shape(&sandbox, &daemon);
    let guarded = guarding::of(context, &sandbox.name).await;
    if let (Ok(guarded), Some(object)) = (guarded, value.as_object_mut()) {
        object.insert("guard".to_owned(), guarding::shape(&guarded, args.json));
    }
    if args.json {
        context.printer.json(&value)?;
        return Ok(Exit::Success);
    }
    let Some(object) = value.as_object() else {
        return Ok(Exit::Success);
    };
    for (key, value) in object {
        let text = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        context
            .printer
            .line(&format!("{key:<18} {}", table::safe(&text)));
    }
    Ok(Exit::Success)
}

fn shape(sandbox: &Sandbox, daemon: &DaemonStatus) -> Value {
    let mounts: Vec<Value> = sandbox
        .workspaces
        .iter()
        .map(|w| json!({ "path": w.path, "mode": if w.read_only { "ro" } else { "rw" } }))
        .collect();
    let processes: serde_json::Map<String, Value> = sandbox
        .processes
        .iter()
        .map(|(role, pid)| (role.clone(), json!(pid)))
        .collect();
    let secrets: Vec<Value> = sandbox
        .secrets
        .iter()
        .map(|name| json!({ "name": name, "source": "uploaded" }))
        .collect();
    let mut value = json!({
        "name": sandbox.name,
        "id": sandbox.id,
        "agent": sandbox.agent,
        "kits": [],
        "state": sandbox.status,
        "image": sandbox.image,
        "workspace": sandbox.workspaces.first().map(|w| &w.path),
        "mounts": mounts,
        "cpus": sandbox.cpus,
        "memory_mib": sandbox.memory_mib,
        "accel": match sandbox.accel { Accel::Kvm => "kvm", Accel::Tcg => "tcg" },
        "kernel": sandbox.kernel.as_ref().map(ToString::to_string),
        "network": "gateway",
        "network_policy": { "scope": format!("sandbox:{}", sandbox.name) },
        "proxy": "gateway.docker.internal:3128",
        "secrets": secrets,
        "ports": [],
        "sessions": sandbox.sessions,
        "agent_running": sandbox.agent_running,
        "attached": sandbox.attached,
        "kept_by": sandbox.kept_by,
        "stops_at": sandbox.stops_at,
        "remove_when_ended": sandbox.remove_when_ended,
        "created_at": sandbox.created_at,
        "last_used_at": sandbox.last_used_at,
        "state_reason": sandbox.status_reason,
        "uptime": sandbox.uptime_s,
        "ready_ms": sandbox.ready_ms,
        "start": sandbox.start,
        "docker": sandbox.docker,
        "processes": processes,
        "directory": sandbox.dir,
        "socket_path": sandbox.socket_path,
        "mcp_gateway": false,
        "daemon_version": daemon.version,
        "daemon_uptime": daemon.uptime_s,
    });
    if let Some(object) = value.as_object_mut() {
        object.retain(|_, value| !value.is_null());
    }
    value
}
