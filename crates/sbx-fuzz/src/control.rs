//! The configuration, from the disk and from the control socket.

use sbx_gateway::generation::Generation;
use sbx_wire::gateway::{Command, GatewayFile};

use crate::gateway::host;

/// What is read as a configuration can be written and read again, and is refused or put in force.
pub(crate) fn run(bytes: &[u8]) {
    let _ = serde_json::from_slice::<Command>(bytes);
    let Ok(file) = serde_json::from_slice::<GatewayFile>(bytes) else {
        return;
    };
    let written = serde_json::to_vec(&file).expect("what was read can be written");
    let again: GatewayFile =
        serde_json::from_slice(&written).expect("what was written can be read");
    assert_eq!(file.policy, again.policy);
    let number = file.policy.generation;
    if let Ok(generation) = Generation::from_file(file, host()) {
        assert_eq!(generation.number, number);
        assert!(!generation.configured && generation.problem.is_none());
    }
}
