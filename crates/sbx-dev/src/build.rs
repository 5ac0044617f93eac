//! Building everything that `sbx` needs beside it.

use crate::run::{self, Failure, Result};
use std::fs;
use std::path::Path;
use std::process::Command;

/// The guest runs on this; it is linked statically because it is all there is in the initial RAM disk.
pub(crate) const GUEST_TARGET: &str = "x86_64-unknown-linux-gnu";
/// Compiler flags of what runs there. Every machine reads it all at its start and keeps it in memory: a sixth of the size
/// without symbols.
pub(crate) const STATIC: &str = "-C target-feature=+crt-static -C strip=symbols";
/// Name of the static guest beside `sbx`. Not `sbx-guest`: cargo puts the dynamic build of the same package
/// there whenever the guest's tests are built.
const GUEST: &str = "sbx-guest.static";

/// Every program, in `target/release`. It takes minutes the first time: cargo says what it is at.
pub(crate) fn everything() -> Result {
    run::cargo(&[
        "build",
        "--release",
        "--locked",
        "--workspace",
        "--exclude",
        "sbx-guest",
        "--bins",
    ])?;
    guest()
}

fn guest() -> Result {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut command = Command::new(cargo);
    command
        .args([
            "build",
            "--release",
            "--locked",
            "-p",
            "sbx-guest",
            "--target",
        ])
        .arg(GUEST_TARGET)
        .env("RUSTFLAGS", STATIC);
    run::finish(&mut command, "cargo build -p sbx-guest (static)")?;
    let built = Path::new("target")
        .join(GUEST_TARGET)
        .join("release/sbx-guest");
    let place = Path::new("target/release").join(GUEST);
    let new = Path::new("target/release").join(format!("{GUEST}.new"));
    // Copied and renamed: a sandbox may be starting from the old one at this moment.
    fs::copy(&built, &new)
        .and_then(|_| fs::rename(&new, &place))
        .map_err(|error| {
            Failure::new(
                format!("cannot put the guest beside sbx: {error}"),
                "remove target/release and run ./dev setup again",
            )
        })
}
