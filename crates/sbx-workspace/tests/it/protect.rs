//! The list.

use sbx_workspace::protect::{Level, broken, standard};
use sbx_workspace::{Mode, PatternSet, What};

fn verdict(level: Level, path: &str) -> Option<(Mode, What)> {
    let list = standard(level);
    let set = PatternSet::new(list.iter().map(|entry| entry.pattern.clone()));
    let directory = path.ends_with('/');
    let names = path.trim_end_matches('/').split('/').map(str::as_bytes);
    let number = set.walk(names, directory).matched()?;
    let entry = &list[usize::from(number)];
    Some((entry.mode, entry.what))
}

#[test]
fn every_entry_is_a_pattern() {
    assert_eq!(broken().count(), 0);
}

#[test]
fn gits_own_files_are_blocked_and_the_others_reported() {
    let block = |what| Some((Mode::Block, what));
    let report = |what| Some((Mode::Report, what));
    for (path, expected) in [
        (".git/hooks/pre-commit", block(What::Everything)),
        (".git/hooks/pre-commit.sample", None),
        ("deep/er/.git/hooks/post-merge", block(What::Everything)),
        (".git/modules/a/b/hooks/pre-push", block(What::Everything)),
        (".git/config", block(What::GitConfig)),
        (".git/config.lock", None),
        (".git/modules/a/config", block(What::GitConfig)),
        (".git/worktrees/w/commondir", block(What::GitLink)),
        (".git/worktrees/w/config", block(What::GitConfig)),
        (".git/worktrees/w/hooks/pre-commit", block(What::Everything)),
        (
            ".git/worktrees/w/modules/a/b/hooks/pre-push",
            block(What::Everything),
        ),
        (".git/worktrees/w/modules/a/config", block(What::GitConfig)),
        (".git/worktrees/w/modules/a/commondir", block(What::GitLink)),
        (".git/worktrees/w/modules/a/HEAD", None),
        (".git/remotes/origin", block(What::Everything)),
        (".git/modules/a/branches/x", block(What::Everything)),
        (
            ".git/worktrees/w/modules/a/remotes/x",
            block(What::Everything),
        ),
        (".git/refs/remotes/origin/", None),
        (".git/refs/heads/branches/x", None),
        (".git/modules/a/refs/remotes/origin/", None),
        (".git/modules/a/refs/remotes/origin/branches/x", None),
        (".git/modules/a/logs/refs/remotes/origin/", None),
        (".git/worktrees/w/modules/a/refs/heads/remotes/x", None),
        (
            ".git/modules/refs/a/hooks/pre-push",
            block(What::Everything),
        ),
        (".git/modules/refs/a/config", block(What::GitConfig)),
        (".git/HEAD", None),
        ("sub/.git", block(What::GitLink)),
        (".sbxignore", block(What::Everything)),
        (".gitmodules", report(What::GitModules)),
        (".github/workflows/", report(What::Everything)),
        (".vscode/", report(What::Everything)),
        (".envrc", report(What::Everything)),
        ("AGENTS.md", report(What::Everything)),
        ("src/main.rs", None),
    ] {
        assert_eq!(verdict(Level::Standard, path), expected, "{path}");
    }
    assert_eq!(verdict(Level::Off, ".git/config"), None);
    let reported = verdict(Level::Report, ".git/config");
    assert_eq!(reported, report(What::GitConfig));
    assert_eq!(verdict(Level::Block, ".envrc"), block(What::Everything));
}

#[test]
fn a_level_is_written_as_it_is_read() {
    for level in Level::ALL {
        assert_eq!(level.to_string().parse(), Ok(level));
    }
    let error = "loud".parse::<Level>().unwrap_err().to_string();
    assert!(error.contains("off, report, standard, block"), "{error}");
}

