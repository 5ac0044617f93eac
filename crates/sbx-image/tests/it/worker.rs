//! The worker as the daemon sees it, with the real tools and an archive that does not answer.

use sbx_image::worker::{Event, Job};
use sbx_image::{AptSources, Request, ensure};
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The program.
pub(crate) const WORKER: &str = env!("CARGO_BIN_EXE_sbx-image-worker");
/// Longest that anything here may take; a healthy machine needs two seconds.
pub(crate) const LIMIT: Duration = Duration::from_mins(1);

pub(crate) fn request(cache: &Path, archive: &str) -> Request {
    let archive = Some(AptSources {
        main: archive.to_owned(),
        security: None,
        keyrings: Vec::new(),
    });
    Request {
        archive,
        ..Request::new(cache, sbx_agents::Agent::SHELL)
    }
}

/// An archive on which connections are accepted and nothing is ever said.
pub(crate) fn silent_archive() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/debian", listener.local_addr().unwrap());
    (listener, address)
}

pub(crate) fn start(job: &Job) -> (Child, BufReader<std::process::ChildStdout>) {
    start_with(job, |command| command)
}

fn start_with(
    job: &Job,
    change: impl FnOnce(&mut Command) -> &mut Command,
) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut command = Command::new(WORKER);
    let mut child = change(&mut command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let job = serde_json::to_vec(job).unwrap();
    child.stdin.take().unwrap().write_all(&job).unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    (child, out)
}

/// Returns when the other end is gone.
pub(crate) fn wait_for_end(mut connection: TcpStream) {
    connection.set_read_timeout(Some(LIMIT)).unwrap();
    match connection.read_to_end(&mut Vec::new()) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "still connected"),
    }
}

