//! `./dev soak agents [NAME]…`: each agent does its job in a machine, against a stand-in of its provider's API; `local` is
//! OpenCode with a model server on the host.

use crate::setting;
use sbx_e2e::agents::{CASES, does_its_job, works_with_a_local_model};

pub(crate) fn run(names: &[&str]) -> Result<(), String> {
    let (_root, installation) = setting()?;
    let wanted = |name: &str| names.is_empty() || names.contains(&name);
    let mut failed = Vec::new();
    for case in CASES.into_iter().filter(|case| wanted(case.agent)) {
        match does_its_job(&installation, case) {
            Ok(seen) => println!("{seen}"),
            Err(why) => {
                println!("{}: {why}", case.agent);
                failed.push(case.agent);
            }
        }
    }
    if wanted("local") {
        match works_with_a_local_model(&installation) {
            Ok(seen) => println!("{seen}"),
            Err(why) => {
                println!("local: {why}");
                failed.push("opencode with a local model");
            }
        }
    }
    installation.tear_down();
    if failed.is_empty() {
        Ok(())
    } else {
        Err(format!("did not do their job: {}", failed.join(", ")))
    }
}
