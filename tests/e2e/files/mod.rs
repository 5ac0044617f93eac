//! Files in a workspace: what holds for them inside, for both sides at once, and what does not (SPECIFICATION.md, S13).

mod builds;
mod pjdfstest;
mod toolchain;

use crate::setting::Setting;
use sbx_e2e::files::{Peer, campaign};

/// What holds inside, one function for each fact.
const FACTS: &str = include_str!("facts.py");
/// Operations of the share of `./dev soak files` that runs here, and their seed.
const OPERATIONS: u64 = 3000;
const SEED: u64 = 1;

/// With the small kernel, which most users have and whose requests to the share take a quarter of the time under
/// emulation. (The facts and the edits are tested with the kernel that the other tests have.)
fn quick() -> Setting {
    let setting = Setting::ordinary("deny-all");
    setting.kernel("small");
    setting
}

#[test]
fn every_fact_holds_for_agent_and_root_inside() {
    let setting = Setting::ordinary("deny-all");
    let workspace = setting.shell("facts");
    let program = workspace.join("facts.py");
    setting
        .installation
        .write(&program, FACTS.as_bytes())
        .unwrap();
    let wanted: Vec<&str> = FACTS
        .lines()
        .filter_map(|line| line.strip_prefix("def ")?.strip_suffix("():"))
        .filter(|name| *name != "main" && *name != "map_and_answer")
        .collect();
    assert!(wanted.len() > 20, "{wanted:?}");
    for (user, line) in [("agent", "python3"), ("root", "sudo python3")] {
        let line = format!("mkdir {user} && cd {user} && {line} ../facts.py");
        let seen = setting.inside("facts", &line);
        let holding: Vec<&str> = seen
            .lines()
            .filter_map(|line| line.strip_suffix(" ok"))
            .collect();
        assert_eq!(holding, wanted, "as {user}:\n{seen}");
    }
}

/// A folder with a program at work on each side.
struct Both {
    inside: Peer,
    outside: Peer,
    slowest: f64,
}

impl Both {
    /// The value of an expression inside, which must have one.
    #[track_caller]
    fn inside(&mut self, expression: &str) -> serde_json::Value {
        self.inside.ask(expression).unwrap()
    }

    #[track_caller]
    fn outside(&mut self, expression: &str) -> serde_json::Value {
        self.outside.ask(expression).unwrap()
    }

    /// The guest has seen the old state, the host changes it, and within a second the condition holds inside.
    #[track_caller]
    fn edit(&mut self, what: &str, old: &str, change: &str, condition: &str) {
        assert_eq!(self.inside(old), true, "{what}: before");
        let start = std::time::Instant::now();
        self.outside(change);
        let seen = self.inside(&format!("within(5, lambda: {condition})"));
        let took = start.elapsed().as_secs_f64();
        assert!(seen.is_f64(), "{what}: not seen within 5 s");
        println!("{what}: seen after {:.0} ms", took * 1000.0);
        assert!(took < 1.0, "{what}: {took} s after the host began");
        self.slowest = self.slowest.max(took);
    }
}

#[test]
fn what_the_host_changes_is_seen_inside_within_a_second_and_the_other_way_at_once() {
    let setting = Setting::ordinary("deny-all");
    let workspace = setting.shell("edits");
    let mut both = Both {
        inside: Peer::inside(&setting.installation, "edits", "agent").unwrap(),
        outside: Peer::outside(&setting.installation, &workspace).unwrap(),
        slowest: 0.0,
    };
    edits_by_name(&mut both);
    edits_of_open_files(&mut both);
    println!("slowest: {:.0} ms", both.slowest * 1000.0);
    what_the_guest_does_is_on_the_host_at_once(&mut both);
    a_directory_moved_away_under_a_program_is_stale_until_looked_up(&mut both);
    appends_of_both_sides_lose_nothing(&mut both);
    locks_are_the_guests_own(&mut both);
    inotify_tells_of_the_guests_changes_only(&mut both);
}

