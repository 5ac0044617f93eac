//! Records that cannot be written.

use std::fs;

use sbx_testkit::EchoUpstream;

use crate::attack::say;
use crate::lab::{Setup, run};

/// What the gateway writes before it needs a new file, and cannot do without one.
const FULL: usize = 33 << 20;

#[test]
fn nothing_new_passes_while_it_cannot_be_written_down() {
    let upstream = EchoUpstream::start().unwrap();
    let mut lab = Setup::new(&["allow web.test"])
        .send_to("web.test:80", upstream.address())
        .start();
    // The file is full, and where the old one goes is something that cannot be replaced.
    let old = lab.path("records/egress.jsonl.1");
    fs::create_dir_all(old.join("in-the-way")).unwrap();
    fs::write(lab.path("records/egress.jsonl"), vec![b'\n'; FULL]).unwrap();
    lab.reboot();
    lab.configure();
    run(async {
        let asked = "GET http://web.test/ HTTP/1.1\r\nHost: web.test\r\n\r\n";
        let mut statuses = Vec::new();
        // The first shows that it cannot be written; its record waits.
        for _ in 0..3 {
            let answer = say(&mut lab.proxy().await, asked.to_owned()).await;
            if answer.status == 403 {
                assert!(answer.body.contains("cannot write its records"));
            }
            statuses.push(answer.status);
        }
        assert_eq!(statuses, [200, 403, 403]);
        assert_eq!(upstream.recorder().requests().len(), 1);
        fs::remove_dir_all(&old).unwrap();
        let answer = say(&mut lab.proxy().await, asked.to_owned()).await;
        assert_eq!(answer.status, 200);
        // What waited comes first.
        let records = lab.records_that(4, |_| true).await;
        let reasons: Vec<_> = records.iter().map(|record| &*record.reason).collect();
        let unwritten = "records-unwritten";
        assert_eq!(reasons, ["allow-rule", unwritten, unwritten, "allow-rule"]);
    });
}
