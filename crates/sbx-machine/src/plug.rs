//! Devices that come to a machine which runs already.

use crate::args::{Share, port};
use crate::qmp::{Qmp, QmpError};
use serde_json::json;

/// Gives the machine the share with this index, on one of its free ports. Returns when QEMU has it; the guest
/// finds it a moment later. The share must be listening.
///
/// # Errors
/// See [`QmpError`].
pub async fn plug_share(qmp: &Qmp, index: usize, share: &Share) -> Result<(), QmpError> {
    let id = format!("share{index}");
    let socket = json!({"addr": {"type": "unix", "data": {"path": share.socket}}, "server": false});
    let backend = json!({"type": "socket", "data": socket});
    qmp.execute("chardev-add", json!({"id": id, "backend": backend}))
        .await?;
    let device = json!({"driver": "vhost-user-fs-pci", "id": format!("fs{index}"),
                        "chardev": id, "tag": share.tag, "bus": port(index)});
    qmp.execute("device_add", device).await.map(drop)
}
