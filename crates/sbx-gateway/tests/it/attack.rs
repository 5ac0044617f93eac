//! The frame of every test of an attack case. The number in a test's name is that of the case in the project's list
//! of attacks.
//!
//! A case runs on a fresh gateway and again, unchanged, after that gateway was killed and another one took its place:
//! a control that is set up once and not again is none (case 67). After each attempt [`Round::blocked`] looks at the
//! whole record and at everything that the stand-ins received.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use sbx_testkit::Recorder;
use sbx_testkit::recorder::{Entry, Event};
use sbx_wire::gateway::EgressRecord;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::guest::Stream;
use crate::lab::{Lab, run};

/// One run of a case.
pub(crate) struct Round<'a> {
    pub(crate) lab: &'a Lab,
    watched: Vec<Recorder>,
    read: Cell<usize>,
    marks: Cell<usize>,
    /// A connection to the proxy, for marks.
    marker: tokio::sync::Mutex<Option<Stream>>,
    pending: RefCell<Vec<EgressRecord>>,
}

/// Runs the case before and after a restart. `watched`: what the stand-ins saw, the resolver's included by itself.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the cases are closures written in place"
)]
pub(crate) fn twice(mut lab: Lab, watched: &[&Recorder], case: impl AsyncFn(&Round<'_>)) {
    let resolver = lab.dns.recorder().clone();
    let watched: Vec<Recorder> = watched
        .iter()
        .copied()
        .chain([&resolver])
        .cloned()
        .collect();
    for number in 0..2 {
        let round = Round {
            lab: &lab,
            watched: watched.clone(),
            read: Cell::new(lab.records().len()),
            marks: Cell::new(0),
            marker: tokio::sync::Mutex::default(),
            pending: RefCell::default(),
        };
        run(async {
            round.forget_so_far().await;
            case(&round).await;
            let rest = round.recorded().await;
            assert!(rest.is_empty(), "records nobody asked for: {rest:#?}");
        });
        if number == 0 {
            lab.reboot();
            lab.configure();
        }
    }
}

impl Round<'_> {
    /// Forgets what was recorded and received so far: what was done to prepare an attempt.
    pub(crate) async fn forget_so_far(&self) {
        self.recorded().await;
        for recorder in &self.watched {
            recorder.clear();
        }
    }

    /// Every record since the last call, in order. Records are written in the order of their events, so what stands
    /// before the record of a request that is always refused is all there is.
    pub(crate) async fn recorded(&self) -> Vec<EgressRecord> {
        let mark = format!("mark-{}", self.marks.replace(self.marks.get() + 1));
        let mut marker = self.marker.lock().await;
        if marker.is_none() {
            *marker = Some(self.lab.proxy().await);
        }
        let stream = marker.as_mut().expect("connected just now");
        let refused = say(
            stream,
            format!("CONNECT {mark} HTTP/1.1\r\nHost: {mark}\r\n\r\n"),
        )
        .await;
        assert_eq!(refused.status, 400, "{refused:?}");
        loop {
            let records = self.lab.records();
            let from = self.read.get();
            if let Some(at) = records[from..]
                .iter()
                .position(|record| record.host == mark)
            {
                self.read.set(from + at + 1);
                let mut all = self.pending.take();
                // The stand-ins show what they were sent, the credential too: that is not what the cases are about.
                let shown =
                    |record: &&EgressRecord| record.alert.as_deref() != Some("value-in-answer");
                all.extend(records[from..from + at].iter().filter(shown).cloned());
                return all;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// As [`Round::recorded`], once there are this many.
    pub(crate) async fn recorded_at_least(&self, count: usize) -> Vec<EgressRecord> {
        let wait = async {
            loop {
                let records = self.recorded().await;
                if records.len() >= count {
                    return records;
                }
                self.pending.replace(records);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(10), wait).await;
        waited.unwrap_or_else(|_| panic!("fewer than {count} records: {:#?}", self.pending.take()))
    }

    /// The attempt left one record, a denial with this reason, and no byte at any stand-in. Host: as recorded.
    pub(crate) async fn blocked(&self, reason: &str, host: &str) -> EgressRecord {
        let record = self.one_of(reason, Some(host), host).await;
        self.silent();
        record
    }

    /// As [`Round::blocked`] where the gateway has shaken hands with the upstream already, because it offers the
    /// guest what the upstream speaks: nothing of the guest has reached it.
    pub(crate) async fn blocked_inside(&self, reason: &str, host: &str) -> EgressRecord {
        let record = self.one_of(reason, Some(host), host).await;
        self.unasked();
        record
    }

    /// A request that is not understood: one record that says so, whatever host it names, and no byte outside.
    pub(crate) async fn refused_as_bad(&self, shown: &str) -> EgressRecord {
        let record = self.one_of("bad-request", None, shown).await;
        self.silent();
        record
    }

    /// As [`Round::refused_as_bad`], for [`Round::blocked_inside`].
    pub(crate) async fn refused_as_bad_inside(&self, shown: &str) -> EgressRecord {
        let record = self.one_of("bad-request", None, shown).await;
        self.unasked();
        record
    }

    /// One denial for this host, whatever its reason, and no byte outside.
    pub(crate) async fn recorded_blocked(&self, host: &str) -> EgressRecord {
        let records = self.recorded_at_least(1).await;
        assert!(
            records.len() == 1 && records[0].host == host && !records[0].allowed,
            "{records:#?}"
        );
        self.silent();
        records[0].clone()
    }

    async fn one_of(&self, reason: &str, host: Option<&str>, shown: &str) -> EgressRecord {
        let records = self.recorded_at_least(1).await;
        let [record] = records.as_slice() else {
            panic!(
                "{shown}: {} records and not one: {records:#?}",
                records.len()
            );
        };
        assert_eq!(record.reason, reason, "{shown}: {record:#?}");
        assert!(
            host.is_none_or(|host| record.host == host),
            "{shown}: {record:#?}"
        );
        assert!(!record.allowed, "{shown}: {record:#?}");
        record.clone()
    }

    /// No stand-in has received a request since [`Round::forget_so_far`].
    fn unasked(&self) {
        for recorder in &self.watched {
            let requests = recorder.requests();
            assert!(requests.is_empty(), "{requests:#?}");
        }
    }

    /// No stand-in has received a byte since [`Round::forget_so_far`].
    pub(crate) fn silent(&self) {
        for recorder in &self.watched {
            let received = recorder.bytes_received();
            assert_eq!(received, 0, "bytes got out: {:#?}", recorder.entries());
        }
    }
}

/// Waits until every connection of a stand-in has ended, so that nothing of it is counted later.
pub(crate) async fn closed(recorder: &Recorder) {
    let over = |entries: &[Entry]| {
        let count = |of: fn(&Event) -> bool| entries.iter().filter(|e| of(&e.event)).count();
        count(|event| matches!(event, Event::Connected { .. }))
            == count(|event| matches!(event, Event::Closed { .. }))
    };
    assert!(
        recorder.until(Duration::from_secs(10), over).await,
        "a connection stays open"
    );
}

/// An HTTP/1.1 answer as it came.
#[derive(Debug, Default)]
pub(crate) struct Raw {
    /// 0: the connection ended before an answer.
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Raw {
    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let line = |line: &&str| {
            line.split_once(':')
                .is_some_and(|(n, _)| n.eq_ignore_ascii_case(name))
        };
        let line = self.head.lines().find(line)?;
        line.split_once(':').map(|(_, value)| value.trim())
    }

    /// What the block page says in `x-sbx-reason`.
    pub(crate) fn reason(&self) -> &str {
        self.header("x-sbx-reason").unwrap_or("")
    }
}

/// Writes bytes as they are and reads one answer with a `Content-Length`.
pub(crate) async fn say<S>(stream: &mut S, bytes: impl AsRef<[u8]>) -> Raw
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // The other side may have heard enough before the end.
    let _ = stream.write_all(bytes.as_ref()).await;
    // TLS may have kept some of it.
    let _ = stream.flush().await;
    hear(stream).await
}

/// Reads one answer with a `Content-Length`.
pub(crate) async fn hear<S: AsyncRead + Unpin>(stream: &mut S) -> Raw {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return Raw::default(),
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
    let mut raw = Raw {
        status: status.unwrap_or(0),
        head,
        body: String::new(),
    };
    let length = raw.header("content-length").and_then(|l| l.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    if stream.read_exact(&mut body).await.is_ok() {
        raw.body = String::from_utf8_lossy(&body).into_owned();
    }
    raw
}

/// What comes until the connection ends, well or not.
pub(crate) async fn rest<S: AsyncRead + Unpin>(stream: &mut S) -> Vec<u8> {
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    rest
}

/// The connection ends without a further byte, but for an alert of TLS (a record of type 21 with two bytes).
pub(crate) async fn cut<S: AsyncRead + Unpin>(stream: &mut S) {
    let rest = rest(stream).await;
    assert!(
        matches!(rest.as_slice(), [] | [21, 3, _, 0, 2, _, _]),
        "still {:?}",
        String::from_utf8_lossy(&rest)
    );
}
