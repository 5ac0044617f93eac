//! `sandbox.json`: what a sandbox is, whatever happens to the database.

use sbx_image::Template;
use sbx_wire::api::{Kernel, Workspace};
use sbx_wire::launch::Accel;
use sbx_wire::name::SandboxName;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of the document.
pub(crate) const SCHEMA: u32 = 1;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    /// [`SCHEMA`].
    pub(crate) schema: u32,
    /// 12 lower-case hex digits; also the name of the sandbox's folder.
    pub(crate) id: String,
    /// What people call it.
    pub(crate) name: SandboxName,
    /// Agent and template.
    pub(crate) agent: Template,
    /// Primary first.
    pub(crate) workspaces: Vec<Workspace>,
    /// Variables from its creation.
    pub(crate) env: Vec<(String, String)>,
    /// Virtual CPUs.
    pub(crate) cpus: u16,
    /// Memory, MiB.
    pub(crate) memory_mib: u32,
    /// Accelerator asked for; `None`: probed at each start.
    pub(crate) accel_wanted: Option<Accel>,
    /// Accelerator of the last start.
    pub(crate) accel: Accel,
    /// Kernel of the last start; `None`: it has not been started by an sbx that notes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) kernel: Option<Kernel>,
    /// Key of the image that the disks lie on.
    pub(crate) image: String,
    /// The agent's command line, from the image.
    pub(crate) agent_command: Vec<String>,
    /// Working directory inside.
    pub(crate) workdir: String,
    /// 32 lower-case hex digits.
    pub(crate) machine_id: String,
    /// What the guest holds instead of each service's secret: worthless anywhere else.
    pub(crate) placeholders: BTreeMap<String, String>,
    /// RFC 3339.
    pub(crate) created_at: String,
    /// RFC 3339; time of the last start.
    pub(crate) last_used_at: Option<String>,
    /// `run --rm`: it is removed once it has ended.
    #[serde(default)]
    pub(crate) remove_when_ended: bool,
}
