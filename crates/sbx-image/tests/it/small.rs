//! The small kernel's build as the daemon sees it, with the real tools and an archive that does not answer.

use crate::worker::{LIMIT, WORKER, names, silent_archive, start, wait_for_end};
use sbx_image::worker::Job;
use sbx_image::{AptSources, Priority, SmallRequest, ensure_small};
use sbx_wire::report::Report;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

fn request(cache: &Path, archive: &str, stock: &str) -> SmallRequest {
    SmallRequest {
        cache: cache.to_owned(),
        stock: stock.to_owned(),
        archive: Some(AptSources {
            main: archive.to_owned(),
            security: None,
            keyrings: Vec::new(),
        }),
    }
}

fn ensure(request: &SmallRequest) -> Report {
    ensure_small(
        Path::new(WORKER),
        request,
        Priority::Waited,
        &mut |_| Ok(()),
    )
    .unwrap_err()
}

fn unfinished(cache: &Path) -> Vec<String> {
    let mut names = names(&cache.join("kernels"));
    names.retain(|name| name.starts_with(".building-"));
    names
}

#[test]
fn archive_that_refuses_gives_one_report_and_no_kernel() {
    let cache = tempfile::tempdir().unwrap();
    let (listener, archive) = silent_archive();
    drop(listener); // nobody listens there any more
    let request = request(cache.path(), &archive, "6.12.1");
    let report = ensure(&request);
    assert_eq!(report.code, "image-build-failed", "{report:?}");
    let log = report.hint.unwrap();
    assert!(log.contains(&request.log().display().to_string()), "{log}");
    assert_eq!(request.open(), None);
    assert_eq!(unfinished(cache.path()), Vec::<String>::new());
}

#[test]
fn killed_build_is_kept_for_the_same_kernel_and_cleared_for_another() {
    let cache = tempfile::tempdir().unwrap();
    let (listener, archive) = silent_archive();
    let first = request(cache.path(), &archive, "6.12.1");
    let (mut worker, _out) = start(&Job::EnsureSmall {
        request: first.clone(),
        priority: Priority::Waited,
    });
    let (connection, _) = listener.accept().unwrap(); // apt asks for the package lists
    worker.kill().unwrap();
    worker.wait().unwrap();
    wait_for_end(connection);
    drop(listener);
    assert_eq!(unfinished(cache.path()).len(), 1);
    assert_eq!(first.open(), None);
    ensure(&request(cache.path(), &archive, "6.12.2"));
    assert_eq!(unfinished(cache.path()), Vec::<String>::new());
}

#[test]
fn caller_that_gives_up_ends_the_build_and_keeps_what_was_made() {
    let cache = tempfile::tempdir().unwrap();
    let (_listener, archive) = silent_archive();
    let request = request(cache.path(), &archive, "6.12.1");
    let stop = Report::user("interrupted", "interrupted", "");
    let outcome = ensure_small(Path::new(WORKER), &request, Priority::Waited, &mut |_| {
        Err(stop.clone())
    });
    assert_eq!(outcome.unwrap_err().code, "interrupted");
    assert_eq!(request.open(), None);
}

#[test]
fn build_that_nobody_waits_for_has_the_lowest_priority_in_a_session_of_its_own() {
    let cache = tempfile::tempdir().unwrap();
    let (_listener, archive) = silent_archive();
    let (mut worker, _out) = start(&Job::EnsureSmall {
        request: request(cache.path(), &archive, "6.12.1"),
        priority: Priority::Idle,
    });
    // proc_pid_stat(5): fields 6 and 19, counted behind the name.
    let path = format!("/proc/{}/stat", worker.id());
    let deadline = Instant::now() + LIMIT;
    loop {
        let stat = fs::read_to_string(&path).unwrap();
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        if fields[3] == worker.id().to_string() && fields[16] == "19" {
            break;
        }
        assert!(Instant::now() < deadline, "session and niceness in {stat}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
    worker.kill().unwrap();
    worker.wait().unwrap();
}
