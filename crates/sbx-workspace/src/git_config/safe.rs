//! Settings that run nothing, whatever their value; or with these values.

use super::parse::Entry;
use super::{Place, in_repository};

/// Sections of which every setting without a subsection is about display, speed or storage.
const SECTIONS: &[&str] = &[
    "advice", "color", "column", "i18n", "index", "pack", "status",
];

/// Settings without a subsection, by section.
const PLAIN: &[(&str, &[&str])] = &[
    (
        "core",
        &[
            "abbrev",
            "autocrlf",
            "bare",
            "bigfilethreshold",
            "checkstat",
            "commentchar",
            "commitgraph",
            "compression",
            "deltabasecachelimit",
            "eol",
            "filemode",
            "fsync",
            "fsyncmethod",
            "fsyncobjectfiles",
            "hidedotfiles",
            "ignorecase",
            "ignorestat",
            "logallrefupdates",
            "longpaths",
            "loosecompression",
            "maxtreedepth",
            "multipackindex",
            "precomposeunicode",
            "preloadindex",
            "protecthfs",
            "protectntfs",
            "quotepath",
            "repositoryformatversion",
            "safecrlf",
            "sharedrepository",
            "sparsecheckout",
            "sparsecheckoutcone",
            "splitindex",
            "symlinks",
            "trustctime",
            "untrackedcache",
            "warnambiguousrefs",
            "whitespace",
        ],
    ),
    (
        "extensions",
        &[
            "compatobjectformat",
            "noop",
            "objectformat",
            "partialclone",
            "preciousobjects",
            "refstorage",
            "relativeworktrees",
            "worktreeconfig",
        ],
    ),
    ("user", &["email", "name", "signingkey", "useconfigonly"]),
    ("author", &["email", "name"]),
    ("committer", &["email", "name"]),
    ("branch", &["autosetupmerge", "autosetuprebase", "sort"]),
    (
        "checkout",
        &[
            "defaultremote",
            "guess",
            "thresholdforparallelism",
            "workers",
        ],
    ),
    ("commit", &["cleanup", "gpgsign", "status", "verbose"]),
    (
        "diff",
        &[
            "algorithm",
            "colormoved",
            "colormovedws",
            "context",
            "ignoresubmodules",
            "indentheuristic",
            "interhunkcontext",
            "mnemonicprefix",
            "noprefix",
            "relative",
            "renamelimit",
            "renames",
            "statgraphwidth",
            "submodule",
            "suppressblankempty",
            "wserrorhighlight",
        ],
    ),
    ("feature", &["experimental", "manyfiles"]),
    (
        "fetch",
        &[
            "all",
            "fsckobjects",
            "negotiationalgorithm",
            "output",
            "parallel",
            "prune",
            "prunetags",
            "recursesubmodules",
            "showforcedupdates",
            "unpacklimit",
            "writecommitgraph",
        ],
    ),
    (
        "gc",
        &[
            "aggressivedepth",
            "aggressivewindow",
            "auto",
            "autodetach",
            "autopacklimit",
            "bigpackthreshold",
            "cruftpacks",
            "logexpiry",
            "packrefs",
            "pruneexpire",
            "reflogexpire",
            "reflogexpireunreachable",
            "rerereresolved",
            "rerereunresolved",
            "worktreepruneexpire",
            "writecommitgraph",
        ],
    ),
    ("gpg", &["format", "mintrustlevel"]),
    (
        "init",
        &["defaultbranch", "defaultobjectformat", "defaultrefformat"],
    ),
    ("lfs", &["locksverify", "repositoryformatversion"]),
    (
        "log",
        &[
            "abbrevcommit",
            "date",
            "decorate",
            "follow",
            "mailmap",
            "showroot",
            "showsignature",
        ],
    ),
    (
        "merge",
        &[
            "autostash",
            "conflictstyle",
            "directoryrenames",
            "ff",
            "log",
            "renamelimit",
            "renames",
            "stat",
            "verifysignatures",
        ],
    ),
    ("pull", &["ff", "rebase"]),
    (
        "push",
        &[
            "autosetupremote",
            "default",
            "followtags",
            "gpgsign",
            "negotiate",
            "pushoption",
            "recursesubmodules",
            "useforceifincludes",
        ],
    ),
    (
        "rebase",
        &[
            "abbreviatecommands",
            "autosquash",
            "autostash",
            "forkpoint",
            "missingcommitscheck",
            "rebasemerges",
            "reschedulefailedexec",
            "stat",
            "updaterefs",
        ],
    ),
    (
        "receive",
        &["denycurrentbranch", "denydeletes", "denynonfastforwards"],
    ),
    ("remote", &["pushdefault"]),
    ("rerere", &["autoupdate", "enabled"]),
    (
        "submodule",
        &[
            "active",
            "alternateerrorstrategy",
            "alternatelocation",
            "fetchjobs",
            "propagatebranches",
            "recurse",
        ],
    ),
    ("tag", &["forcesignannotated", "gpgsign", "sort"]),
    ("transfer", &["fsckobjects", "unpacklimit"]),
    ("worktree", &["guessremote", "userelativepaths"]),
];

