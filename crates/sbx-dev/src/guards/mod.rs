//! `./dev soak guards`: takes out one guard of the gateway after the other and expects the tests that name it to fail.
//! A test that passes without its guard proves nothing.
//!
//! It works on a copy of what git knows, with a target folder of its own. The tests are built once; for each guard the
//! gateway alone is built again, and the tests run against it.

mod list;

use crate::run::{self, Failure, Result};
use list::{GUARDS, Guard};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The copy.
const COPY: &str = "target/guards/copy";

/// Tries every guard, or those whose number or one of whose tests contains one of the words.
pub(crate) fn run(words: &[&str]) -> Result {
    let chosen: Vec<(usize, &Guard)> = GUARDS
        .iter()
        .enumerate()
        .filter(|(at, guard)| {
            let named = |word: &&str| match word.parse::<usize>() {
                Ok(number) => number == *at,
                Err(_) => guard.tests.iter().any(|t| t.contains(*word)),
            };
            words.is_empty() || words.iter().any(named)
        })
        .collect();
    for (at, guard) in &chosen {
        once(*at, guard, &read(Path::new(guard.file))?)?;
    }
    copy()?;
    let bench = Bench::new()?;
    let mut all: Vec<&str> = chosen
        .iter()
        .flat_map(|(_, guard)| guard.tests)
        .copied()
        .collect();
    all.sort_unstable();
    all.dedup();
    let failed = bench.failing(&all)?;
    if !failed.is_empty() {
        return Err(Failure::new(
            format!(
                "these tests fail with every guard in place: {}",
                failed.join(", ")
            ),
            "./dev test",
        ));
    }
    let mut useless = Vec::new();
    for (at, guard) in &chosen {
        // One that cannot be tried is reported with the others.
        let left = bench
            .without(guard)
            .unwrap_or_else(|failure| vec![failure.message]);
        let verdict = if left.is_empty() {
            "noticed"
        } else {
            "NOT NOTICED"
        };
        eprintln!("{at:>3} {verdict}: {} ({})", guard.what, guard.file);
        useless.extend(
            left.iter()
                .map(|test| format!("{at} {test}: {}", guard.what)),
        );
    }
    if useless.is_empty() {
        eprintln!("{} guards, each of which some test misses", chosen.len());
        return Ok(());
    }
    Err(Failure {
        message: format!(
            "tests that pass without their guard:\n  {}",
            useless.join("\n  ")
        ),
        hint: None,
    })
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|error| {
        Failure::new(
            format!("cannot read {}: {error}", path.display()),
            "run ./dev in the repository",
        )
    })
}

fn write(path: &Path, text: &str) -> Result {
    fs::write(path, text).map_err(|error| {
        Failure::new(
            format!("cannot write {}: {error}", path.display()),
            "free space",
        )
    })
}

/// A guard that moved must be found again by a person, not left out.
fn once(at: usize, guard: &Guard, text: &str) -> Result {
    match text.matches(guard.text).count() {
        1 => Ok(()),
        count => Err(Failure::new(
            format!(
                "guard {at} ({}) stands {count} times in {}, not once",
                guard.what, guard.file
            ),
            "bring its text in crates/sbx-dev/src/guards/list.rs up to date",
        )),
    }
}

/// Copies what git knows; files that did not change keep their time, so that little is built again.
fn copy() -> Result {
    let output = Command::new("git").args(["ls-files", "-z"]).output();
    let output = output
        .map_err(|error| Failure::new(format!("cannot run git: {error}"), "apt-get install git"))?;
    for name in String::from_utf8_lossy(&output.stdout)
        .split('\0')
        .filter(|name| !name.is_empty())
    {
        let to = Path::new(COPY).join(name);
        let new = fs::read(name).unwrap_or_default();
        if fs::read(&to).is_ok_and(|old| old == new) {
            continue;
        }
        let folder = to.parent().unwrap_or(Path::new(COPY));
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(&to, &new))
            .map_err(|error| {
                Failure::new(
                    format!("cannot write {}: {error}", to.display()),
                    "free space",
                )
            })?;
    }
    Ok(())
}

