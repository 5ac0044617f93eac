//! Files in a workspace: what holds for them inside, for both sides at once, and what does not.

use crate::setting::Setting;
use sbx_e2e::files::{Peer, campaign};

/// Operations of the share of `./dev soak files` that runs here, and their seed.
const OPERATIONS: u64 = 4000;
const SEED: u64 = 1;

#[test]
fn after_random_operations_of_host_and_guest_in_turn_both_see_what_they_have_to() {
    let setting = Setting::ordinary("deny-all");
    let workspace = setting.shell("random");
    let mut inside = Peer::inside(&setting.installation, "random", "agent").unwrap();
    let mut outside = Peer::outside(&setting.installation, &workspace).unwrap();
    let report = campaign::run(&mut inside, &mut outside, (SEED, OPERATIONS), |_| ()).unwrap();
    println!("{report}");
}