/// Settings with a subsection, by section.
const NAMED: &[(&str, &[&str])] = &[
    (
        "branch",
        &[
            "description",
            "merge",
            "pushremote",
            "rebase",
            "remote",
            "vscode-merge-base",
            "gh-merge-base",
        ],
    ),
    ("lfs", &["access", "locksverify"]),
    (
        "remote",
        &[
            "fetch",
            "gh-resolved",
            "mirror",
            "partialclonefilter",
            "promisor",
            "prune",
            "prunetags",
            "push",
            "pushurl",
            "skipdefaultupdate",
            "skipfetchall",
            "tagopt",
            "url",
        ],
    ),
    (
        "submodule",
        &[
            "active",
            "branch",
            "fetchrecursesubmodules",
            "ignore",
            "shallow",
            "url",
        ],
    ),
];

/// What `git lfs install --local` writes.
const LFS: &[(&str, &[&str])] = &[
    ("clean", &["git-lfs clean -- %f"]),
    (
        "smudge",
        &["git-lfs smudge -- %f", "git-lfs smudge --skip -- %f"],
    ),
    (
        "process",
        &["git-lfs filter-process", "git-lfs filter-process --skip"],
    ),
    ("required", &["true"]),
];

const BOOLEANS: &[&str] = &["true", "false", "yes", "no", "on", "off", "0", "1"];
/// Git runs what begins with `!`; these are the others.
const UPDATES: &[&str] = &["checkout", "rebase", "merge", "none"];

fn listed(list: &[(&str, &[&str])], name: &str, member: &str) -> bool {
    let mut found = list.iter().filter(|(known, _)| *known == name);
    found.any(|(_, members)| members.contains(&member))
}

/// Whether a setting of a repository runs nothing.
pub(super) fn setting(entry: &Entry, place: &Place<'_>) -> bool {
    let (section, key) = (entry.section.as_str(), entry.key.as_str());
    let Some(value) = entry.text() else {
        // In no encoding that we know: a name or an address, and none of those that are looked at.
        return entry.subsection.is_none() && listed(PLAIN, section, key);
    };
    match (section, &entry.subsection, key) {
        // A program, unless it is git's own.
        ("core", None, "fsmonitor") => BOOLEANS.contains(&value),
        // Where the host's git writes and removes files.
        ("core", None, "worktree") => in_repository(place, value),
        ("submodule", Some(_), "update") => UPDATES.contains(&value),
        ("remote" | "submodule", Some(_), "url") => address(value),
        // A remote's name, or its address.
        ("remote", Some(_), "pushurl")
        | ("branch", Some(_), "remote" | "pushremote")
        | ("remote", None, "pushdefault") => no_path(value),
        ("filter", Some(name), key) => name == b"lfs" && listed(LFS, key, value),
        (section, None, key) => SECTIONS.contains(&section) || listed(PLAIN, section, key),
        (section, Some(_), key) => listed(NAMED, section, key),
    }
}

/// Whether a setting of `.gitmodules` runs nothing.
pub(super) fn module(entry: &Entry) -> bool {
    let (Some(value), "submodule", Some(name)) =
        (entry.text(), entry.section.as_str(), &entry.subsection)
    else {
        return false;
    };
    let inside = |path: &[u8]| {
        let mut names = path.split(|byte| *byte == b'/');
        !path.starts_with(b"/") && names.all(|name| name != b"..")
    };
    inside(name)
        && match entry.key.as_str() {
            "path" => !value.is_empty() && !value.starts_with('-') && inside(value.as_bytes()),
            "url" => address(value),
            "update" => UPDATES.contains(&value),
            key => ["branch", "fetchrecursesubmodules", "ignore", "shallow"].contains(&key),
        }
}

/// Of those git itself knows how to go there; for any other it runs a program of that name (`git-remote-NAME`).
const SCHEMES: &[&str] = &[
    "file", "ftp", "ftps", "git", "git+ssh", "http", "https", "ssh", "ssh+git",
];

/// The beginning of an address up to this separator, if it can be the name of a scheme.
fn scheme<'a>(value: &'a str, separator: &str) -> Option<&'a str> {
    let (name, _) = value.split_once(separator)?;
    let of_scheme = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    name.chars().all(of_scheme).then_some(name)
}

/// Whether an address names a repository: neither an option of a program nor a transport that runs one (`ext::`, `ext://`).
fn address(value: &str) -> bool {
    let known = scheme(value, "://").is_none_or(|name| SCHEMES.contains(&name));
    !value.starts_with('-') && scheme(value, "::").is_none() && known
}

/// Whether what may be a remote's name or an address is no path: a push to one runs the hooks of the repository there,
/// which the guest may have made.
fn no_path(value: &str) -> bool {
    let path = match scheme(value, "://") {
        Some(name) => name == "file",
        // A host before the first slash, or a name.
        None => match value.split_once([':', '/']) {
            Some((host, _)) => !value[host.len()..].starts_with(':') || host == "file",
            None => value.starts_with('~') || value == "..",
        },
    };
    address(value) && !path
}
