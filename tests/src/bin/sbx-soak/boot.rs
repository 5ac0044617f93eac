//! `./dev soak boot [N]`: N cold boots in a row (50 unless told) while every core is busy; none may be lost.

use crate::setting;
use sbx_e2e::Installation;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub(crate) fn run(count: u32) -> Result<(), String> {
    let (root, installation) = setting()?;
    let stop = Arc::new(AtomicBool::new(false));
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let load: Vec<_> = (0..cores)
        .map(|_| std::thread::spawn(busy(Arc::clone(&stop))))
        .collect();
    let result = boot_all(&installation, count);
    stop.store(true, Ordering::Relaxed);
    for thread in load {
        let _ended = thread.join();
    }
    installation.tear_down();
    drop(root);
    result
}

fn boot_all(installation: &Installation, count: u32) -> Result<(), String> {
    let create = ["create", "shell", "--name", "soak", "--memory", "1g"];
    installation.sbx(create).success()?;
    let mut took = Vec::new();
    for number in 1..=count {
        installation.sbx(["stop", "soak"]).success()?;
        let outcome = installation.inside("soak", "cat /proc/uptime");
        if !outcome.ok() {
            return Err(format!(
                "boot {number} of {count}: {outcome}\n{}",
                installation.logs()
            ));
        }
        println!("boot {number}/{count}: {:.1} s", outcome.took.as_secs_f64());
        took.push(outcome.took);
    }
    took.sort();
    let seconds = |d: Option<&Duration>| d.map_or(0.0, Duration::as_secs_f64);
    println!(
        "{count} cold boots under load, none lost: fastest {:.1} s, median {:.1} s, slowest {:.1} s",
        seconds(took.first()),
        seconds(took.get(took.len() / 2)),
        seconds(took.last())
    );
    Ok(())
}

fn busy(stop: Arc<AtomicBool>) -> impl FnOnce() + Send + 'static {
    move || {
        let mut value = 1u64;
        while !stop.load(Ordering::Relaxed) {
            for _ in 0..100_000 {
                value = std::hint::black_box(
                    value
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1),
                );
            }
        }
    }
}
