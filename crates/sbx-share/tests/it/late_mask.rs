//! Directories that become the guest's own while it runs.

use std::time::{Duration, Instant};

use rustix::io::Errno;
use sbx_share::limits::{MOUNT_LIMIT, MOUNTED_GRACE};
use sbx_testkit::virtio_fs::{Begun, Data, Entry, Fields, ROOT, Request, SetAttr, message, op};
use sbx_testkit::virtio_fs::{lookup, open, read, write};
use sbx_workspace::late_mask::{CONTROL, Word};

use crate::guest::{Guest, refused};
use crate::support::read_host;

/// The agent's thread; programs are 42.
pub(crate) const AGENT: u32 = 7;
/// What is waited for where nothing comes.
const MOMENT: Duration = Duration::from_millis(150);
/// What is waited for where something does.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The file that the agent has open.
#[derive(Clone, Copy)]
pub(crate) struct Control {
    pub(crate) node: u64,
    pub(crate) handle: u64,
}

fn guest() -> Guest {
    let mut guest = Guest::with(&[
        "--rules",
        r#"{"late_masks":["node_modules","target","a/out"]}"#,
    ]);
    for name in ["pkg", "a"] {
        guest.fs.mkdir(ROOT, name, 0o755).unwrap();
    }
    guest
}

/// A guest with an agent that reads.
pub(crate) fn with_agent() -> (Guest, Control, Begun<'static>) {
    let mut guest = guest();
    let node = guest.fs.lookup(ROOT, CONTROL).unwrap().node;
    let handle = guest.fs.open(node, libc::O_RDWR.cast_unsigned()).unwrap();
    let control = Control { node, handle };
    let reads = control.reads(&mut guest);
    (guest, control, reads)
}

impl Control {
    pub(crate) fn reads(self, guest: &mut Guest) -> Begun<'static> {
        let request = read(self.node, self.handle, 0, 16 << 10).by(AGENT);
        guest.fs.device().begin(request).unwrap()
    }

    pub(crate) fn says(self, guest: &mut Guest, words: &[Word<'_>]) {
        let mut bytes = Vec::new();
        for word in words {
            word.put(&mut bytes);
        }
        let length = u32::try_from(bytes.len()).unwrap();
        let request = write(self.node, self.handle, 0, length, Data::Bytes(&bytes));
        guest.fs.call(&request.by(AGENT)).unwrap();
    }
}

/// What the agent is told, if anything.
pub(crate) fn told(guest: &mut Guest, reads: &Begun<'_>, patience: Duration) -> Option<Vec<u8>> {
    let answer = guest.fs.device().finish(reads, patience).unwrap()?;
    Some(guest.fs.bytes(&answer).unwrap())
}

/// What a look-up that was begun came to, if it has come to anything.
fn looked_up(guest: &mut Guest, begun: &Begun<'_>, patience: Duration) -> Option<Entry> {
    let answer = guest.fs.device().finish(begun, patience).unwrap()?;
    let bytes = guest.fs.bytes(&answer).unwrap();
    Some(Entry::read(&mut Fields(&bytes)).unwrap())
}

pub(crate) fn node(guest: &mut Guest, name: &str) -> u64 {
    guest.fs.lookup(ROOT, name).unwrap().node
}