/// What is in a folder.
pub(crate) fn names(images: &Path) -> Vec<String> {
    let entries = fs::read_dir(images).unwrap().flatten();
    let mut names: Vec<_> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn archive_that_refuses_gives_one_report_and_leaves_no_image() {
    let cache = tempfile::tempdir().unwrap();
    let (listener, archive) = silent_archive();
    drop(listener); // nobody listens there any more
    let mut steps = Vec::new();
    let report = ensure(
        Path::new(WORKER),
        &request(cache.path(), &archive),
        &mut |progress| {
            steps.push(progress.step);
            Ok(())
        },
    )
    .unwrap_err();
    assert_eq!(report.code, "image-build-failed", "{report:?}");
    assert!(report.message.contains("mmdebstrap"), "{report:?}");
    assert!(report.hint.unwrap().contains(".log"));
    assert!(
        steps.iter().any(|step| step.contains("package lists")),
        "{steps:?}"
    );
    let left = names(&cache.path().join("images"));
    assert!(
        left.iter()
            .all(|name| !name.starts_with(".building-") && !name.ends_with("manifest")),
        "{left:?}"
    );
}

#[test]
fn killed_build_ends_with_all_its_processes_and_the_next_one_clears_up() {
    let cache = tempfile::tempdir().unwrap();
    let (listener, archive) = silent_archive();
    let request = request(cache.path(), &archive);
    let (mut worker, _out) = start(&Job::Ensure(request.clone()));
    let (connection, _) = listener.accept().unwrap(); // apt asks for the package lists
    worker.kill().unwrap();
    worker.wait().unwrap();
    wait_for_end(connection);
    let images = cache.path().join("images");
    assert!(
        names(&images)
            .iter()
            .any(|name| name.starts_with(".building-"))
    );
    drop(listener);
    ensure(Path::new(WORKER), &request, &mut |_| Ok(())).unwrap_err();
    assert!(
        !names(&images)
            .iter()
            .any(|name| name.starts_with(".building-"))
    );
}

#[test]
fn second_build_of_the_same_image_waits_for_the_first() {
    let cache = tempfile::tempdir().unwrap();
    let (listener, archive) = silent_archive();
    let request = request(cache.path(), &archive);
    let (mut first, _out) = start(&Job::Ensure(request.clone()));
    let (connection, _) = listener.accept().unwrap();
    let (mut second, out) = start(&Job::Ensure(request.clone()));
    let mut lines = out.lines();
    let waits = lines
        .by_ref()
        .any(|line| line.unwrap().contains("waiting for another build"));
    assert!(waits, "the second build did not wait");
    first.kill().unwrap();
    first.wait().unwrap();
    wait_for_end(connection);
    // Now it is the second's turn, with the remains of the first out of the way.
    let (connection, _) = listener.accept().unwrap();
    second.kill().unwrap();
    second.wait().unwrap();
    wait_for_end(connection);
}

#[test]
fn caller_that_gives_up_ends_the_build() {
    let cache = tempfile::tempdir().unwrap();
    let (listener, archive) = silent_archive();
    let stop = sbx_wire::report::Report::user("interrupted", "interrupted", "");
    let report = ensure(
        Path::new(WORKER),
        &request(cache.path(), &archive),
        &mut |_| Err(stop.clone()),
    );
    assert_eq!(report.unwrap_err().code, "interrupted");
    drop(listener);
}

/// A script that is found before the program with its name.
fn stand_in(bin: &Path, name: &str, text: &str) {
    fs::write(bin.join(name), format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn password_of_a_proxy_is_on_no_command_line_and_packages_need_a_signature_of_the_archive() {
    let cache = tempfile::tempdir().unwrap();
    let bin = tempfile::tempdir().unwrap();
    let seen = |name: &str| bin.path().join(name);
    let text = |name: &str| fs::read_to_string(seen(name)).unwrap();
    let proxy = "Acquire::http::Proxy \"http://user:secret@proxy.example:3128\";";
    stand_in(bin.path(), "apt-config", &format!("echo '{proxy}'"));
    let dir = bin.path().display();
    let record = format!(
        "for word; do echo \"$word\" >>{dir}/words; case $word in --aptopt=*) \
         cat \"${{word#--aptopt=}}\" >>{dir}/options; stat -c %a \"${{word#--aptopt=}}\" >>{dir}/mode;; \
         esac; done; exit 1"
    );
    stand_in(bin.path(), "mmdebstrap", &record);
    let job = Job::Ensure(request(cache.path(), "http://a.example/debian"));
    let path = format!("{dir}:{}", std::env::var("PATH").unwrap_or_default());
    let (mut worker, out) = start_with(&job, |command| command.env("PATH", path));
    let last = out.lines().last().unwrap().unwrap();
    assert!(
        !worker.wait().unwrap().success() && last.contains("mmdebstrap"),
        "{last}"
    );
    assert!(text("options").contains(proxy), "{}", text("options"));
    assert_eq!(text("mode"), "600\n");
    assert!(!text("words").contains("secret"), "{}", text("words"));
    let archive: Vec<_> = text("words")
        .lines()
        .filter(|line| line.starts_with("deb "))
        .map(str::to_owned)
        .collect();
    assert_eq!(archive.len(), 2, "{archive:?}");
    for line in archive {
        let begins = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.";
        assert!(line.starts_with(begins), "{line}");
    }
}

#[test]
fn address_of_no_archive_is_the_users_mistake() {
    let cache = tempfile::tempdir().unwrap();
    let request = request(cache.path(), "http://a.example/x [trusted=yes]");
    let report = ensure(Path::new(WORKER), &request, &mut |_| Ok(())).unwrap_err();
    assert_eq!(report.code, "bad-archive");
    assert_eq!(report.blame, sbx_wire::report::Blame::User);
}

#[test]
fn worker_answers_nonsense_with_a_report() {
    let mut child = Command::new(WORKER)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"{\"ensure\":{}}")
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(!output.status.success());
    let event: Event = serde_json::from_slice(&output.stdout).unwrap();
    assert!(matches!(event, Event::Failed(report) if report.code == "image-bug"));
}
