//! `./dev soak fsynced [KILLS [SEED]]`: processes killed while host and guest write and make it last.

use crate::setting;
use sbx_e2e::fsynced;

pub(crate) fn run(kills: u32, seed: u32) -> Result<(), String> {
    let (_root, installation) = setting()?;
    let workspace = installation.folder("work")?;
    let path = workspace.display().to_string();
    let create = [
        "create", "shell", &path, "--name", "fsynced", "--memory", "1g", "--cpus", "2",
    ];
    let result = installation.sbx(create).success().and_then(|_| {
        let place = ("fsynced", workspace.as_path());
        let work = (kills.into(), seed.into());
        fsynced::run(&installation, place, work, |report| println!("{report}"))
    });
    if result.is_err() {
        println!("{}", installation.logs());
    }
    installation.tear_down();
    println!("seed {seed}: {}; nothing lost and nothing left", result?);
    Ok(())
}