#[test]
fn what_a_program_makes_is_mounted_before_anybody_gets_into_it() {
    let (mut guest, control, reads) = with_agent();
    let package = node(&mut guest, "pkg");
    assert_eq!(told(&mut guest, &reads, MOMENT), None, "there is no news");
    let made = guest.fs.mkdir(package, "node_modules", 0o755).unwrap();
    assert!(!guest.host("pkg/node_modules").exists());
    let news = told(&mut guest, &reads, PATIENCE).unwrap();
    let words: Vec<_> = Word::all(&news).collect();
    assert_eq!(words, [Word::Mount("pkg/node_modules")]);

    // Programs wait, the agent does not, and what needs no walk is refused.
    let waits = lookup(package, "node_modules");
    let waits = guest.fs.device().begin(waits).unwrap();
    assert_eq!(looked_up(&mut guest, &waits, MOMENT), None);
    let agent = guest.fs.call(&lookup(package, "node_modules").by(AGENT));
    let agent = Entry::read(&mut Fields(&agent.unwrap())).unwrap();
    assert_eq!(agent.node, made.node);
    let inside = guest.fs.mkdir(made.node, ".bin", 0o755);
    assert_eq!(refused(inside), Errno::STALE);
    assert_eq!(refused(guest.fs.getattr(made.node)), Errno::STALE);
    assert_eq!(refused(guest.fs.opendir(made.node)), Errno::STALE);
    let set = guest.fs.setattr(made.node, &SetAttr::default());
    assert_eq!(refused(set), Errno::STALE);
    let another = control.reads(&mut guest);
    let before = Instant::now();
    control.says(&mut guest, &[Word::Mounted("pkg/node_modules")]);
    let found = looked_up(&mut guest, &waits, PATIENCE).unwrap();
    assert_eq!(found.node, made.node);
    assert_eq!(
        guest.fs.lookup(package, "node_modules").unwrap().node,
        made.node
    );
    assert_eq!(told(&mut guest, &another, MOMENT), None, "it is told once");
    // For a moment who has passed the mount point before is still sent back.
    let deadline = Instant::now() + PATIENCE;
    while guest.fs.getattr(made.node).is_err() {
        assert!(Instant::now() < deadline, "for ever");
    }
    assert!(before.elapsed() >= MOUNTED_GRACE, "for no moment");
    guest.fs.opendir(made.node).unwrap();

    let again = guest.fs.mkdir(package, "node_modules", 0o755);
    assert_eq!(refused(again), Errno::EXIST);
    assert_eq!(
        refused(guest.fs.rmdir(package, "node_modules")),
        Errno::BUSY
    );
    assert_eq!(refused(guest.fs.rmdir(ROOT, "pkg")), Errno::BUSY);
    assert!(!guest.host("pkg/node_modules").exists());
    guest.assert_unharmed("a mask that appeared");
}

#[test]
fn without_an_agent_that_reads_it_is_on_the_host() {
    let mut guest = guest();
    let package = node(&mut guest, "pkg");
    guest.fs.mkdir(package, "node_modules", 0o755).unwrap();
    assert!(guest.host("pkg/node_modules").is_dir());
    // And so is what has another name, or the name of a path elsewhere, with one.
    let (mut guest, _, reads) = with_agent();
    let package = node(&mut guest, "pkg");
    for name in ["node_module", "out", ".sbx-masks"] {
        guest.fs.mkdir(package, name, 0o755).unwrap();
        assert!(guest.host("pkg").join(name).is_dir(), "{name}");
    }
    guest.fs.create(package, "target", 0o644, 2).unwrap();
    assert!(guest.host("pkg/target").is_file(), "a file is none");
    assert_eq!(told(&mut guest, &reads, MOMENT), None);
    let a = node(&mut guest, "a");
    guest.fs.mkdir(a, "out", 0o755).unwrap();
    assert!(!guest.host("a/out").exists());
}

#[test]
fn what_the_host_makes_is_out_of_sight_and_nobody_waits_for_a_name_that_the_guest_does_not_know() {
    let (mut guest, control, reads) = with_agent();
    let package = node(&mut guest, "pkg");
    std::fs::create_dir(guest.host("pkg/node_modules")).unwrap();
    std::fs::write(guest.host("pkg/node_modules/f"), "the host's").unwrap();
    // Another program's walk would make the agent's wait for its answer.
    let found = guest.fs.lookup(package, "node_modules").unwrap();
    assert_eq!(refused(guest.fs.lookup(found.node, "f")), Errno::STALE);
    let news = told(&mut guest, &reads, PATIENCE).unwrap();
    assert_eq!(Word::all(&news).count(), 1);
    let waits = guest
        .fs
        .device()
        .begin(lookup(package, "node_modules"))
        .unwrap();
    assert_eq!(looked_up(&mut guest, &waits, MOMENT), None);
    control.says(&mut guest, &[Word::Failed("pkg/node_modules")]);
    assert!(looked_up(&mut guest, &waits, PATIENCE).is_some());
    assert_eq!(read_host(guest.host("pkg/node_modules/f")), "the host's");

    // The directory above was replaced: what was mounted has gone with it.
    let reads = control.reads(&mut guest);
    guest.fs.forget(found.node, 10).unwrap();
    guest.fs.lookup(package, "node_modules").unwrap();
    let news = told(&mut guest, &reads, PATIENCE).unwrap();
    assert_eq!(Word::all(&news).count(), 1);
}

