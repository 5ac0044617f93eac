//! The guest's file requests, up to files that are open: the share with its decoder before it, on a tree of
//! the host's own with a way out in it and something outside.
//!
//! The bytes are a list of requests. Each is a head, arguments and a chain of descriptors with one thing or the other
//! wrong; nodes and handles can be those of earlier answers, so that what is behind an opening is reached. A first byte
//! says whether the tree is read-only (1) and whether there are rules (2).

use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use sbx_share::fuse::{Answered, Request, Session};
use sbx_share::{Bounds, GuestOwner, Share};
use tempfile::TempDir;
use virtio_queue::{DescriptorChain, Queue, QueueT};
use virtiofsd::fuse::Opcode;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::guarded::{self, Tree};

/// Requests that are made; the rest of longer input is left.
const STEPS: usize = 24;
/// Where things are in the guest's memory: descriptors, rings, the request, the answer.
const TABLE: u64 = 0x1000;
const AVAILABLE: u64 = 0x2000;
const USED: u64 = 0x3000;
const REQUEST: u64 = 0x4000;
const ANSWER: u64 = 0x2_0000;
/// Bytes of memory.
const MEMORY: usize = 1 << 20;
/// Descriptors of the queue.
const SIZE: u16 = 256;
/// Bytes of the heads.
const HEAD: usize = 40;
const ANSWER_HEAD: usize = 16;
/// Longest range that the host is asked to fill: more would only take time and memory.
const FILL: u64 = 1 << 20;
/// Rooms for answers.
const ROOMS: [u32; 4] = [4096, 16, 0, 0x2_0000];

/// Makes the requests. Whatever they are: answers are well formed, nothing outside is changed, a read-only tree stays as
/// it is, no file gets rights or a kind that it must not have, and rules hold.
pub(crate) fn run(bytes: &[u8]) {
    let Some((how, steps)) = bytes.split_first() else {
        return;
    };
    let (read_only, ruled) = (how & 1 != 0, how & 2 != 0);
    let host = Host::new();
    if ruled {
        guarded::prepare(&host.root(), &host.outside().join("s"));
    }
    let before = host.tree();
    let bounds = Bounds {
        directories: 8,
        nodes: 64,
        handles: 16,
    };
    let root = host.root();
    let share = Share::with_bounds(&root, GuestOwner::default(), read_only, bounds);
    let mut share = share.expect("a directory");
    if ruled {
        share = share.guarded(guarded::rules(), None).expect("rules");
    }
    let mut play = Play {
        session: Session::new(share),
        memory: GuestMemoryMmap::from_ranges(&[(GuestAddress(TABLE), MEMORY)]).expect("memory"),
        nodes: vec![1],
        handles: Vec::new(),
    };
    let mut steps = Steps(steps);
    for unique in 1..=STEPS {
        if steps.0.is_empty() || !play.step(&mut steps, unique as u64) {
            break;
        }
    }
    let after = host.tree();
    assert!(
        !read_only || before == after,
        "a read-only tree has changed"
    );
    if ruled {
        guarded::assert_kept(&root, &before, &after);
    }
    host.assert_outside();
}

/// What lies on the host.
struct Host(TempDir);

impl Host {
    fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let mut builder = tempfile::Builder::new();
        let builder = builder.prefix("sbx-fuzz-");
        let folder = if memory.is_dir() {
            builder.tempdir_in(memory)
        } else {
            builder.tempdir()
        };
        let host = Self(folder.expect("a folder"));
        let root = host.root();
        fs::create_dir_all(root.join("d/e")).expect("a folder");
        fs::create_dir(host.outside()).expect("a folder");
        for (place, text) in [
            ("root/f", "file"),
            ("root/d/g", "deep"),
            ("outside/s", "secret"),
        ] {
            fs::write(host.0.path().join(place), text).expect("a file");
        }
        for (text, name) in [("../outside", "up"), ("/", "top"), ("f", "l")] {
            symlink(text, root.join(name)).expect("a link");
        }
        host
    }

    fn root(&self) -> PathBuf {
        self.0.path().join("root")
    }

    fn outside(&self) -> PathBuf {
        self.0.path().join("outside")
    }

    /// Names, modes and contents below the root, which must be of kinds that a guest may make. Folders are opened up
    /// afterwards, so that they can be removed.
    fn tree(&self) -> Tree {
        let (mut found, mut folders) = (Tree::new(), vec![self.root()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                let data = path.symlink_metadata().expect("a file");
                let kind = data.file_type();
                assert!(
                    !kind.is_block_device() && !kind.is_char_device(),
                    "{}",
                    path.display()
                );
                assert!(
                    kind.is_symlink() || data.mode() & 0o6000 == 0,
                    "{}",
                    path.display()
                );
                let content = if kind.is_dir() {
                    fs::set_permissions(&path, Permissions::from_mode(0o700)).expect("ours");
                    folders.push(path.clone());
                    Vec::new()
                } else if kind.is_file() && data.len() <= FILL {
                    read(&path, data.mode())
                } else if kind.is_symlink() {
                    fs::read_link(&path)
                        .expect("a link")
                        .into_os_string()
                        .into_vec()
                } else {
                    data.len().to_le_bytes().to_vec()
                };
                // What was opened up before stays so: modes of folders are compared by nobody.
                let mode = if kind.is_dir() { 0 } else { data.mode() };
                found.insert(path, (mode, content));
            }
        }
        found
    }

    fn assert_outside(&self) {
        let names: Vec<_> = fs::read_dir(self.outside())
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        assert_eq!(names, ["s"], "something was made outside");
        let secret = fs::read(self.outside().join("s")).expect("a file");
        assert_eq!(secret, b"secret", "something was changed outside");
    }
}

