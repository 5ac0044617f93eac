//! What is found relative to a repository is found there as long as the repository stays.

use super::*;

impl Bench {
    fn stay(&self) -> Vec<String> {
        let found = self.find("w").unwrap();
        assert_eq!(found.notices, Vec::<String>::new());
        assert!(found.stay.iter().all(|stay| stay.mode == Mode::Block));
        found.stay.into_iter().map(|stay| stay.path).collect()
    }
}

#[test]
fn a_repository_stays_while_something_is_found_relative_to_it() {
    let none: [&str; 0] = [];
    let bench = Bench::new();
    bench.repository("lib");
    bench.repository("w");
    let add = ["submodule", "--quiet", "add", "../lib", "vendor/lib"];
    bench.git("w", &add);
    bench.git("w", &["worktree", "add", "-q", "tree"]);
    bench.git("w", &["config", "core.hooksPath", ".githooks"]);
    let absolute = bench.path("w/conf").display().to_string();
    bench.git("w", &["config", "include.path", &absolute]);
    assert_eq!(bench.stay(), none, "what floats or is fixed ties nothing");
    bench.git("w", &["config", "include.path", "../.gitconfig"]);
    assert_eq!(bench.stay(), [".git"]);
    // Another one that finds the same.
    bench.repository("w/a/sub");
    let config = ["config", "include.path", "../../../.gitconfig"];
    bench.git("w/a/sub", &config);
    assert_eq!(bench.stay(), [".git", "a/sub/.git"]);
}

#[test]
fn links_tie_a_repository_to_its_place() {
    let bench = Bench::new();
    bench.repository("w");
    symlink("../../scripts/check", bench.path("w/.git/hooks/pre-commit")).unwrap();
    assert_eq!(bench.stay(), [".git/hooks"]);
    fs::remove_dir_all(bench.path("w/.git/hooks")).unwrap();
    symlink("../tools/hooks", bench.path("w/.git/hooks")).unwrap();
    assert_eq!(bench.stay(), [".git"]);
    fs::remove_file(bench.path("w/.git/hooks")).unwrap();
    // A relative directory of hooks that is reached by a link in the files of a repository.
    bench.repository("w/sub");
    bench.git("w/sub", &["config", "core.hooksPath", "tools/hooks"]);
    symlink("real", bench.path("w/sub/tools")).unwrap();
    assert_eq!(bench.stay(), ["sub"]);
    // A git directory of another name, found relative to the file that says so.
    fs::remove_file(bench.path("w/sub/tools")).unwrap();
    fs::rename(bench.path("w/sub/.git"), bench.path("w/sub/.bare")).unwrap();
    bench.write("w/sub/.git", "gitdir: ./.bare\n");
    assert_eq!(bench.stay(), ["sub", "sub/.bare"]);
}
