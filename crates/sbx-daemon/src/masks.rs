//! Which directories of a workspace are the sandbox's own.

use crate::places::{self, MAX_DEPTH};
use crate::settings;
use crate::store::StoredSetting;
use sbx_workspace::late_mask;
use sbx_workspace::mask::{MAX_MASKS, Mask};
use sbx_workspace::rules::Guarding;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;

/// What is wanted: the settings' first.
pub(crate) fn wanted(stored: &BTreeMap<String, StoredSetting>, guarding: &Guarding) -> Vec<Mask> {
    let mut wanted = settings::masks(stored);
    wanted.extend(guarding.mask.iter().cloned());
    wanted
}

/// Paths from the root, in order, at most [`MAX_MASKS`]. Found anew at each start: a package that was added since has
/// its own. `None` as the second: every place was looked at.
pub(crate) fn find(wanted: Vec<Mask>, root: &Path) -> (Vec<String>, Option<String>) {
    let (places, names): (Vec<Mask>, Vec<Mask>) =
        wanted.into_iter().partition(|mask| mask.path().is_some());
    let mut found: BTreeSet<String> = places
        .iter()
        .map(|mask| mask.as_str().to_owned())
        // The guest cannot mount where there is no directory above.
        .filter(|path| is_directory(&root.join(path), 1))
        .collect();
    let mut cut = false;
    if !names.is_empty() {
        cut = look(root, &names, &mut found);
    }
    let all = outermost(&found);
    // The guest keeps each under one name.
    let named = |path: &String| late_mask::own_name(&root.join(path)).is_some();
    let kept: Vec<String> = all.iter().filter(|path| named(path)).cloned().collect();
    let many = kept.len() > MAX_MASKS || kept.len() < all.len();
    let notice = (many || cut).then(|| {
        format!(
            "not every directory of {} is masked, the others are the host's: {MAX_MASKS} are possible, down to {MAX_DEPTH} \
             directories",
            root.display()
        )
    });
    (kept.into_iter().take(MAX_MASKS).collect(), notice)
}

/// Whether the parent of a path is a directory, reached without links.
fn is_directory(path: &Path, up: usize) -> bool {
    let Some(parent) = path.ancestors().nth(up) else {
        return false;
    };
    let real = parent.canonicalize();
    real.is_ok_and(|real| real == *parent) && parent.is_dir()
}

/// Looks for places of these names. Whether it gave up early.
fn look(root: &Path, names: &[Mask], found: &mut BTreeSet<String>) -> bool {
    places::look(root, |path, here| {
        let applies = |mask: &&Mask| mask.applies(|name| here.contains(name));
        let masked = names.iter().filter(applies).map(Mask::as_str);
        let masked: HashSet<String> = masked.map(str::to_owned).collect();
        found.extend(masked.iter().map(|name| places::join(path, name)));
        masked
    })
}

/// Without those that lie in another.
fn outermost(found: &BTreeSet<String>) -> BTreeSet<String> {
    let inside = |path: &String| {
        let mut above = Path::new(path).ancestors().skip(1);
        above.any(|parent| parent.to_str().is_some_and(|parent| found.contains(parent)))
    };
    found.iter().filter(|path| !inside(path)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(mask: &[&str]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for path in [
            "a/node_modules/x/node_modules",
            "b/c",
            "d",
            ".git/node_modules",
        ] {
            std::fs::create_dir_all(root.join(path)).unwrap();
        }
        for path in ["b/c/package.json", "d/Cargo.toml", "b/pyproject.toml"] {
            std::fs::write(root.join(path), "").unwrap();
        }
        std::os::unix::fs::symlink("a", root.join("link")).unwrap();
        let wanted = mask.iter().map(|text| text.parse().unwrap()).collect();
        find(wanted, &root).0
    }

    #[test]
    fn a_name_is_masked_where_it_is_and_where_it_will_be() {
        assert_eq!(
            found(&["node_modules"]),
            ["a/node_modules", "b/c/node_modules"]
        );
        assert_eq!(found(&["target", ".venv"]), ["b/.venv", "d/target"]);
        assert_eq!(found(&[]), Vec::<String>::new());
    }

    #[test]
    fn a_path_is_masked_where_its_parent_is_a_directory() {
        assert_eq!(found(&["d/out", "nowhere/out", "link/out"]), ["d/out"]);
        assert_eq!(
            found(&["a/node_modules", "a/node_modules/x"]),
            ["a/node_modules"]
        );
    }
}