/// The content of a file, also of one whose owner may not read it. Its mode stays.
fn read(path: &Path, mode: u32) -> Vec<u8> {
    let closed = mode & 0o400 == 0;
    if closed {
        fs::set_permissions(path, Permissions::from_mode(0o600)).expect("ours");
    }
    let content = fs::read(path).expect("a file");
    if closed {
        fs::set_permissions(path, Permissions::from_mode(mode & 0o7777)).expect("ours");
    }
    content
}

/// Bytes that are taken one after the other; 0 once there are none left.
struct Steps<'a>(&'a [u8]);

impl Steps<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = usize::from(self.byte()).min(self.0.len());
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken.to_vec()
    }
}

struct Play {
    session: Session,
    memory: GuestMemoryMmap,
    /// Of earlier answers, the root first.
    nodes: Vec<u64>,
    handles: Vec<u64>,
}

impl Play {
    /// One request. Returns whether the server goes on: it ends where a chain makes no sense.
    fn step(&mut self, steps: &mut Steps<'_>, unique: u64) -> bool {
        let (how, op, node) = (steps.byte(), steps.byte(), steps.byte());
        let (first, second, lie) = (steps.byte(), steps.byte(), steps.byte());
        let mut args = steps.bytes();
        // The first 8 bytes are mostly a handle or a node, and those made up are found out at once.
        let known = [None, pick(&self.handles, first), pick(&self.nodes, first)];
        put(&mut args, 0, known[usize::from(how & 3) % 3]);
        if u32::from(op) == Opcode::CopyFileRange as u32 {
            put(&mut args, 16, pick(&self.nodes, second));
            put(&mut args, 24, pick(&self.handles, second));
            clamp(&mut args, 40);
        }
        if u32::from(op) == Opcode::Fallocate as u32 {
            clamp(&mut args, 8);
            clamp(&mut args, 16);
        }
        let node = pick(&self.nodes, node).unwrap_or(1);
        let length = u32::try_from(HEAD + args.len()).expect("short");
        let length = match how >> 2 & 3 {
            1 => length.wrapping_sub(u32::from(lie)),
            2 => length.wrapping_add(u32::from(lie) << 13),
            _ => length,
        };
        let mut request = [length, u32::from(op)].map(u32::to_le_bytes).concat();
        request.extend([unique, node].map(u64::to_le_bytes).concat());
        // One of two threads.
        let thread = 42 + u32::from(second & 1);
        request.extend([1000_u32, 1000, thread, 0].map(u32::to_le_bytes).concat());
        request.extend(&args);
        let table = match how >> 4 & 3 {
            // What was meant for arguments is descriptors.
            3 if how >= 0x80 => args
                .chunks(16)
                .take(usize::from(SIZE))
                .collect::<Vec<_>>()
                .concat(),
            room => chain(request.len(), usize::from(lie), ROOMS[usize::from(room)]),
        };
        self.write(REQUEST, &request);
        self.write(TABLE, &table);
        let answered = self.answered(unique);
        if let Some(answer) = &answered {
            self.learn(op, answer);
        }
        answered.is_some()
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        let written = self.memory.write_slice(bytes, GuestAddress(at));
        written.expect("a place in memory");
    }

