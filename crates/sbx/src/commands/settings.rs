//! `sbx settings`.

use super::Context;
use crate::exit::Exit;
use crate::table;
use sbx_wire::api::{SetSetting, Setting, Settings, UnsetSetting};
use sbx_wire::report::Report;

/// How sbx behaves on this machine
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Print one value
    Get {
        /// Key
        key: String,
        /// Print the full record as JSON
        #[arg(long)]
        json: bool,
    },
    /// Change one value
    Set {
        /// Key
        key: String,
        /// Value; JSON where the setting is JSON
        #[arg(allow_hyphen_values = true)]
        value: String,
    },
    /// Return to the default
    Unset {
        /// Key
        key: String,
    },
    /// List all settings
    #[command(alias = "ls")]
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// Do not shorten long values
        #[arg(long, conflicts_with = "json")]
        no_trunc: bool,
    },
}

pub(crate) async fn run(context: &mut Context, command: Command) -> Result<Exit, Report> {
    match command {
        Command::Get { key, json } => {
            let setting = one(context, &key).await?;
            if json {
                context.printer.json(&setting)?;
            } else {
                context.printer.line(&setting.value);
            }
        }
        Command::Set { key, value } => {
            let body = SetSetting { key, value };
            let setting: Setting = context.client.post("/v1/settings", &body).await?;
            remind(context, &setting);
        }
        Command::Unset { key } => {
            let body = UnsetSetting { key };
            let setting: Setting = context.client.post("/v1/settings/unset", &body).await?;
            remind(context, &setting);
        }
        Command::List { json, no_trunc } => list(context, json, no_trunc).await?,
    }
    Ok(Exit::Success)
}

async fn one(context: &mut Context, key: &str) -> Result<Setting, Report> {
    let all: Settings = context.client.get("/v1/settings").await?;
    all.settings
        .into_iter()
        .find(|setting| setting.key == key)
        .ok_or_else(|| {
            Report::user(
                "setting-unknown",
                format!("there is no setting '{key}'"),
                "sbx settings list",
            )
        })
}

fn remind(context: &mut Context, setting: &Setting) {
    if setting.restart {
        context
            .printer
            .notice("note: running sandboxes use this after their next start");
    }
}

async fn list(context: &mut Context, json: bool, no_trunc: bool) -> Result<(), Report> {
    let all: Settings = context.client.get("/v1/settings").await?;
    if json {
        return context.printer.json(&all);
    }
    let rows: Vec<Vec<String>> = all
        .settings
        .iter()
        .map(|setting| {
            let value = if no_trunc {
                setting.value.clone()
            } else {
                shorten(&setting.value)
            };
            let restart = if setting.restart { "yes" } else { "no" };
            vec![
                setting.key.clone(),
                value,
                setting.kind.clone(),
                setting.source.clone(),
                restart.to_owned(),
                setting.description.clone(),
            ]
        })
        .collect();
    let header = ["KEY", "VALUE", "TYPE", "SOURCE", "RESTART", "DESCRIPTION"];
    context.printer.line(&table::render(&header, &rows));
    Ok(())
}

fn shorten(value: &str) -> String {
    if value.chars().count() <= 40 {
        return value.to_owned();
    }
    value.chars().take(39).chain(['…']).collect()
}
