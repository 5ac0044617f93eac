//! `./dev soak files [OPERATIONS [SEED]]`: random operations of host and guest in turn on one folder.

use crate::setting;
use sbx_e2e::files::{Peer, campaign};

/// Turns between two lines of the report.
const TOLD: u64 = 20;

pub(crate) fn run(operations: u32, seed: u32) -> Result<(), String> {
    let (_root, installation) = setting()?;
    let workspace = installation.folder("work")?;
    let path = workspace.display().to_string();
    let create = [
        "create", "shell", &path, "--name", "files", "--memory", "1g",
    ];
    let result = installation.sbx(create).success().and_then(|_| {
        let mut inside = Peer::inside(&installation, "files", "agent")?;
        let mut outside = Peer::outside(&installation, &workspace)?;
        let work = (seed.into(), operations.into());
        campaign::run(&mut inside, &mut outside, work, |report| {
            if report.turns % TOLD == 0 {
                println!("{report}");
            }
        })
    });
    installation.tear_down();
    println!(
        "seed {seed}: {}; both sides saw the same files after every turn",
        result?
    );
    Ok(())
}