/// The copy with its tests built.
struct Bench {
    tests: PathBuf,
}

impl Bench {
    fn new() -> Result<Self> {
        let mut command = cargo(&[
            "test",
            "--no-run",
            "--message-format",
            "json",
            "-p",
            "sbx-gateway",
            "--test",
            "it",
        ]);
        let output = command.stderr(std::process::Stdio::inherit()).output();
        let output = output
            .map_err(|error| Failure::new(format!("cannot run cargo: {error}"), "./dev setup"))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let tests = text
            .lines()
            .filter(|line| line.contains("\"name\":\"it\""))
            .find_map(|line| line.split("\"executable\":\"").nth(1)?.split('"').next());
        let none = || {
            Failure::new(
                "the gateway's tests cannot be built",
                "cargo test --no-run -p sbx-gateway",
            )
        };
        Ok(Self {
            tests: tests.ok_or_else(none)?.into(),
        })
    }

    /// Which of the tests fail.
    fn failing(&self, tests: &[&str]) -> Result<Vec<String>> {
        let output = Command::new(&self.tests)
            .args(["--exact", "--test-threads", "2"])
            .args(tests)
            .env("RUST_BACKTRACE", "0")
            .current_dir(Path::new(COPY).join("crates/sbx-gateway"))
            .output();
        let output = output.map_err(|error| {
            Failure::new(format!("cannot run the tests: {error}"), "./dev test")
        })?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let of = |test: &str| {
            text.lines()
                .find(|line| line.starts_with(&format!("test {test} ...")))
        };
        if let Some(missing) = tests
            .iter()
            .find(|test| of(test).is_none() && !text.contains(&format!("test {test} ")))
        {
            return Err(Failure::new(
                format!("there is no test {missing}"),
                "bring crates/sbx-dev/src/guards/list.rs up to date",
            ));
        }
        Ok(tests
            .iter()
            .filter(|test| text.lines().any(|line| line.trim() == **test))
            .map(ToString::to_string)
            .collect())
    }

    /// Which of the guard's tests pass without it.
    fn without(&self, guard: &Guard) -> Result<Vec<String>> {
        let path = Path::new(COPY).join(guard.file);
        let whole = read(&path)?;
        write(&path, &whole.replacen(guard.text, guard.instead, 1))?;
        let built = run::finish(
            &mut cargo(&[
                "build",
                "--quiet",
                "-p",
                "sbx-gateway",
                "--bin",
                "sbx-gateway",
            ]),
            &format!("cargo build without \"{}\"", guard.what),
        );
        let failing = built.and_then(|()| self.failing(guard.tests));
        write(&path, &whole)?;
        let failing = failing?;
        let passes = |test: &&&str| !failing.iter().any(|failed| failed == **test);
        Ok(guard
            .tests
            .iter()
            .filter(passes)
            .map(ToString::to_string)
            .collect())
    }
}

/// Cargo on the copy. Nothing is measured and nothing shipped: it is built as fast as it can be.
fn cargo(arguments: &[&str]) -> Command {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut command = Command::new(cargo);
    let (verb, rest) = arguments.split_first().unwrap_or((&"", &[]));
    command
        .args([verb, "--release", "--locked"])
        .args(rest)
        .current_dir(COPY)
        .env("CARGO_TARGET_DIR", "../target")
        .env("CARGO_INCREMENTAL", "1")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
        .env("RUSTFLAGS", "-Awarnings");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_guard_stands_once_in_its_file_and_has_a_test() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        for (at, guard) in GUARDS.iter().enumerate() {
            let text = fs::read_to_string(root.join(guard.file)).unwrap();
            assert!(once(at, guard, &text).is_ok(), "{at} {}", guard.what);
            assert!(
                !guard.tests.is_empty() && guard.text != guard.instead,
                "{at}"
            );
            for test in guard.tests {
                let name = test.rsplit("::").next().unwrap();
                let file = test.split("::").next().unwrap();
                let path = root.join(format!("crates/sbx-gateway/tests/it/{file}.rs"));
                let text = fs::read_to_string(&path).unwrap();
                assert!(text.contains(&format!("fn {name}()")), "{at} {test}");
            }
        }
    }
}
