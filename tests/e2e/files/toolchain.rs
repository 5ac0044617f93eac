//! A compiler at work on both sides of one folder of results, each time with what the other has left there.

use crate::setting::Setting;
use sbx_e2e::installation::run;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// What of the machine's own toolchain compiles a library: it has its libraries beside it and needs no linker.
const PARTS: &str =
    "bin/cargo bin/rustc lib/librustc_driver-*.so lib/libLLVM* lib/rustlib/*-linux-gnu/lib";

struct Stage {
    setting: Setting,
    workspace: PathBuf,
    rust: PathBuf,
}

impl Stage {
    fn set() -> Self {
        let setting = super::quick();
        let installation = &setting.installation;
        let workspace = installation.folder("work-toolchain").unwrap();
        // The machine's may lie where the installation's user cannot look.
        let rust = installation.folder("rust").unwrap();
        let copied = Command::new("bash")
            .arg("-c")
            .arg(format!(
                "set -e; cd \"$(rustc --print sysroot)\"; cp -RL --preserve=mode,timestamps --parents {PARTS} {}",
                rust.display()
            ))
            .status();
        assert!(copied.unwrap().success());
        let (work, read_only) = (
            workspace.display().to_string(),
            format!("{}:ro", rust.display()),
        );
        let create = [
            "create",
            "shell",
            &work,
            &read_only,
            "--name",
            "toolchain",
            "--memory",
            "2g",
            "--cpus",
            "2",
        ];
        installation.sbx(create).success().unwrap();
        setting.await_snapshots();
        Self {
            setting,
            workspace,
            rust,
        }
    }

    /// A shell line with the toolchain in front, the same files for both sides; what cargo keeps for itself is each side's.
    fn line(&self, home: &Path, line: &str) -> String {
        format!(
            "set -e; export PATH={}/bin:$PATH CARGO_HOME={}; {line}",
            self.rust.display(),
            home.display()
        )
    }

    fn guest(&self, line: &str) -> String {
        let line = self.line(Path::new("/tmp/cargo"), line);
        self.setting.inside("toolchain", &line).trim().to_owned()
    }

    /// As the installation's user, in the workspace.
    fn host(&self, line: &str) -> String {
        let installation = &self.setting.installation;
        let home = installation.folder("cargo").unwrap();
        let line = self.line(&home, line);
        let mut command = installation.program("/bin/bash", ["-c", &line]);
        command.current_dir(&self.workspace);
        let seen = run(command, b"").success().unwrap();
        // What the host did is seen inside after this.
        std::thread::park_timeout(Duration::from_secs(1));
        seen.trim().to_owned()
    }
}

/// A line that gives the library another word.
fn edit(word: &str) -> String {
    format!("echo 'pub fn who() -> &'\"'\"'static str {{ \"written by {word}\" }}' > src/lib.rs")
}

/// A line that compiles, and prints which of these words are in the result then.
fn build(words: &[&str]) -> String {
    let words = words.join(" ");
    format!(
        "cargo build --offline --quiet; for word in {words}; do if grep -qa \"written by $word\" target/debug/libtiny.rlib; then echo $word; fi; done"
    )
}

/// A line that prints what cargo says of the library when nothing has changed.
const AGAIN: &str =
    "cargo build --offline -v 2>&1 | grep -o '\\(Fresh\\|Dirty\\|Compiling\\) tiny'";

#[test]
fn cargo_inside_goes_on_with_what_the_host_built_and_edited_and_the_other_way() {
    const WORDS: [&str; 4] = ["first", "second", "third", "fourth"];
    let stage = Stage::set();
    let start = Instant::now();
    let took = |what: &str| println!("{what}: {:.1} s", start.elapsed().as_secs_f64());
    let [first, second, third, fourth] = WORDS.map(edit);
    let (cd, build) = ("cd crate", build(&WORDS));
    // Made and compiled inside: the host has nothing left to do.
    let made = stage.guest(&format!(
        "mkdir -p crate/src; {cd}; printf '[package]\\nname = \"tiny\"\\nedition = \"2024\"\\n[workspace]\\n' > Cargo.toml; {first}; {build}"
    ));
    assert_eq!(made, "first");
    took("inside");
    assert_eq!(stage.host(&format!("{cd}; {AGAIN}")), "Fresh tiny");
    // Edited and compiled on the host: nor has the guest.
    assert_eq!(stage.host(&format!("{cd}; {second}; {build}")), "second");
    assert_eq!(stage.guest(&format!("{cd}; {AGAIN}")), "Fresh tiny");
    took("as the host left it");
    // Edited on the host, compiled inside, from what the host's compiler remembers.
    stage.host(&format!("{cd}; {third}"));
    assert_eq!(stage.guest(&format!("{cd}; {build}")), "third");
    took("inside, after the host's edit");
    // Edited and compiled inside, and found by the host; edited inside, and compiled on the host.
    assert_eq!(stage.guest(&format!("{cd}; {fourth}; {build}")), "fourth");
    took("inside, after an edit there");
    assert_eq!(stage.host(&format!("{cd}; {AGAIN}")), "Fresh tiny");
    stage.guest(&format!("{cd}; {first}"));
    assert_eq!(stage.host(&format!("{cd}; {build}")), "first");
    // Removed on the one side and made again on the other.
    stage.host(&format!("{cd}; cargo clean --quiet --offline"));
    assert_eq!(
        stage.guest(&format!("{cd}; ls; {build}")),
        "Cargo.lock\nCargo.toml\nsrc\nfirst"
    );
    took("inside, anew");
}