fn edits_by_name(both: &mut Both) {
    both.outside("[os.mkdir('d'), put('d/f', 'one'), put('d/other', 'x'), put('d/old', 'x')]");
    both.edit(
        "same size",
        "get('d/f') == 'one'",
        "put('d/f', 'two')",
        "get('d/f') == 'two'",
    );
    both.edit(
        "longer",
        "os.stat('d/f').st_size == 3",
        "put('d/f', 'three')",
        "os.stat('d/f').st_size == 5 and get('d/f') == 'three'",
    );
    both.edit(
        "shorter",
        "get('d/f') == 'three'",
        "os.truncate('d/f', 2)",
        "get('d/f') == 'th'",
    );
    both.edit(
        "new",
        "not os.path.exists('d/new')",
        "put('d/new', 'n')",
        "get('d/new') == 'n' and 'new' in os.listdir('d')",
    );
    both.edit(
        "removed",
        "get('d/old') == 'x'",
        "os.unlink('d/old')",
        "not os.path.exists('d/old') and 'old' not in os.listdir('d')",
    );
    both.edit(
        "renamed",
        "get('d/other') == 'x'",
        "os.rename('d/other', 'd/moved')",
        "not os.path.exists('d/other') and get('d/moved') == 'x'",
    );
    both.edit(
        "replaced, as editors do",
        "get('d/f') == 'th'",
        "[put('d/f~', 'replaced'), os.rename('d/f~', 'd/f')]",
        "get('d/f') == 'replaced'",
    );
    both.edit(
        "mode",
        "os.access('d/f', os.X_OK) == False",
        "os.chmod('d/f', 0o755)",
        "os.access('d/f', os.X_OK)",
    );
    both.edit(
        "directory moved",
        "get('d/f') == 'replaced'",
        "os.rename('d', 'e')",
        "not os.path.exists('d') and get('e/f') == 'replaced'",
    );
    both.edit(
        "file became directory",
        "os.path.isfile('e/f')",
        "[os.unlink('e/f'), os.mkdir('e/f')]",
        "os.path.isdir('e/f')",
    );
}

/// Through descriptors and mappings that the guest had before.
fn edits_of_open_files(both: &mut Both) {
    both.outside("put('open', 'a' * 10000)");
    both.inside("open_slot(1, 'open')");
    both.inside("slots.update(map=mmap.mmap(slots[1], 10000))");
    both.edit(
        "open file",
        "os.pread(slots[1], 10000, 0) == b'a' * 10000",
        "put('open', 'b' * 10000)",
        "os.pread(slots[1], 10000, 0) == b'b' * 10000",
    );
    // A mapping alone asks nobody; whoever looks at the file has it brought up to date.
    both.edit(
        "mapped file",
        "slots['map'][:] == b'b' * 10000",
        "put('open', 'c' * 10000)",
        "os.fstat(slots[1]) and slots['map'][:] == b'c' * 10000",
    );
    both.edit(
        "open file without a name",
        "os.fstat(slots[1]).st_nlink == 1",
        "os.unlink('open')",
        "os.fstat(slots[1]).st_nlink == 0 and os.pread(slots[1], 5, 0) == b'ccccc'",
    );
    both.inside("[slots.pop('map').close(), os.close(slots.pop(1))]");
}

fn what_the_guest_does_is_on_the_host_at_once(both: &mut Both) {
    both.outside("put('g', '-' * 8192)");
    for (change, condition) in [
        ("put('made', 'inside')", "get('made') == 'inside'"),
        ("os.truncate('made', 3)", "os.stat('made').st_size == 3"),
        ("os.rename('made', 'named')", "get('named') == 'ins'"),
        (
            "os.link('named', 'twice')",
            "os.stat('twice').st_nlink == 2",
        ),
        ("os.unlink('named')", "not os.path.exists('named')"),
        (
            "os.chmod('twice', 0o600)",
            "os.stat('twice').st_mode & 0o777 == 0o600",
        ),
        (
            "opened('g', os.O_RDWR, lambda fd: map_write(fd, 4090, b'mapped'))",
            "get('g')[4090:4096] == 'mapped'",
        ),
        (
            "os.symlink('nowhere', 'link')",
            "os.readlink('link') == 'nowhere'",
        ),
        (
            "put(b'\\xff\\xfe'.decode('utf8', 'surrogateescape'), 'odd')",
            "b'\\xff\\xfe' in os.listdir(b'.')",
        ),
    ] {
        both.inside(change);
        assert_eq!(both.outside(condition), true, "{change}");
    }
}

