//! What a guest cannot use up.

use std::process::Command;

use rustix::process::{Resource, Rlimit};
use sbx_share::{Bounds, GuestOwner, Share, limits};
use sbx_testkit::virtio_fs::message;
use sbx_workspace::{Mode, Rules};
use virtiofsd::filesystem::{DirectoryIterator as _, FileSystem as _};

use crate::guest::Guest;
use crate::support::{Bench, ROOT, agent, errno};

#[test]
fn too_many_open_files_is_the_guests_problem() {
    let bench = Bench::with(
        false,
        Bounds {
            nodes: 100,
            handles: 3,
            directories: 4,
        },
    );
    bench.host_write("f", "");
    let node = bench.node("f").unwrap();
    let handles: Vec<u64> = (0..3)
        .map(|_| bench.open(node, libc::O_RDONLY).unwrap())
        .collect();
    assert_eq!(errno(bench.open(node, libc::O_RDONLY)), libc::ENFILE);
    assert_eq!(
        errno(bench.create(ROOT, c"new", 0o644, libc::O_RDWR)),
        libc::ENFILE
    );
    assert!(
        !bench.host("new").exists(),
        "a refused create leaves nothing behind"
    );
    assert_eq!(
        errno(bench.share.opendir(agent(), ROOT, 0).map(|_| ())),
        libc::ENFILE
    );
    bench.release(node, handles[0]);
    bench.open(node, libc::O_RDONLY).unwrap();
}

#[test]
fn too_many_nodes_is_the_guests_problem() {
    let bench = Bench::with(
        false,
        Bounds {
            nodes: 2,
            handles: 3,
            directories: 4,
        },
    );
    for name in ["a", "b", "c"] {
        bench.host_write(name, "");
    }
    let a = bench.node("a").unwrap();
    bench.node("b").unwrap();
    assert_eq!(errno(bench.node("c")), libc::ENFILE);
    assert_eq!(errno(bench.mkdir(ROOT, c"new", 0o755)), libc::ENFILE);
    assert!(
        !bench.host("new").exists(),
        "a refused mkdir leaves nothing behind"
    );
    bench.share.forget(agent(), a, 1);
    bench.node("c").unwrap();
}

#[test]
fn a_tree_deeper_than_one_path_can_name_is_walked() {
    let bench = Bench::new();
    let name = std::ffi::CString::new("d".repeat(200)).unwrap();
    let mut node = ROOT;
    for _ in 0..50 {
        node = bench.mkdir(node, &name, 0o755).unwrap();
    }
    let (file, handle) = bench.create(node, c"f", 0o644, libc::O_RDWR).unwrap();
    bench
        .write(file, handle, "10,000 bytes down", 0, 0)
        .unwrap();
    assert_eq!(bench.content(file).unwrap(), "10,000 bytes down");
}

#[test]
fn a_tree_too_deep_is_refused() {
    let bench = Bench::new();
    let mut node = ROOT;
    let depth = (0..2000).find(|_| match bench.mkdir(node, c"d", 0o755) {
        Ok(next) => {
            node = next;
            false
        }
        Err(_) => true,
    });
    assert_eq!(depth, Some(limits::MAX_DEPTH));
    assert_eq!(errno(bench.mkdir(node, c"d", 0o755)), libc::ENAMETOOLONG);
}

/// Of the process that serves the large tree.
const DESCRIPTORS: usize = 4096;
/// What that process has of memory at most, with the names of the tree and this test's own list of it.
const MEMORY_KIB: u64 = 96 << 10;

/// Most memory that this process ever had, in KiB.
fn most_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let digits = line.unwrap().trim().trim_end_matches(" kB");
    digits.parse().unwrap()
}

/// In a process of its own, because the limit is the process's.
#[test]
fn two_hundred_thousand_files_are_walked_with_4096_descriptors_and_bounded_memory() {
    let status = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "bounds::walk_in_a_child",
            "--ignored",
            "--nocapture",
        ])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&status.stdout);
    assert!(
        status.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&status.stderr)
    );
}