#[test]
fn a_directory_that_is_renamed_to_such_a_name_is_to_be_copied_but_for_cargos() {
    let (mut guest, _, reads) = with_agent();
    let package = node(&mut guest, "pkg");
    guest.fs.mkdir(package, "made", 0o755).unwrap();
    std::fs::write(guest.host("pkg/made/f"), "").unwrap();
    let moved = guest
        .fs
        .rename2((package, b"made"), (package, b"target"), 0);
    assert_eq!(refused(moved), Errno::XDEV);
    assert_eq!(told(&mut guest, &reads, MOMENT), None);
    guest.fs.mkdir(package, "targetXY", 0o755).unwrap();
    std::fs::write(guest.host("pkg/targetXY/CACHEDIR.TAG"), "").unwrap();
    let moved = guest
        .fs
        .rename2((package, b"targetXY"), (package, b"target"), 0);
    assert_eq!(refused(moved), Errno::EXIST);
    let news = told(&mut guest, &reads, PATIENCE).unwrap();
    let words: Vec<_> = Word::all(&news).collect();
    assert_eq!(words, [Word::Mount("pkg/target")]);
    guest.fs.lookup(package, "target").unwrap();
    assert!(!guest.host("pkg/target").exists());
}

#[test]
fn nobody_waits_for_ever_and_a_queue_that_stops_leaves_nobody_waiting() {
    let (mut guest, control, reads) = with_agent();
    let package = node(&mut guest, "pkg");
    guest.fs.mkdir(package, "node_modules", 0o755).unwrap();
    told(&mut guest, &reads, PATIENCE).unwrap();
    let waits = guest
        .fs
        .device()
        .begin(lookup(package, "node_modules"))
        .unwrap();
    assert!(looked_up(&mut guest, &waits, MOUNT_LIMIT + PATIENCE).is_some());

    guest.fs.mkdir(package, "target", 0o755).unwrap();
    let reads = control.reads(&mut guest);
    told(&mut guest, &reads, PATIENCE).unwrap();
    let reads = control.reads(&mut guest);
    let before = guest.fs.device().begin(lookup(package, "target")).unwrap();
    // Both were taken from the queue, and wait.
    assert_eq!(looked_up(&mut guest, &before, MOMENT), None);
    let vhost = guest.fs.device().vhost();
    let state = [1_u32, 0].map(u32::to_le_bytes).concat();
    vhost.ask(message::GET_VRING_BASE, &state, &[]).unwrap();
    assert!(looked_up(&mut guest, &before, MOMENT).is_some());
    assert_eq!(told(&mut guest, &reads, MOMENT).unwrap(), b"");
}

