//! The launch document: written anew at each start, by the daemon that starts the supervisor which reads it.

use crate::frozen;
use crate::guest::personalise;
use sbx_wire::launch::{
    self, Accel, Launch, MachineSpec, Origin, Programs, ShareSpec, SnapshotFiles,
};

#[test]
fn the_launch_document_is_as_in_schema_1() {
    assert_eq!(
        launch::SCHEMA,
        1,
        "another schema needs a fixture of its own"
    );
    let launch = Launch {
        schema: launch::SCHEMA,
        id: "0123456789ab".into(),
        name: "box".into(),
        dir: "/state/sandboxes/0123456789ab".into(),
        runtime: "/run/sbx/0123456789ab".into(),
        programs: Programs {
            qemu: "/usr/bin/qemu-system-x86_64".into(),
            gateway: "/opt/sbx-gateway".into(),
            share: "/opt/sbx-share".into(),
        },
        machine: MachineSpec {
            accel: Accel::Tcg,
            cpus: 2,
            memory_mib: 1024,
            kernel: "/cache/vmlinux".into(),
            initramfs: "/cache/initramfs".into(),
            lowers: vec!["/cache/rootfs.erofs".into()],
            upper: "/state/sandboxes/0123456789ab/upper.qcow2".into(),
            docker: "/state/sandboxes/0123456789ab/docker.qcow2".into(),
            bases: Vec::new(),
        },
        shares: vec![ShareSpec {
            tag: "fs0".into(),
            host: "/work".into(),
            read_only: true,
            rules: sbx_workspace::Rules::default(),
        }],
        auto_stop_s: None,
        personalise: personalise(),
        origin: Origin::Boot,
        unconfined: false,
        start_limit_s: None,
    };
    frozen::json("launch-v1.txt", "launch", &[("-json", launch)]);
    let files = SnapshotFiles {
        memory: "/cache/snapshots/a/memory".into(),
        state: "/cache/snapshots/a/state".into(),
    };
    let origins = [
        ("-restore", Origin::Restore(files.clone())),
        ("-save", Origin::Save(files)),
    ];
    frozen::json("launch-v1.txt", "origin", &origins);
}
