//! `./dev soak fuzz`: a minute of libFuzzer for each target, and a planted mistake that has to be found.

use crate::packages;
use crate::run::{self, Failure, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The fuzzer's workspace.
const FOLDER: &str = "fuzz";
/// How long each target is run.
const SECONDS: u32 = 60;
/// How long the planted mistake is looked for at most. It is a matter of luck when it is found.
const PLANTED_SECONDS: u32 = 180;
/// What makes libFuzzer see which code was reached, as cargo-fuzz sets it, less the sanitizers that need a nightly
/// compiler.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
                        -Cllvm-args=-sanitizer-coverage-pc-table \
                        -Cllvm-args=-sanitizer-coverage-trace-compares";
/// The target with a mistake in it when it is built so.
const PLANTED: &str = "policy";

/// Runs the targets named, or all of them and then the planted mistake. `--planted`: that one only. `--minimise`: what
/// was found goes into the corpus, which is then reduced to what reaches different code.
pub(crate) fn run(arguments: &[&str]) -> Result {
    packages::install(packages::For::Building)?;
    packages::cxx()?;
    let mut targets = targets()?;
    let flag = |name| arguments.contains(&name);
    let named: Vec<&str> = arguments
        .iter()
        .copied()
        .filter(|a| !a.starts_with("--"))
        .collect();
    if let Some(unknown) = named
        .iter()
        .find(|name| !targets.iter().any(|target| target == *name))
    {
        return Err(Failure::new(
            format!("there is no fuzz target {unknown}"),
            format!(
                "./dev soak fuzz [--planted] [--minimise] [{}]",
                targets.join("|")
            ),
        ));
    }
    if !named.is_empty() {
        targets.retain(|target| named.contains(&target.as_str()));
    }
    let built = Built::new()?;
    if !flag("--planted") {
        built.build(&[])?;
        for target in &targets {
            built.fuzz(target)?;
            if flag("--minimise") {
                built.minimise(target)?;
            }
        }
    }
    if flag("--planted") || named.is_empty() {
        built.build(&["--features", "planted-bug", "--bin", PLANTED])?;
        built.find_planted()?;
    }
    Ok(())
}

/// The names of the programs.
fn targets() -> Result<Vec<String>> {
    let entries = fs::read_dir(Path::new(FOLDER).join("src")).map_err(|error| {
        Failure::new(
            format!("cannot list {FOLDER}/src: {error}"),
            "run ./dev in the repository",
        )
    })?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| {
            Some(
                entry
                    .ok()?
                    .path()
                    .file_stem()?
                    .to_string_lossy()
                    .into_owned(),
            )
        })
        .collect();
    names.sort_unstable();
    Ok(names)
}

/// How a run ended.
struct Ran {
    clean: bool,
    log: String,
}

struct Built {
    /// The machine's own target triple. Named, so that the flags are not those of build scripts as well.
    triple: String,
}

impl Built {
    fn new() -> Result<Self> {
        let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
        let version = Command::new(rustc).arg("-vV").output();
        let text = version.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        let triple = text.unwrap_or_default();
        let triple = triple.lines().find_map(|line| line.strip_prefix("host: "));
        let failure = || {
            Failure::new(
                "rustc does not say for which machine it builds",
                "rustc -vV",
            )
        };
        Ok(Self {
            triple: triple.ok_or_else(failure)?.to_owned(),
        })
    }

    fn build(&self, more: &[&str]) -> Result {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        let mut command = Command::new(cargo);
        command
            .args([
                "build",
                "--quiet",
                "--release",
                "--locked",
                "--target",
                &self.triple,
            ])
            .args(more)
            .current_dir(FOLDER)
            .env("RUSTFLAGS", COVERAGE);
        run::finish(&mut command, &format!("cargo build in {FOLDER}"))
    }

    fn program(&self, target: &str) -> PathBuf {
        let built = Path::new(FOLDER).join("target").join(&self.triple);
        built.join("release").join(target)
    }