#[test]
fn the_agents_file_is_roots_is_listed_nowhere_and_holds_nothing() {
    let (mut guest, control, reads) = with_agent();
    let attr = guest.fs.getattr(control.node).unwrap();
    assert_eq!(
        (attr.mode, attr.uid, attr.gid),
        (libc::S_IFREG | 0o600, 0, 0)
    );
    let handle = guest.fs.opendir(ROOT).unwrap();
    let names = guest.fs.readdir(ROOT, handle, 0, 4096).unwrap();
    assert!(
        names.iter().all(|listed| listed.name != CONTROL.as_bytes()),
        "{names:?}"
    );
    assert!(!guest.host(CONTROL).exists());
    assert_eq!(refused(guest.fs.unlink(ROOT, CONTROL)), Errno::ACCESS);
    assert_eq!(
        refused(guest.fs.setattr(control.node, &SetAttr::default())),
        Errno::ACCESS
    );

    // Nothing can be put into it, by no way around.
    let (file, from) = guest.file("f");
    guest.fs.write(file, from, 0, b"content").unwrap();
    let copy = Request::new(op::COPY_FILE_RANGE, file)
        .u64(from)
        .u64(0)
        .u64(control.node);
    let copy = copy.u64(control.handle).u64(0).u64(7).u64(0).room(8);
    assert!(guest.fs.call(&copy).is_err());
    let allocate = Request::new(op::FALLOCATE, control.node)
        .u64(control.handle)
        .u64(0);
    assert!(guest.fs.call(&allocate.u64(4096).u64(0)).is_err());

    // Words of nonsense change nothing, and neither does a handle of another file.
    for words in [
        &b"\0\0\0"[..],
        b"+nothing\0",
        b"k../x/target\0",
        b"k.git/target\0",
        b"m\0?",
    ] {
        guest
            .fs
            .write(control.node, control.handle, 0, words)
            .unwrap();
    }
    assert_eq!(
        refused(guest.fs.write(control.node, from, 0, b"l\0")),
        Errno::BADF
    );
    assert_eq!(told(&mut guest, &reads, MOMENT), None);
    // A second reader takes over, and the first is told nothing; who leaves is told so.
    let second = control.reads(&mut guest);
    assert_eq!(told(&mut guest, &reads, PATIENCE).unwrap(), b"");
    control.says(&mut guest, &[Word::Leave]);
    assert_eq!(told(&mut guest, &second, PATIENCE).unwrap(), b"e\0");
    let flags = libc::O_RDWR.cast_unsigned() | libc::O_TRUNC.cast_unsigned();
    guest.fs.call(&open(control.node, flags)).unwrap();
    guest.assert_unharmed("the agent's file");
}

#[test]
fn what_is_kept_from_an_earlier_start_is_mounted_when_somebody_looks_and_there_is_room_for_64() {
    let (mut guest, control, reads) = with_agent();
    let package = node(&mut guest, "pkg");
    control.says(
        &mut guest,
        &[
            Word::Kept("pkg/target"),
            Word::Kept("pkg/other"),
            Word::Kept("gone/target"),
        ],
    );
    assert_eq!(told(&mut guest, &reads, MOMENT), None);
    guest.fs.lookup(package, "target").unwrap();
    let news = told(&mut guest, &reads, PATIENCE).unwrap();
    let words: Vec<_> = Word::all(&news).collect();
    assert_eq!(words, [Word::Mount("pkg/target")]);
    assert_eq!(refused(guest.fs.lookup(package, "other")), Errno::NOENT);
    let gone = guest.fs.mkdir(ROOT, "gone", 0o755).unwrap().node;
    assert_eq!(refused(guest.fs.lookup(gone, "target")), Errno::NOENT);
    for number in 0..64 {
        let parent = guest.fs.mkdir(ROOT, format!("p{number}"), 0o755).unwrap();
        guest.fs.mkdir(parent.node, "target", 0o755).unwrap();
        let on_host = guest.host(&format!("p{number}/target")).is_dir();
        assert_eq!(on_host, number == 63, "{number}");
    }
}

