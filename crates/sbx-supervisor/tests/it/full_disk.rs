//! QEMU stops a machine whose host has a full disk. The test plays QEMU.

use crate::hostile::{request, sandbox};
use crate::lab::{LIMIT, eventually};
use sbx_wire::guest::{ExitStatus, FromGuest, ToGuest};
use sbx_wire::launch::files;
use sbx_wire::session::{Request, ToClient};
use std::io::{BufRead as _, BufReader, Write as _};

#[test]
fn a_machine_without_space_waits_and_goes_on_by_itself_and_nobody_hangs_meanwhile() {
    let mut sandbox = sandbox();
    let monitor = sandbox.monitor.try_clone().unwrap();
    monitor.set_read_timeout(Some(LIMIT)).unwrap();
    let mut commands = BufReader::new(monitor.try_clone().unwrap());
    let say = |line: &str| (&mut &monitor).write_all(line.as_bytes()).unwrap();
    let full = r#"{"event": "BLOCK_IO_ERROR", "timestamp": {"seconds": 1, "microseconds": 1},
        "data": {"device": "", "node-name": "upper", "operation": "write", "action": "stop", "nospace": true,
        "reason": "No space left on device"}}"#;
    let full = full.replace('\n', "") + "\n";
    let mut let_go_on = || {
        let mut line = String::new();
        commands.read_line(&mut line).unwrap();
        let command: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(command["execute"], "cont", "{line}");
        command["id"].clone()
    };
    // One program runs, another has not begun.
    let (mut runs, running) = sandbox.exec(false);
    let started = FromGuest::Started {
        session: running,
        pid: 7,
    };
    sandbox.guest.send(&started);
    assert!(matches!(runs.next(), Some(ToClient::Started)));
    let (mut early, waiting) = sandbox.exec(false);
    say(&full);
    let Some(ToClient::Lost(why)) = early.next() else {
        panic!("who waits for a program to begin is not told")
    };
    assert!(why.contains("no space left on the host's disk"), "{why}");
    assert!(matches!(sandbox.next(), ToGuest::Hangup { session } if session == waiting));
    // Tried, found full again, and tried again.
    for again in [true, false] {
        let id = let_go_on();
        let refused = sandbox.lab.ask(&Request::Exec(request(false))).next();
        let Some(ToClient::Lost(why)) = refused else {
            panic!("{refused:?}")
        };
        assert!(why.contains("no space left on the host's disk"), "{why}");
        assert!(why.contains("free space"), "{why}");
        say(&format!("{{\"return\": {{}}, \"id\": {id}}}\n"));
        if again {
            say(&full);
        }
    }
    // Until it has run for a while without an error, whoever comes is refused.
    let log = sandbox.lab.launch.dir.join(files::SUPERVISOR_LOG);
    eventually("it goes on", || {
        std::fs::read_to_string(&log).is_ok_and(|text| text.contains("the machine goes on"))
    });
    let _client = sandbox.lab.ask(&Request::Exec(request(false)));
    assert!(matches!(sandbox.next(), ToGuest::Exec { .. }));
    // What ran before has waited with its machine.
    let status = ExitStatus::Code(0);
    sandbox.guest.send(&FromGuest::Exited {
        session: running,
        status,
    });
    assert!(matches!(runs.next(), Some(ToClient::Exited(ended)) if ended == status));
}

#[test]
fn an_error_that_the_guest_is_told_of_stops_nothing() {
    let mut sandbox = sandbox();
    let told = r#"{"event": "BLOCK_IO_ERROR", "data": {"operation": "write", "action": "report", "nospace": false}}"#;
    (&mut &sandbox.monitor)
        .write_all(format!("{told}\n").as_bytes())
        .unwrap();
    let _client = sandbox.lab.ask(&Request::Exec(request(false)));
    assert!(matches!(sandbox.next(), ToGuest::Exec { .. }));
}
