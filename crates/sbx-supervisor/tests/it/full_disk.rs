//! QEMU stops a machine whose host has a full disk. The test plays QEMU.

use crate::hostile::{request, sandbox};
use crate::lab::{LIMIT, eventually};
use sbx_wire::guest::ToGuest;
use sbx_wire::launch::files;
use sbx_wire::session::{Request, ToClient};
use std::io::{BufRead as _, BufReader, Write as _};

#[test]
fn a_machine_without_space_waits_and_goes_on_by_itself_and_nobody_hangs_meanwhile() {
    let mut sandbox = sandbox();
    let monitor = &sandbox.monitor;
    monitor.set_read_timeout(Some(LIMIT)).unwrap();
    let mut commands = BufReader::new(monitor.try_clone().unwrap());
    let say = |line: &str| (&mut &*monitor).write_all(line.as_bytes()).unwrap();
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
    say(&full);
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
