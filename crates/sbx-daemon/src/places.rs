//! Looking through a workspace's directories for places of some kind.

use std::collections::HashSet;
use std::path::Path;

/// How deep below the root it is looked for places.
pub(crate) const MAX_DEPTH: usize = 6;
/// Most names that are looked at for it.
const MAX_LOOKED_AT: usize = 50_000;

/// Shows each directory's path from the root (empty for the root itself), and the names in it. What is answered are the
/// names of those that it goes no further into; nor does it go into `.git`, nor along a link. Whether it gave up early.
pub(crate) fn look(
    root: &Path,
    mut show: impl FnMut(&str, &HashSet<String>) -> HashSet<String>,
) -> bool {
    let mut left = MAX_LOOKED_AT;
    let mut waiting = vec![(String::new(), 0)];
    while let Some((path, depth)) = waiting.pop() {
        let Ok(entries) = std::fs::read_dir(root.join(&path)) else {
            continue;
        };
        let mut here = HashSet::new();
        let mut below = Vec::new();
        for entry in entries.flatten() {
            if left == 0 {
                return true;
            }
            left -= 1;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            // A link is not followed: what it leads to is found where it is.
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                below.push(name.clone());
            }
            here.insert(name);
        }
        let done = show(&path, &here);
        if depth == MAX_DEPTH {
            continue;
        }
        let further = below
            .iter()
            .filter(|name| *name != ".git" && !done.contains(*name));
        waiting.extend(further.map(|name| (join(&path, name), depth + 1)));
    }
    false
}

/// The path of a name in a directory whose path from the root this is.
pub(crate) fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}/{name}")
    }
}
