//! Devices that come to a machine which runs already.

use crate::args::port;
use crate::qmp::{Qmp, QmpError};
use serde_json::json;
use std::os::fd::OwnedFd;

/// Gives the machine the share with this index and tag, on one of its free ports, by a connection to its socket. Returns
/// when QEMU has it; the guest finds it a moment later.
///
/// # Errors
/// See [`QmpError`].
pub async fn plug_share(
    qmp: &Qmp,
    index: usize,
    tag: &str,
    connection: OwnedFd,
) -> Result<(), QmpError> {
    let id = format!("share{index}");
    qmp.give(&id, connection).await?;
    let socket = json!({"addr": {"type": "fd", "data": {"str": id}}, "server": false});
    let backend = json!({"type": "socket", "data": socket});
    qmp.execute("chardev-add", json!({"id": id, "backend": backend}))
        .await?;
    let device = json!({"driver": "vhost-user-fs-pci", "id": format!("fs{index}"),
                        "chardev": id, "tag": tag, "bus": port(index)});
    qmp.execute("device_add", device).await.map(drop)
}