/// Every row, with a path that no other row is about.
const ROWS: &[&str] = &[
    "a/.git",
    ".git/remotes/origin",
    ".git/branches/x",
    ".git/worktrees/w/modules/a/remotes/x",
    ".git/worktrees/w/modules/a/branches/x",
    ".git/modules/a/remotes/x",
    ".git/modules/a/branches/x",
    ".git/hooks/pre-commit",
    ".git/config",
    ".git/config.worktree",
    ".git/commondir",
    ".git/worktrees/w/hooks/pre-commit",
    ".git/worktrees/w/config",
    ".git/worktrees/w/config.worktree",
    ".git/worktrees/w/commondir",
    ".git/worktrees/w/modules/a/b/hooks/pre-commit",
    ".git/worktrees/w/modules/a/b/config",
    ".git/worktrees/w/modules/a/b/config.worktree",
    ".git/worktrees/w/modules/a/b/commondir",
    ".git/modules/a/b/hooks/pre-commit",
    ".git/modules/a/b/config",
    ".git/modules/a/b/config.worktree",
    ".git/modules/a/b/commondir",
    ".sbxignore",
    "a/.gitmodules",
    "a/.gitattributes",
    "a/.github/workflows/",
    "a/.github/actions/",
    "a/.gitea/workflows/",
    "a/.forgejo/workflows/",
    "a/.gitlab-ci.yml",
    "a/.circleci/",
    "a/.buildkite/",
    "a/.woodpecker/",
    "a/.woodpecker.yml",
    "a/.drone.yml",
    "a/.travis.yml",
    "a/Jenkinsfile",
    "a/azure-pipelines.yml",
    "a/bitbucket-pipelines.yml",
    "a/.husky/",
    "a/.pre-commit-config.yaml",
    "a/lefthook.yml",
    "a/.vscode/",
    "a/x.code-workspace",
    "a/.idea/",
    "a/.run/",
    "a/.zed/",
    "a/.exrc",
    "a/.nvim.lua",
    "a/.devcontainer/",
    "a/.devcontainer.json",
    "a/.envrc",
    "a/.mise.toml",
    "a/mise.toml",
    "a/.claude/",
    "a/.codex/",
    "a/.cursor/",
    "a/.gemini/",
    "a/.kiro/",
    "a/.factory/",
    "a/.opencode/",
    "a/opencode.json",
    "a/opencode.jsonc",
    "a/.mcp.json",
    "a/AGENTS.md",
    "a/AGENTS.override.md",
    "a/CLAUDE.md",
    "a/CLAUDE.local.md",
    "a/GEMINI.md",
    "a/.github/copilot-instructions.md",
    "a/.github/instructions/",
    "a/.cursorrules",
    "a/.clinerules",
    "a/.clinerules/",
];

#[test]
fn every_row_of_the_list_is_needed_and_every_name_is_blocked_in_block_mode() {
    for path in ROWS {
        let mode = verdict(Level::Block, path).map(|(mode, _)| mode);
        assert_eq!(mode, Some(Mode::Block), "{path}");
    }
    // A row that nobody misses would be one that this table forgot.
    let list = standard(Level::Block);
    for (number, row) in list.iter().enumerate() {
        let rest: Vec<_> = list
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != number)
            .map(|(_, entry)| entry.pattern.clone())
            .collect();
        let set = PatternSet::new(rest);
        let all = PatternSet::new(list.iter().map(|entry| entry.pattern.clone()));
        let found = |set: &PatternSet, path: &str| {
            let names = path.trim_end_matches('/').split('/').map(str::as_bytes);
            set.walk(names, path.ends_with('/')).matched().is_some()
        };
        let samples = [
            ".git/",
            ".git/worktrees/w/",
            ".git/worktrees/w/modules/a/",
            ".git/modules/a/",
        ]
        .map(|start| format!("{start}hooks/pre-commit.sample"));
        let branches = [
            ".git/worktrees/w/modules/a/refs/remotes/origin",
            ".git/modules/a/refs/remotes/origin",
        ];
        let paths = ROWS
            .iter()
            .copied()
            .chain(samples.iter().map(String::as_str))
            .chain(branches);
        let missed = paths.filter(|path| found(&set, path) != found(&all, path));
        assert!(missed.count() > 0, "{}", row.pattern);
    }
}