#[test]
fn a_directory_that_went_with_its_mask_can_be_made_again_and_is_mounted_anew() {
    let (mut guest, control, reads) = with_agent();
    let package = node(&mut guest, "pkg");
    guest.fs.mkdir(package, "node_modules", 0o755).unwrap();
    told(&mut guest, &reads, PATIENCE).unwrap();
    control.says(&mut guest, &[Word::Mounted("pkg/node_modules")]);
    let reads = control.reads(&mut guest);
    std::fs::remove_dir(guest.host("pkg")).unwrap();
    assert_eq!(refused(guest.fs.lookup(ROOT, "pkg")), Errno::NOENT);
    // The guest has not forgotten what was in it: that comes by another queue.
    let package = guest.fs.mkdir(ROOT, "pkg", 0o755).unwrap().node;
    guest.fs.lookup(package, "node_modules").unwrap();
    let news = told(&mut guest, &reads, PATIENCE).unwrap();
    let words: Vec<_> = Word::all(&news).collect();
    assert_eq!(words, [Word::Mount("pkg/node_modules")]);
    // As long as it is there, it stays.
    assert_eq!(refused(guest.fs.rmdir(ROOT, "pkg")), Errno::BUSY);
    let other = guest.fs.mkdir(ROOT, "other", 0o755);
    assert!(other.is_ok());
    let over = guest.fs.rename2((ROOT, b"other"), (ROOT, b"pkg"), 0);
    assert_eq!(refused(over), Errno::BUSY);
}

#[test]
fn an_agent_that_does_not_read_is_told_of_each_once_and_nobody_else_speaks_for_him() {
    let (mut guest, control, reads) = with_agent();
    let package = node(&mut guest, "pkg");
    let made = guest.fs.mkdir(package, "target", 0o755).unwrap().node;
    told(&mut guest, &reads, PATIENCE).unwrap();
    guest.fs.forget(made, 1).unwrap();
    for _ in 0..50 {
        let found = guest.fs.lookup(package, "target").unwrap().node;
        guest.fs.forget(found, 1).unwrap();
        control.says(&mut guest, &[Word::Mounted("pkg/target")]);
    }
    let reads = control.reads(&mut guest);
    let news = told(&mut guest, &reads, PATIENCE).unwrap();
    assert_eq!(Word::all(&news).count(), 1);

    let reads = control.reads(&mut guest);
    guest.fs.mkdir(package, "node_modules", 0o755).unwrap();
    told(&mut guest, &reads, PATIENCE).unwrap();
    let mut lie = Vec::new();
    Word::Mounted("pkg/node_modules").put(&mut lie);
    Word::Kept("a/target").put(&mut lie);
    guest
        .fs
        .write(control.node, control.handle, 0, &lie)
        .unwrap();
    let waits = lookup(package, "node_modules");
    let waits = guest.fs.device().begin(waits).unwrap();
    assert_eq!(looked_up(&mut guest, &waits, MOMENT), None);
    let a = node(&mut guest, "a");
    assert_eq!(refused(guest.fs.lookup(a, "target")), Errno::NOENT);

    // Without him what appears is the host's.
    guest.fs.release(control.node, control.handle).unwrap();
    guest.fs.mkdir(a, "node_modules", 0o755).unwrap();
    assert!(guest.host("a/node_modules").is_dir());
}

#[test]
fn what_is_hidden_is_not_told_by_renaming_it_to_such_a_name() {
    let rules = r#"{"late_masks":["target"],"hide":["/secret/"]}"#;
    let mut guest = Guest::with(&["--rules", rules]);
    let node = guest.fs.lookup(ROOT, CONTROL).unwrap().node;
    let handle = guest.fs.open(node, libc::O_RDWR.cast_unsigned()).unwrap();
    let _reads = Control { node, handle }.reads(&mut guest);
    std::fs::create_dir(guest.host("secret")).unwrap();
    for hidden in ["secret", "nowhere"] {
        let moved = guest
            .fs
            .rename2((ROOT, hidden.as_bytes()), (ROOT, b"target"), 0);
        assert_eq!(refused(moved), Errno::NOENT, "{hidden}");
    }
    guest.fs.mkdir(ROOT, "seen", 0o755).unwrap();
    std::fs::write(guest.host("seen/f"), "").unwrap();
    let moved = guest.fs.rename2((ROOT, b"seen"), (ROOT, b"target"), 0);
    assert_eq!(refused(moved), Errno::XDEV);
}
