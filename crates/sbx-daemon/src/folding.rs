//! File systems on which a file answers to more spellings of its name than one.
//!
//! Rules compare names byte by byte, so there the guest would reach `.git` as `.GIT`. To fold names as the file system does
//! is no way out: FAT has short names besides (`GIT~1`), exFAT drops dots at the end, ext4 passes over characters that
//! nobody sees, and the table of a server is its own. So where such names would be guarded, the directory is no workspace.

use crate::error::io_report;
use rustix::fs::{AtFlags, CWD, Dir, FileType, IFlags, Mode, OFlags};
use sbx_wire::report::Report;
use sbx_workspace::{Mode as Blocks, Rules};
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

/// What statfs(2) calls file systems that do so, or whose server may: exFAT, FAT, NTFS (three drivers), CIFS and SMB, HFS,
/// shared folders of VirtualBox, AFFS.
const KINDS: [u32; 11] = [
    0x2011_bab0,
    0x4d44,
    0x5346_544e,
    0x7366_746e,
    0x517b,
    0xff53_4d42,
    0xfe53_4d42,
    0x4244,
    0x482b,
    0x786f_4256,
    0xadff,
];
/// `FS_CASEFOLD_FL`: a directory of ext4, f2fs or tmpfs in which names are folded.
const CASEFOLD: u32 = 0x4000_0000;
/// Most names that are tried in another spelling.
const MAX_TRIED: usize = 64;

/// Whether a directory's rules can be kept in it, if names are folded there ([`folds`]). A notice if all they do is to report.
///
/// # Errors
/// Not by its file system.
pub(crate) fn check(
    rules: &Rules,
    (root, read_only): (&Path, bool),
    folds: impl Fn(&Path) -> io::Result<bool>,
) -> Result<Option<String>, Report> {
    if rules.hide.is_empty() && (read_only || rules.protect.is_empty()) {
        return Ok(None);
    }
    let folds = folds(root).map_err(|error| io_report("look at", root, &error))?;
    if !folds {
        return Ok(None);
    }
    let shown = root.display();
    let why = format!(
        "{shown} is on a file system that takes other spellings of a name for the same (.GIT for .git)"
    );
    if !rules.hide.is_empty() {
        return Err(Report::user(
            "workspace-folds-case",
            format!("{why}: nothing in it can be hidden"),
            "share it without hidden names (--hide, the setting workspace.hide, .sbxignore), or use a copy on another file \
             system",
        ));
    }
    let mut entries = rules.protect.iter();
    if !read_only && entries.any(|entry| entry.mode == Blocks::Block) {
        return Err(Report::user(
            "workspace-folds-case",
            format!("{why}: nothing in it can be protected"),
            format!(
                "share it read-only: {shown}:ro, use a copy on another file system, or give the protection up: --protect report"
            ),
        ));
    }
    Ok((!read_only && !rules.protect.is_empty())
        .then(|| format!("{why}: what is done under another spelling is not reported")))
}

/// Whether names in a directory have several spellings, by its file system, its flags, or what is in it.
pub(crate) fn folds(path: &Path) -> io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
    Ok(is_marked(&directory) || has_aliases(&directory)?)
}

/// Whether its file system or its flags say so. It must be open for reading.
pub(crate) fn is_marked(directory: impl AsFd) -> bool {
    let kind = rustix::fs::fstatfs(&directory).ok();
    let kind = kind.and_then(|stat| u32::try_from(stat.f_type & 0xffff_ffff).ok());
    // Most have no flags.
    let flags = rustix::fs::ioctl_getflags(&directory).map_or(0, |flags: IFlags| flags.bits());
    says_so(kind, flags)
}

fn says_so(kind: Option<u32>, flags: u32) -> bool {
    kind.is_some_and(|kind| KINDS.contains(&kind)) || flags & CASEFOLD != 0
}

/// Whether something in it is found under another spelling: that is seen of any file system, but not in one that is empty.
fn has_aliases(directory: impl AsFd) -> io::Result<bool> {
    let names = Dir::read_from(&directory)?.map(|entry| Ok(entry?.file_name().to_owned()));
    any_alias(names, |name| {
        let stat = rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        // A guest can make a second name for a file.
        let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        (directory || stat.st_nlink == 1).then_some((stat.st_dev, stat.st_ino))
    })
}

