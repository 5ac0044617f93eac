//! `./dev soak guards`: takes out one guard after the other and expects the tests that name it to fail. A test that
//! passes without its guard proves nothing.
//!
//! It works on a copy of what git knows, with a target folder of its own. The tests are built once; for each guard only
//! what the tests run is built again: the gateway's program, and the share's tests, which have the share in them.
#![expect(
    clippy::needless_raw_string_hashes,
    reason = "texts of source are quoted alike, with or without a quote in them"
)]

mod adapter;
mod gateway;
mod jail;
mod life;
mod policy;
mod share;
mod share_tree;
mod values;
mod websocket;

use crate::run::{self, Failure, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The copy.
const COPY: &str = "target/guards/copy";

/// One guard.
struct Guard {
    /// What it keeps.
    what: &'static str,
    /// Where it stands, from the repository's root.
    file: &'static str,
    /// Its text, which stands there once.
    text: &'static str,
    /// What stands there without it.
    instead: &'static str,
    /// The tests of the crate whose guards these are that must fail without it, all of them.
    tests: &'static [&'static str],
}

/// Guards that the tests of one crate miss.
struct Part {
    /// The crate.
    package: &'static str,
    /// What has tests in it, for `cargo test`.
    tests: &'static [&'static str],
    /// What is built again without a guard, for cargo.
    without: &'static [&'static str],
    /// Its tests take no list of names: all of them are run.
    whole: bool,
    guards: &'static [&'static [Guard]],
}

impl Part {
    fn count(&self) -> usize {
        self.guards.iter().map(|guards| guards.len()).sum()
    }
}

/// Every part. Guards are numbered through all of them.
const PARTS: &[Part] = &[
    Part {
        package: "sbx-gateway",
        tests: &["--test", "it"],
        without: &["build", "--bin", "sbx-gateway"],
        whole: false,
        guards: &[
            policy::GUARDS,
            adapter::GUARDS,
            gateway::GUARDS,
            values::GUARDS,
            websocket::GUARDS,
            life::GUARDS,
        ],
    },
    Part {
        package: "sbx-share",
        tests: &["--lib", "--test", "it"],
        without: &["test", "--no-run", "--lib", "--test", "it"],
        whole: false,
        guards: &[share::GUARDS, share_tree::GUARDS],
    },
    Part {
        package: "sbx-jail",
        tests: &["--test", "it"],
        without: &["test", "--no-run", "--test", "it"],
        whole: true,
        guards: &[jail::GUARDS],
    },
];

/// Tries every guard, or those whose number is one of the words, or whose crate or one of whose tests contains one.
pub(crate) fn run(words: &[&str]) -> Result {
    let mut first = 0;
    let mut parts = Vec::new();
    for part in PARTS {
        let chosen = chosen(part, first, words);
        first += part.count();
        for (at, guard) in &chosen {
            once(*at, guard, &read(Path::new(guard.file))?)?;
        }
        if !chosen.is_empty() {
            parts.push((part, chosen));
        }
    }
    copy()?;
    let mut useless = Vec::new();
    for (part, chosen) in &parts {
        useless.extend(run_part(part, chosen)?);
    }
    let count: usize = parts.iter().map(|(_, chosen)| chosen.len()).sum();
    if useless.is_empty() {
        eprintln!("{count} guards, each of which some test misses");
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

fn chosen(part: &'static Part, first: usize, words: &[&str]) -> Vec<(usize, &'static Guard)> {
    let all = (first..).zip(part.guards.iter().copied().flatten());
    all.filter(|(at, guard)| {
        let named = |word: &&str| match word.parse::<usize>() {
            Ok(number) => number == *at,
            Err(_) => part.package.contains(*word) || guard.tests.iter().any(|t| t.contains(*word)),
        };
        words.is_empty() || words.iter().any(named)
    })
    .collect()
}

/// Tries guards of one part. Returns which tests pass without theirs.
fn run_part(part: &'static Part, chosen: &[(usize, &'static Guard)]) -> Result<Vec<String>> {
    let bench = Bench::new(part)?;
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
    for (at, guard) in chosen {
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
    Ok(useless)
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
            "bring its text in crates/sbx-dev/src/guards up to date",
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
    part: &'static Part,
    tests: Vec<PathBuf>,
}

impl Bench {
    fn new(part: &'static Part) -> Result<Self> {
        let build = ["test", "--no-run", "--message-format", "json", "-p"];
        let mut command = cargo(&build);
        command.arg(part.package).args(part.tests);
        let output = command.stderr(std::process::Stdio::inherit()).output();
        let output = output
            .map_err(|error| Failure::new(format!("cannot run cargo: {error}"), "./dev setup"))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let tests: Vec<PathBuf> = text
            .lines()
            .filter(|line| line.contains("\"test\":true}"))
            .filter_map(|line| line.split("\"executable\":\"").nth(1)?.split('"').next())
            .map(PathBuf::from)
            .collect();
        // A program that tests find beside them.
        let kit = cargo(&["build", "-p", "sbx-testkit", "--bin", "sbx-netns"]).status();
        let kit = kit.is_ok_and(|status| status.success());
        if tests.is_empty() || !output.status.success() || !kit {
            return Err(Failure::new(
                format!("the tests of {} cannot be built", part.package),
                format!("cargo test --no-run -p {}", part.package),
            ));
        }
        Ok(Self { part, tests })
    }

    /// Which of the tests fail.
    fn failing(&self, tests: &[&str]) -> Result<Vec<String>> {
        let mut text = String::new();
        for program in &self.tests {
            let named = if self.part.whole { &[][..] } else { tests };
            let output = Command::new(program)
                .args(["--exact", "--test-threads", "2"])
                .args(named)
                .env("RUST_BACKTRACE", "0")
                .current_dir(Path::new(COPY).join("crates").join(self.part.package))
                .output();
            let output = output.map_err(|error| {
                Failure::new(format!("cannot run the tests: {error}"), "./dev test")
            })?;
            text.push_str(&String::from_utf8_lossy(&output.stdout));
        }
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
                "bring crates/sbx-dev/src/guards up to date",
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
        let mut build = cargo(self.part.without);
        build.args(["--quiet", "-p", self.part.package]);
        let what = format!("cargo build without \"{}\"", guard.what);
        let built = run::finish(&mut build, &what);
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
        for part in PARTS {
            let folder = root.join("crates").join(part.package);
            for (at, guard) in part.guards.iter().copied().flatten().enumerate() {
                let text = fs::read_to_string(root.join(guard.file)).unwrap();
                assert!(once(at, guard, &text).is_ok(), "{at} {}", guard.what);
                assert!(
                    !guard.tests.is_empty() && guard.text != guard.instead,
                    "{at}"
                );
                for test in guard.tests {
                    let Some((module, name)) = test.rsplit_once("::") else {
                        // One of a table.
                        let table = fs::read_to_string(folder.join("tests/it/facts.rs"));
                        let found = table.unwrap().contains(&format!("\"{test}\""));
                        assert!(found, "{at} {test}");
                        continue;
                    };
                    let module = module.strip_suffix("::tests").unwrap_or(module);
                    let file = module.replace("::", "/");
                    let text = fs::read_to_string(folder.join(format!("tests/it/{file}.rs")))
                        .or_else(|_| fs::read_to_string(folder.join(format!("src/{file}.rs"))));
                    let found = text.unwrap().contains(&format!("fn {name}()"));
                    assert!(found, "{at} {test}");
                }
            }
        }
    }
}
