//! A disk without room or without inodes: on a small file system of its own, in a namespace that the test made.

use crate::world::{Done, World, done, finish};
use std::fs::File;
use std::process::Command;

/// Runs a shell script in which `$SBX_HOME` lies on a file system with these options, `sbx` is the command, `try` runs
/// one and says `NAME: exit code`, and `fill` leaves nothing free.
fn on_small_disk(world: &World, options: &str, script: &str) -> Done {
    let prelude = r#"
        sbx() { "$SBX" "$@"; }
        try() { name=$1; shift; said=$("$@" 2>&1); echo "$name: $?"; echo "$said" | sed "s/^/$name| /"; }
        fill() { dd if=/dev/zero of="$SBX_HOME/state/fill" bs=4096 2>/dev/null
                 dd if=/dev/zero of="$SBX_HOME/state/fill2" bs=1 2>/dev/null
                 i=0; while : > "$SBX_HOME/state/inode$i"; do i=$((i+1)); [ $i -gt 5000 ] && break; done 2>/dev/null; }
        free() { rm -f "$SBX_HOME"/state/fill* "$SBX_HOME"/state/inode*; }
        kill_daemon() { kill -9 $(cat "$SBX_HOME/pid"); while [ -e /proc/$(cat "$SBX_HOME/pid") ]; do sleep 0.01; done; }
    "#;
    let folders = world.folder("home");
    let mount = format!("mount -t tmpfs -o {options} none \"$SBX_HOME\" || exit 92");
    let stop = "sbx daemon stop >/dev/null 2>&1";
    let line = format!("{prelude}\n{mount}\n{script}\n{stop}\n");
    let sbx = world.command(&[]);
    let mut namespace = Command::new("unshare");
    namespace.args(["--user", "--map-root-user", "--mount", "bash", "-c", &line]);
    namespace.env_clear().envs(
        sbx.get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    namespace.env("SBX", sbx.get_program());
    namespace.current_dir(folders.parent().unwrap());
    done(namespace.output().unwrap())
}

/// Exit code of a step.
fn code(done: &Done, step: &str) -> i32 {
    let mark = format!("{step}: ");
    let line = done
        .stdout
        .lines()
        .find_map(|line| line.strip_prefix(&mark));
    line.unwrap_or_else(|| panic!("no step {step}: {done:?}"))
        .parse()
        .unwrap()
}

/// What a step said.
fn said(done: &Done, step: &str) -> String {
    let mark = format!("{step}| ");
    let lines = done
        .stdout
        .lines()
        .filter_map(|line| line.strip_prefix(&mark));
    lines.collect::<Vec<_>>().join("\n")
}

const PLANT: &str = r#"
    plant() { d="$SBX_HOME/state/sandboxes/$1"; mkdir -p "$d"; head -c 100000 /dev/zero > "$d/upper.qcow2"
        printf '%s' '{"schema":1,"id":"'$1'","name":"'$2'","agent":"shell","workspaces":[],"env":[],"cpus":1,
        "memory_mib":512,"accel_wanted":null,"accel":"tcg","image":"base-0","agent_command":["bash"],
        "workdir":"/home/agent","machine_id":"00000000000000000000000000000000","placeholders":{},
        "created_at":"2026-01-01T00:00:00Z","last_used_at":null}' > "$d/sandbox.json"; }
"#;

const STORY: &str = r#"
    sbx policy init deny-all >/dev/null || exit 90
    plant 00000000000a one; plant 00000000000b two
    sbx daemon restart >/dev/null || exit 91
    sbx daemon status --json | sed -n 's/.*"pid": *\([0-9]*\).*/\1/p' > "$SBX_HOME/pid"
    before=$(sbx policy ls; sbx settings list; sbx secret ls)
    fill
    try rule sbx policy allow network new.example
    try setting sbx settings set sandbox.disk.dockerVolume 3g
    try secret sh -c 'echo sk-ant-x | "$SBX" secret set anthropic'
    after=$(sbx policy ls; sbx settings list; sbx secret ls)
    [ "$before" = "$after" ]; echo "unchanged: $?"
    ls "$SBX_HOME/state" "$SBX_HOME/state/secrets" | grep -c '\.new$\|journal'
    kill_daemon
    try start sbx ls -q
    again=$(sbx policy ls; sbx settings list; sbx secret ls)
    [ "$before" = "$again" ]; echo "kept: $?"
    try diagnose sbx diagnose
    try remove sbx rm --force two
    free
    try later sbx policy allow network new.example
    try list sbx policy ls
    try names sbx ls -q
"#;

fn survives(options: &str) {
    let world = World::new();
    let done = on_small_disk(&world, options, &format!("{PLANT}{STORY}"));
    for step in ["rule", "setting", "secret"] {
        assert_eq!(code(&done, step), 1, "{step}: {done:?}");
        let said = said(&done, step);
        assert!(said.contains("error: "), "{said}");
        assert!(said.contains("try: free space"), "{said}");
    }
    assert_eq!(code(&done, "unchanged"), 0, "{done:?}");
    assert!(
        done.stdout.contains("\n0\nstart: "),
        "nothing half-made: {done:?}"
    );
    // A daemon starts there, says what is wrong, and removes what makes room.
    assert_eq!(code(&done, "start"), 0, "{done:?}");
    assert_eq!(said(&done, "start"), "one\ntwo");
    assert_eq!(code(&done, "kept"), 0, "{done:?}");
    assert!(
        said(&done, "diagnose").contains("fail  state-space"),
        "{done:?}"
    );
    assert_eq!(code(&done, "remove"), 0, "{done:?}");
    assert_eq!(code(&done, "later"), 0, "{done:?}");
    assert!(said(&done, "list").contains("new.example") || said(&done, "list").contains("1 allow"));
    assert_eq!(said(&done, "names"), "one");
}

#[test]
fn attack_71_a_full_disk_refuses_each_change_as_a_whole_and_the_daemon_starts_on_it() {
    survives("size=2m");
}

#[test]
fn attack_71_a_disk_without_inodes_refuses_each_change_as_a_whole_and_the_daemon_starts_on_it() {
    survives("size=64m,nr_inodes=60");
}

#[test]
fn data_that_finds_no_room_is_an_error_and_data_that_nobody_reads_is_none() {
    let world = World::with_policy();
    let commands: [&[&str]; 4] = [
        &["policy", "ls", "--json"],
        &["settings", "list"],
        &["secret", "ls"],
        &["version", "--json"],
    ];
    for arguments in commands {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let done = finish(world.command(arguments).stdout(full).spawn().unwrap());
        assert_eq!(done.code, 1, "{arguments:?}: {done:?}");
        let begins = "error: the output cannot be written here: ";
        assert!(done.stderr.starts_with(begins), "{done:?}");
        assert!(done.stderr.contains("\n  try: free space"), "{done:?}");

        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let done = finish(world.command(arguments).stdout(writer).spawn().unwrap());
        assert_eq!((done.code, done.stderr.as_str()), (0, ""), "{arguments:?}");
    }
}
