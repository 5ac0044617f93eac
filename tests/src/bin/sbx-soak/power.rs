//! `./dev soak power [ITEMS [CUTS]]`: the power of a working sandbox is cut at many flushes of its disk.

use crate::setting;
use sbx_e2e::power;

pub(crate) fn run(items: u32, cuts: u32) -> Result<(), String> {
    let (root, mut installation) = setting()?;
    let logs = power::run::prepare(&mut installation, root.path())?;
    let workspace = installation.folder("work")?;
    let path = workspace.display().to_string();
    let create = ["create", "shell", &path, "--name", "cut", "--memory", "1g"];
    let result = installation.sbx(create).success().and_then(|_| {
        println!("{items} items");
        let logged = power::run::work(&installation, ("cut", &workspace), items.into(), &logs)?;
        let count = usize::try_from(cuts).map_err(|e| e.to_string())?;
        power::check(&logged, &installation, count, |line| println!("{line}"))
    });
    installation.tear_down();
    println!("{}", result?);
    Ok(())
}