fn any_alias(
    names: impl Iterator<Item = io::Result<CString>>,
    only: impl Fn(&CStr) -> Option<(u64, u64)>,
) -> io::Result<bool> {
    for name in names.take(MAX_TRIED) {
        if is_alias(&name?, &only) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a name and its other spelling are one file, of which there is no second name.
fn is_alias(name: &CStr, only: impl Fn(&CStr) -> Option<(u64, u64)>) -> bool {
    let swap = |byte: &u8| {
        if byte.is_ascii_lowercase() {
            byte.to_ascii_uppercase()
        } else {
            byte.to_ascii_lowercase()
        }
    };
    let other: Vec<u8> = name.to_bytes().iter().map(swap).collect();
    if other == name.to_bytes() {
        return false;
    }
    let other = CString::new(other).ok().and_then(|other| only(&other));
    other.is_some() && other == only(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sbx_workspace::Pattern;
    use sbx_workspace::protect::{Level, standard};
    use std::fs::{File, create_dir, hard_link, write};

    fn rules(level: Level, hide: &[&str]) -> Rules {
        Rules {
            protect: standard(level),
            hide: hide
                .iter()
                .map(|text| Pattern::parse(text).unwrap())
                .collect(),
            ..Rules::default()
        }
    }

    #[test]
    fn where_names_are_folded_nothing_is_guarded_and_nothing_shared_that_would_be() {
        let root = Path::new("/media/stick");
        let refused = |level, hide: &[&str], read_only| {
            let refused = check(&rules(level, hide), (root, read_only), |_| Ok(true));
            let report = refused.err()?;
            assert_eq!(report.code, "workspace-folds-case");
            report.hint
        };
        for level in [Level::Standard, Level::Block] {
            let next = refused(level, &[], false).unwrap();
            assert!(next.contains("/media/stick:ro") && next.contains("--protect report"));
            assert_eq!(refused(level, &[], true), None);
        }
        for (level, read_only) in [(Level::Off, false), (Level::Block, true)] {
            let next = refused(level, &[".env"], read_only).unwrap();
            assert!(next.contains("workspace.hide"), "{next}");
        }
        assert_eq!(refused(Level::Off, &[], false), None);
        let notice = |level| check(&rules(level, &[]), (root, false), |_| Ok(true)).unwrap();
        let said = notice(Level::Report).unwrap();
        assert!(said.contains("is not reported"), "{said}");
        assert_eq!(notice(Level::Off), None);
        let guarded = rules(Level::Block, &[".env"]);
        let elsewhere = check(&guarded, (root, false), |_| Ok(false));
        assert_eq!(elsewhere, Ok(None));
        let unknown = check(&guarded, (root, false), |_| {
            Err(io::ErrorKind::NotFound.into())
        });
        assert!(unknown.is_err());
    }

    #[test]
    fn a_file_system_is_known_by_its_kind_its_flags_and_what_it_answers() {
        for kind in [0x2011_bab0, 0x4d44, 0x7366_746e, 0xff53_4d42, 0xfe53_4d42] {
            assert!(says_so(Some(kind), 0), "{kind:x}");
        }
        // ext4, with and without the flag; a kind that nobody could have.
        assert!(!says_so(Some(0xef53), 0x8_0000));
        assert!(says_so(Some(0xef53), 0x4008_0000));
        assert!(!says_so(None, 0));
        let folding = |name: &CStr| {
            name.to_bytes()
                .eq_ignore_ascii_case(b".Git")
                .then_some((1, 2))
        };
        assert!(is_alias(c".git", folding));
        let exact = |name: &CStr| (name == c".git").then_some((1, 2));
        assert!(!is_alias(c".git", exact));
        let both = |name: &CStr| Some((1, u64::from(name.to_bytes()[1])));
        assert!(!is_alias(c".git", both));
        assert!(!is_alias(c"123", |_| Some((1, 2))));
    }

    #[test]
    fn names_that_differ_by_case_are_no_sign_of_folding_and_neither_are_hard_links() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        assert!(!folds(folder.path()).unwrap());
        for name in ["d", "D"] {
            create_dir(path(name)).unwrap();
        }
        write(path("f"), "").unwrap();
        write(path("F"), "").unwrap();
        write(path("link"), "").unwrap();
        hard_link(path("link"), path("LINK")).unwrap();
        assert!(!folds(folder.path()).unwrap());
        assert!(!is_marked(File::open(folder.path()).unwrap()));
        assert!(folds(&path("absent")).is_err());
    }

    #[test]
    fn so_many_names_are_tried_in_another_spelling() {
        let found = |before: usize| {
            let plain = std::iter::repeat_n(c"1", before);
            let names = plain.chain([c"a"]).map(|name| Ok(name.to_owned()));
            any_alias(names, |_| Some((1, 2))).unwrap()
        };
        assert!(found(MAX_TRIED - 1));
        assert!(!found(MAX_TRIED));
    }
}