    /// Gives the chain to the session, as the device does, and checks the answer. None where the server ends.
    fn answered(&mut self, unique: u64) -> Option<Vec<u8>> {
        self.write(ANSWER, &[0; ANSWER_HEAD]);
        self.write(AVAILABLE, &[0, 0, 1, 0, 0, 0]);
        let mut queue = Queue::new(SIZE).expect("a queue");
        let low = |at: u64| u32::try_from(at).ok();
        queue.set_desc_table_address(low(TABLE), None);
        queue.set_avail_ring_address(low(AVAILABLE), None);
        queue.set_used_ring_address(low(USED), None);
        queue.set_ready(true);
        let chain: DescriptorChain<&GuestMemoryMmap> = queue.pop_descriptor_chain(&self.memory)?;
        let request = Request::new(&self.memory, chain).ok()?;
        let mut answer = match self.session.answer(&request).ok()? {
            Answered::Now(length) => {
                let length = usize::try_from(length).expect("far below 4 GiB");
                let mut answer = vec![0; length];
                let place = GuestAddress(ANSWER);
                self.memory.read_slice(&mut answer, place).ok()?;
                answer
            }
            Answered::Later(waiting) => {
                let answer = self.session.later(&waiting, true);
                answer.expect("what is given at once").to_vec()
            }
        };
        let length = answer.len();
        let shown = answer
            .windows(guarded::HIDDEN.len())
            .any(|part| part == guarded::HIDDEN);
        assert!(!shown, "something hidden was shown");
        // A chain made of arguments has its answer somewhere else.
        if answer.len() < ANSWER_HEAD || answer[8..16] != unique.to_le_bytes() {
            return Some(Vec::new());
        }
        let field = |at: usize| i32::from_le_bytes(answer[at..at + 4].try_into().expect("4"));
        assert_eq!(usize::try_from(field(0)), Ok(length), "the answer's length");
        assert!((-4095..=0).contains(&field(4)), "error {}", field(4));
        assert!(
            field(4) == 0 || length == ANSWER_HEAD,
            "an error with content"
        );
        Some(answer.split_off(ANSWER_HEAD))
    }

    /// Takes nodes and handles from an answer.
    fn learn(&mut self, op: u8, answer: &[u8]) {
        let number = |at: usize| {
            let bytes = answer.get(at..at + 8)?;
            Some(u64::from_le_bytes(bytes.try_into().ok()?))
        };
        let Ok(op) = Opcode::try_from(u32::from(op)) else {
            return;
        };
        let (node, handle) = match op {
            Opcode::Create => (number(0), number(128)),
            Opcode::Open | Opcode::Opendir => (None, number(0)),
            Opcode::Lookup
            | Opcode::Symlink
            | Opcode::Mknod
            | Opcode::Mkdir
            | Opcode::Link
            | Opcode::Readdirplus => (number(0), None),
            _ => (None, None),
        };
        self.nodes.extend(node);
        self.handles.extend(handle);
    }
}

/// The list's number at this place, counted around.
fn pick(list: &[u64], at: u8) -> Option<u64> {
    let at = usize::from(at).checked_rem(list.len())?;
    list.get(at).copied()
}

/// Puts a number into arguments that have room for it.
fn put(args: &mut [u8], at: usize, number: Option<u64>) {
    if let (Some(place), Some(number)) = (args.get_mut(at..at + 8), number) {
        place.copy_from_slice(&number.to_le_bytes());
    }
}

/// Keeps the number there within what is filled in no time.
fn clamp(args: &mut [u8], at: usize) {
    if let Some(place) = args.get_mut(at..at + 8) {
        let number = u64::from_le_bytes(place.try_into().expect("8")) % FILL;
        place.copy_from_slice(&number.to_le_bytes());
    }
}

/// The descriptors of a request, cut in two, and of room for its answer.
fn chain(length: usize, cut: usize, room: u32) -> Vec<u8> {
    let (next, write) = (1_u16, 2_u16);
    let cut = u32::try_from(cut.min(length)).expect("short");
    let rest = u32::try_from(length).expect("short") - cut;
    let mut parts = vec![(REQUEST, cut, 0)];
    if rest > 0 {
        parts.push((REQUEST + u64::from(cut), rest, 0));
    }
    if room > 0 {
        parts.push((ANSWER, room, write));
    }
    let last = parts.len() - 1;
    let mut table = Vec::new();
    for (index, (at, length, kind)) in (0_u16..).zip(parts) {
        let flags = if usize::from(index) < last {
            kind | next
        } else {
            kind
        };
        table.extend(at.to_le_bytes());
        table.extend(length.to_le_bytes());
        table.extend(flags.to_le_bytes());
        table.extend((index + 1).to_le_bytes());
    }
    table
}
