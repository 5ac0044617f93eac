//! The main job: the real agent in a real machine, every claim of the demo, as an ordinary user.

use crate::setting::Setting;
use sbx_e2e::claims::{Claim, Stage};

#[test]
fn a_real_agent_does_its_job_and_every_claim_of_the_demo_holds() {
    let setting = Setting::ordinary("");
    let mut stage = Stage::set(setting.installation.clone(), "job").unwrap();
    hold("edit on the host", stage.edit_on_host());
    hold("own kernel", stage.own_kernel());
    hold("outside out of reach", stage.outside_out_of_reach());
    hold("docker runs", stage.docker_runs());
    hold("allowed host answers", stage.allowed_host_answers());
    hold("denied host gets 403", stage.denied_host_403());
    hold("raw traffic is stopped", stage.raw_traffic_stopped());
    // Before the search inside, which puts the key together there.
    hold("the key is nowhere", stage.secret_is_nowhere());
    hold("the key stays outside", stage.key_stays_outside());
    hold("policy log", stage.policy_log());
    hold("times", stage.times());
    hold("the agent knows where it is", stage.note_arrived());
    assert_ne!(
        setting.installation.uid(),
        0,
        "the job is done by an ordinary user"
    );
}

#[track_caller]
fn hold(name: &str, claim: Claim) {
    match claim {
        Ok(observed) => println!("{name}: {observed}"),
        Err(why) => panic!("{name}: {why}"),
    }
}
