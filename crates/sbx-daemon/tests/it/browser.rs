//! Pages that the gateway hands over: the host's opener is a program of the test.

use crate::adoption::{ID, gateway_with_pages, planted, supervisor};
use crate::harness::{Daemon, program};
use sbx_wire::gateway::{Answer, Command};
use serde_json::json;
use std::io::{BufRead, Write};
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex, mpsc};

/// A daemon whose `xdg-open` writes its arguments down, with a gateway that asks for pages.
struct Desk {
    daemon: Daemon,
    pages: mpsc::Sender<&'static str>,
    handled: mpsc::Receiver<Option<String>>,
}

impl Desk {
    fn new(screen: &str) -> Self {
        let mut daemon = planted();
        let runtime = daemon.runtime().join(ID);
        let (pages, asked) = mpsc::channel::<&str>();
        let (told, handled) = mpsc::channel();
        let asked = Arc::new(Mutex::new(asked));
        supervisor(&runtime, 0);
        gateway_with_pages(
            &runtime,
            |_| None,
            move |mut lines, mut stream| {
                for page in asked.lock().unwrap().iter() {
                    let address = page.parse().unwrap();
                    let text = serde_json::to_string(&Answer::OpenPage { address }).unwrap();
                    stream.write_all(format!("{text}\n").as_bytes()).unwrap();
                    let mut line = String::new();
                    lines.read_line(&mut line).unwrap();
                    match serde_json::from_str(&line).unwrap() {
                        Command::PageHandled { problem } => told.send(problem).unwrap(),
                        other => panic!("{other:?}"),
                    }
                }
            },
        );
        let opener = daemon.path("bin/xdg-open");
        std::fs::create_dir(daemon.path("bin")).unwrap();
        let script =
            "#!/bin/sh\nprintf '%s\\n' $# \"$@\" > \"$0.part\"; mv \"$0.part\" \"$0.said\"\n";
        std::fs::write(&opener, script).unwrap();
        std::fs::set_permissions(&opener, PermissionsExt::from_mode(0o755)).unwrap();
        let path = format!("{}:/usr/bin:/bin", daemon.path("bin").display());
        daemon.restart_as(&program(), |command| {
            command.env("PATH", path).env("DISPLAY", screen)
        });
        Self {
            daemon,
            pages,
            handled,
        }
    }

    /// Why a page was not opened.
    fn open(&self, page: &'static str) -> Option<String> {
        self.pages.send(page).unwrap();
        self.handled.recv().unwrap()
    }

    fn problem(&self, page: &'static str) -> String {
        self.open(page).expect("it was opened")
    }

    /// What the opener was started with, once it has run.
    fn said(&self) -> String {
        let path = self.daemon.path("bin/xdg-open.said");
        while !path.exists() {
            std::thread::park_timeout(std::time::Duration::from_millis(10));
        }
        std::fs::read_to_string(path).unwrap()
    }
}

#[test]
fn a_page_is_one_argument_of_the_opener_and_the_next_one_has_to_wait() {
    let desk = Desk::new(":0");
    let page = "https://a.test/x?a=$(id)&b=';*";
    assert_eq!(desk.open(page), None);
    assert_eq!(desk.said(), format!("1\n{page}\n"));
    assert!(desk.problem("https://a.test/").contains("only one page"));
}

#[test]
fn nothing_is_opened_without_a_screen_or_against_the_setting() {
    let desk = Desk::new("");
    assert!(desk.problem("https://a.test/").contains("no screen"));
    let desk = Desk::new(":0");
    let off = json!({ "key": "browser.open", "value": "false" });
    desk.daemon.post("/v1/settings", &off).ok();
    assert!(desk.problem("https://a.test/").contains("browser.open"));
    assert!(!desk.daemon.path("bin/xdg-open.said").exists());
    let bad = json!({ "key": "browser.open", "value": "yes" });
    assert_eq!(
        desk.daemon.post("/v1/settings", &bad).code(),
        "setting-invalid"
    );
}
