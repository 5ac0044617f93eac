//! The agents at work. Which ones: the variable says it, for the long suite and for people; by default Codex, beside
//! Claude Code's job in `agent_job`.

use crate::setting::Setting;
use sbx_e2e::agents::{CASES, does_its_job};

#[test]
fn an_agent_edits_through_its_providers_api_knows_where_it_is_and_never_holds_the_key() {
    let wanted = std::env::var("SBX_E2E_AGENTS").unwrap_or_else(|_| "codex".to_owned());
    let setting = Setting::ordinary("deny-all");
    for case in CASES {
        if wanted == "all" || wanted.split(',').any(|name| name == case.agent) {
            match does_its_job(&setting.installation, case) {
                Ok(seen) => println!("{seen}"),
                Err(why) => panic!("{}: {why}", case.agent),
            }
        }
    }
}
