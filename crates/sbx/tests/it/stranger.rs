//! Somebody else listens where our own process is expected.

use crate::world::World;
use rustix::process::Uid;
use std::fs::Permissions;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

const NOBODY: u32 = 65534;
/// Time in which what is said has to be said.
const PATIENCE: Duration = Duration::from_millis(500);

const VALUE: &str = "sk-ant-api03-0123456789abcdefghijklmnopqrstuvwxyz";

/// Whether this test can be somebody else; says so if not.
#[expect(clippy::print_stdout, reason = "whoever reads the tests' output")]
pub(crate) fn possible() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: only root can become another user, and a user cannot be two");
    }
    root
}

/// Becomes somebody else for as long as its thread lives: the kernel changes this thread only.
fn become_nobody() {
    let nobody = Uid::from_raw(NOBODY);
    rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
}

/// Does something as somebody else.
pub(crate) fn as_nobody<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::spawn(|| {
        become_nobody();
        work()
    });
    thread.join().unwrap()
}

/// Another user, who listens.
pub(crate) struct Stranger {
    socket: PathBuf,
    heard: Receiver<Vec<u8>>,
}

impl Stranger {
    /// Listens at a socket that everybody may connect to, in a folder that is made if it is not there.
    pub(crate) fn listen(socket: PathBuf) -> Self {
        let (tell, heard) = channel();
        let (ready, is_ready) = channel();
        let path = socket.clone();
        std::thread::spawn(move || {
            become_nobody();
            let folder = path.parent().unwrap();
            if !folder.exists() {
                std::fs::create_dir(folder).unwrap();
            }
            let listener = UnixListener::bind(&path).unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
            ready.send(()).unwrap();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                // Whoever waits for an answer is hung up on.
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let mut all = Vec::new();
                let _late = stream.read_to_end(&mut all);
                if tell.send(all).is_err() {
                    return;
                }
            }
        });
        is_ready.recv().unwrap();
        Self { socket, heard }
    }

    /// Everything that was said to it before.
    pub(crate) fn heard(&self) -> String {
        let mark: &[u8] = b"the last one";
        let mut last = UnixStream::connect(&self.socket).unwrap();
        last.write_all(mark).unwrap();
        drop(last);
        let before = self.heard.iter().take_while(|said| said != mark);
        String::from_utf8_lossy(&before.flatten().collect::<Vec<u8>>()).into_owned()
    }
}

#[test]
fn a_socket_at_which_another_user_listens_is_told_nothing() {
    if !possible() {
        return;
    }
    let world = World::new();
    let runtime = world.folders().runtime;
    let stranger = Stranger::listen(runtime.join("daemon.sock"));
    let made = format!("{} belongs to another user (uid 65534)", runtime.display());
    world
        .sbx_with_input(&["secret", "set", "anthropic"], VALUE)
        .refused(&made);
    world.sbx(&["ls"]).refused(&made);
    world.sbx(&["daemon", "status"]).refused(&made);
    world.sbx(&["daemon", "stop"]).refused(&made);
    world.sbx(&["policy", "log", "--follow"]).refused(&made);
    let report = world.sbx(&["diagnose"]).stdout;
    assert!(
        report.contains(&format!("fail  daemon: {made}")),
        "{report}"
    );
    assert_eq!(stranger.heard(), "");
    // In a folder of ours it is the socket.
    std::fs::remove_dir_all(&runtime).unwrap();
    std::fs::create_dir(&runtime).unwrap();
    std::fs::set_permissions(&runtime, Permissions::from_mode(0o777)).unwrap();
    let stranger = Stranger::listen(runtime.join("daemon.sock"));
    let socket = "daemon.sock is listened at by another user (uid 65534)";
    world
        .sbx_with_input(&["secret", "set", "anthropic"], VALUE)
        .refused(socket);
    assert_eq!(stranger.heard(), "");
    std::fs::remove_dir_all(&runtime).unwrap();
}