/// Not a promise, but what is so.
fn a_directory_moved_away_under_a_program_is_stale_until_looked_up(both: &mut Both) {
    both.outside("[os.mkdir('under'), put('under/f', 'x')]");
    both.inside("[slots.update(top=os.getcwd()), os.chdir('under')]");
    both.outside("os.rename('under', 'away')");
    let told =
        both.inside("within(5, lambda: said(lambda: os.stat('.')).startswith('[Errno 116]'))");
    assert!(told.is_f64(), "{told}");
    assert_eq!(both.inside("os.path.isdir(slots['top'] + '/away')"), true);
    assert_eq!(both.inside("get('f')"), "x");
    both.inside("os.chdir(slots.pop('top'))");
}

/// Both at the same time.
fn appends_of_both_sides_lose_nothing(both: &mut Both) {
    both.outside("put('log', '')");
    // Through one descriptor each, slowly enough that the two meet.
    let lines = |letter: &str| {
        format!(
            "opened('log', os.O_WRONLY | os.O_APPEND, lambda fd: \
             [(os.write(fd, b'{letter}' * 99 + b'\\n'), time.sleep(0.002)) for _ in range(300)]) and None"
        )
    };
    std::thread::scope(|scope| {
        let Both {
            inside, outside, ..
        } = both;
        let other = scope.spawn(move || outside.ask(&lines("h")));
        inside.ask(&lines("g")).unwrap();
        other.join().unwrap().unwrap();
    });
    // The guest's kernel makes two of a write that begins within a page it does not have, so the host's line may come
    // between the two.
    let host = "get('log').count('h' * 99 + '\\n')";
    assert_eq!(both.outside(host), 300, "the host's lines are whole");
    assert_eq!(both.outside("get('log').count('g')"), 300 * 99);
    assert_eq!(both.outside("os.stat('log').st_size"), 60_000);
}

fn locks_are_the_guests_own(both: &mut Both) {
    both.outside("put('locked', '')");
    let lock = "[open_slot(9, 'locked'), __import__('fcntl').flock(slots[9], 6)]";
    both.inside(lock);
    both.outside(lock);
    both.inside("os.close(slots.pop(9))");
    both.outside("os.close(slots.pop(9))");
}

/// Not a promise, but what is so: whoever mends it changes the specification too.
fn inotify_tells_of_the_guests_changes_only(both: &mut Both) {
    both.outside("[os.mkdir('watched'), put('watched/f', '')]");
    both.inside(
        "slots.update(watch=libc.inotify_init1(os.O_NONBLOCK)) or libc.inotify_add_watch(slots['watch'], b'watched', 0xfff)",
    );
    let told = "__import__('select').select([slots['watch']], [], [], 1.5)[0] != []";
    both.outside("put('watched/f', 'host')");
    assert_eq!(both.inside(told), false, "the host's edit");
    both.inside("put('watched/f', 'guest')");
    assert_eq!(both.inside(told), true, "the guest's own");
}

#[test]
fn after_random_operations_of_host_and_guest_in_turn_both_see_what_they_have_to() {
    let setting = quick();
    let workspace = setting.shell("random");
    let mut inside = Peer::inside(&setting.installation, "random", "agent").unwrap();
    let mut outside = Peer::outside(&setting.installation, &workspace).unwrap();
    let report = campaign::run(&mut inside, &mut outside, (SEED, OPERATIONS), |_| ()).unwrap();
    println!("{report}");
}