    /// Runs a target on its corpus. What it finds is kept below `target`, bytes that break it too.
    fn run(&self, target: &str, found: &Path, options: &[String]) -> Result<Ran> {
        let artifacts = Path::new(FOLDER).join("target/artifacts");
        for folder in [found, &artifacts] {
            fs::create_dir_all(folder).map_err(|error| {
                Failure::new(
                    format!("cannot make {}: {error}", folder.display()),
                    "free space",
                )
            })?;
        }
        let program = self.program(target);
        let output = Command::new(&program)
            .args(["-rss_limit_mb=2048", "-timeout=20", "-max_len=4096"])
            .arg(format!(
                "-artifact_prefix={}/{target}-",
                artifacts.display()
            ))
            .args(options)
            .arg(found)
            .arg(corpus(target))
            .output();
        let output = output.map_err(|error| {
            Failure::new(
                format!("cannot run {}: {error}", program.display()),
                "./dev soak fuzz",
            )
        })?;
        Ok(Ran {
            clean: output.status.success(),
            log: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    fn fuzz(&self, target: &str) -> Result {
        let found = Path::new(FOLDER).join("target/found").join(target);
        let options = [
            format!("-max_total_time={SECONDS}"),
            "-print_final_stats=1".to_owned(),
        ];
        let ran = self.run(target, &found, &options)?;
        if !ran.clean {
            let last: Vec<&str> = ran.log.lines().rev().take(30).collect();
            let last: Vec<&str> = last.into_iter().rev().collect();
            return Err(Failure::new(
                format!("{target} breaks:\n{}", last.join("\n")),
                format!(
                    "{} BYTES, with the file named above",
                    self.program(target).display()
                ),
            ));
        }
        let runs = word_after(&ran.log, "stat::number_of_executed_units:");
        let reached = word_after(&ran.log, " cov:");
        eprintln!("{target}: {SECONDS} s, {runs} inputs, {reached} places reached, nothing broken");
        Ok(())
    }

    /// The corpus becomes the fewest files that reach what it and the findings reach.
    fn minimise(&self, target: &str) -> Result {
        let found = Path::new(FOLDER).join("target/found").join(target);
        let fewest = Path::new(FOLDER).join("target/fewest").join(target);
        let _ = fs::remove_dir_all(&fewest);
        fs::create_dir_all(&fewest)
            .map_err(|error| Failure::new(format!("{error}"), "free space"))?;
        let program = self.program(target);
        let mut command = Command::new(&program);
        command
            .arg("-merge=1")
            .arg("-max_len=4096")
            .args([&fewest, &found, &corpus(target)]);
        run::finish(
            command.stderr(std::process::Stdio::null()),
            "merging a corpus",
        )?;
        let failed = |error: std::io::Error| {
            Failure::new(format!("cannot replace the corpus: {error}"), "git status")
        };
        fs::remove_dir_all(corpus(target)).map_err(failed)?;
        fs::create_dir_all(corpus(target)).map_err(failed)?;
        for entry in fs::read_dir(&fewest).map_err(failed)? {
            let from = entry.map_err(failed)?.path();
            if let Some(name) = from.file_name() {
                fs::copy(&from, corpus(target).join(name)).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// The planted mistake is found in time, by what was not in the corpus.
    fn find_planted(&self) -> Result {
        let found = Path::new(FOLDER).join("target/found-planted");
        let _ = fs::remove_dir_all(&found);
        let options = [format!("-max_total_time={PLANTED_SECONDS}")];
        let ran = self.run(PLANTED, &found, &options)?;
        if ran.clean || !ran.log.contains("planted") {
            return Err(Failure::new(
                format!("the planted mistake in {PLANTED} was not found in {PLANTED_SECONDS} s"),
                "is the corpus there, and does libFuzzer see coverage?",
            ));
        }
        let runs = ran
            .log
            .lines()
            .filter_map(|line| line.strip_prefix('#'))
            .next_back();
        let runs = runs
            .and_then(|line| line.split_whitespace().next())
            .unwrap_or("?");
        eprintln!("{PLANTED} with a planted mistake: found after about {runs} inputs");
        Ok(())
    }
}

fn corpus(target: &str) -> PathBuf {
    Path::new(FOLDER).join("corpus").join(target)
}

/// The last word that follows the mark.
fn word_after<'a>(text: &'a str, mark: &str) -> &'a str {
    text.rsplit_once(mark)
        .and_then(|(_, rest)| rest.split_whitespace().next())
        .unwrap_or("?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_a_run_are_read_from_its_log() {
        let log = "#2\tINITED cov: 10 ft: 11\n#99\tDONE   cov: 120 ft: 300\n\
                   stat::number_of_executed_units: 99\n";
        assert_eq!(word_after(log, " cov:"), "120");
        assert_eq!(word_after(log, "stat::number_of_executed_units:"), "99");
        assert_eq!(word_after(log, "nothing:"), "?");
    }
}