#[test]
#[ignore = "run by the test above, in a process with a limit"]
fn walk_in_a_child() {
    let limit = Some(DESCRIPTORS as u64); // the hard one too: nothing can raise it
    rustix::process::setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit,
            maximum: limit,
        },
    )
    .unwrap();
    let folder = tempfile::tempdir().unwrap();
    for directory in 0..400 {
        let path = folder.path().join(format!("d{directory}"));
        std::fs::create_dir(&path).unwrap();
        for file in 0..500 {
            std::fs::write(path.join(format!("f{file}")), "").unwrap();
        }
    }
    let share = Share::open(folder.path(), GuestOwner::default(), false).unwrap();
    let mut files = Vec::new();
    for directory in 0..400 {
        let name = std::ffi::CString::new(format!("d{directory}")).unwrap();
        let node = share.lookup(agent(), ROOT, &name).unwrap().inode;
        let handle = share.opendir(agent(), node, 0).unwrap().0.unwrap();
        let mut offset = 0;
        loop {
            let mut entries = share.readdir(agent(), node, handle, 4096, offset).unwrap();
            let before = offset;
            while let Some(entry) = entries.next() {
                offset = entry.offset;
                if !entry.name.to_bytes().starts_with(b".") {
                    files.push(share.lookup(agent(), node, entry.name).unwrap().inode);
                }
            }
            if offset == before {
                break;
            }
        }
        share.releasedir(agent(), node, 0, handle).unwrap();
    }
    assert_eq!(files.len(), 200_000);
    let most = most_memory();
    println!("{most} KiB at most");
    assert!(most < MEMORY_KIB, "{most} KiB");
    // All of them are known, none was forgotten: each can still be opened, and as many at once as the limit leaves.
    let mut open = Vec::new();
    let refused = files
        .iter()
        .find_map(|file| match share.open(agent(), *file, false, 0) {
            Ok((handle, _)) => {
                open.push((*file, handle.unwrap()));
                None
            }
            Err(error) => error.raw_os_error(),
        });
    assert_eq!(refused, Some(libc::ENFILE));
    // Descriptors of directories.
    let kept = limits::MAX_DIRECTORIES.min(DESCRIPTORS / 8);
    let reserved = limits::RESERVED_DESCRIPTORS;
    assert_eq!(open.len(), DESCRIPTORS - reserved - kept);
    for (file, handle) in open {
        share
            .release(agent(), file, 0, handle, false, false, None)
            .unwrap();
    }
    for file in &files {
        let (handle, _) = share.open(agent(), *file, false, 0).unwrap();
        share
            .release(agent(), *file, 0, handle.unwrap(), false, false, None)
            .unwrap();
    }
}

/// A share with this rule of somebody's own.
fn protecting(pattern: &str) -> Bench {
    let own = sbx_workspace::protect::added(pattern, Mode::Block).unwrap();
    Bench::guarded(Rules {
        protect: vec![own],
        ..Rules::default()
    })
}

#[test]
fn a_directory_with_more_in_it_than_is_looked_at_gets_no_name_that_rules_look_into() {
    let bench = protecting("/deep/in/it");
    for folder in ["d", "d/a", "d/b"] {
        std::fs::create_dir(bench.host(folder)).unwrap();
    }
    // What the rules cannot look into is not counted.
    std::fs::create_dir_all(bench.host("d/a/c/e")).unwrap();
    let names = limits::MAX_SCAN - 2;
    for number in 0..=names {
        std::fs::write(bench.host(&format!("d/{number}")), "").unwrap();
    }
    let rename = || bench.share.rename(agent(), ROOT, c"d", ROOT, c"deep", 0);
    assert_eq!(errno(rename()), libc::EACCES);
    assert!(bench.host("d").exists() && !bench.host("deep").exists());
    let said = ("rename".to_owned(), "deep".to_owned(), true);
    assert_eq!(bench.said(), [said]);
    std::fs::remove_file(bench.host("d/0")).unwrap();
    rename().unwrap();
    assert!(bench.host("deep/1").exists());
}

#[test]
fn what_is_not_said_any_more_is_refused_all_the_same() {
    let bench = protecting("/d/*");
    let folder = bench.mkdir(ROOT, c"d", 0o755).unwrap();
    for number in 0..limits::MAX_EVENTS + 20 {
        let name = std::ffi::CString::new(number.to_string()).unwrap();
        let made = bench.create(folder, &name, 0o644, libc::O_RDWR);
        assert_eq!(errno(made), libc::EACCES, "{number}");
    }
    // The last one says so.
    assert_eq!(bench.said().len(), limits::MAX_EVENTS + 1);
    assert_eq!(std::fs::read_dir(bench.host("d")).unwrap().count(), 0);
}

#[test]
fn one_copy_is_cut_and_the_guest_asks_for_the_rest() {
    let bench = Bench::new();
    let length = limits::MAX_COPY + (1 << 20);
    let from = std::fs::File::create(bench.host("from")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&from, b"end", length - 3).unwrap();
    bench.host_write("to", "");
    let [from, to] = ["from", "to"].map(|name| {
        let node = bench.node(name).unwrap();
        (node, bench.open(node, libc::O_RDWR).unwrap())
    });
    let (mut copied, mut times) = (0, 0);
    while copied < length {
        let count = bench.share.copyfilerange(
            agent(),
            from.0,
            from.1,
            copied,
            to.0,
            to.1,
            copied,
            length - copied,
            0,
        );
        let count = count.unwrap() as u64;
        assert!((1..=limits::MAX_COPY).contains(&count), "{count}");
        (copied, times) = (copied + count, times + 1);
    }
    assert!(times > 1);
    assert!(std::fs::read(bench.host("to")).unwrap().ends_with(b"end"));
}

#[test]
fn a_queue_of_more_descriptors_than_qemu_has_is_refused() {
    let size = |size: u16| [0, u32::from(size)].map(u32::to_le_bytes).concat();
    for (asked, taken) in [(limits::MAX_QUEUE, true), (limits::MAX_QUEUE * 2, false)] {
        let mut guest = Guest::new();
        let vhost = guest.fs.device().vhost();
        let set = vhost.set(message::SET_VRING_NUM, &size(asked), &[]);
        assert_eq!(set.is_ok(), taken, "{asked}: {set:?}");
    }
}
