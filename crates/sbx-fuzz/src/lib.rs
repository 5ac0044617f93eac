//! Fuzz targets. Each is a function of bytes that gives them to a parser as the product does, and checks what must hold
//! whatever the bytes are; it must neither panic nor hang. The fuzzer (`fuzz/`, a workspace of its own) looks for bytes
//! that break one, and the test of this crate runs all of them over the corpus.
#![forbid(unsafe_code)]

mod control;
mod decoding;
mod dns;
mod frames;
mod fuse;
mod gateway;
mod guarded;
mod hello;
mod http;
mod policy;
mod sigv4;
mod websocket;

/// A target's name, which is also that of its corpus and of its program.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("control", control::run),
    ("decoding", decoding::run),
    ("dns", dns::run),
    ("dns_answer", dns::run_answer),
    ("frames", frames::run),
    ("fuse", fuse::run),
    ("hello", hello::run),
    ("http", http::run),
    ("policy", policy::run),
    ("sigv4", sigv4::run),
    ("websocket", websocket::run),
];

/// Runs the target of this name.
///
/// # Panics
///
/// Where there is no such target, and where the bytes break it.
pub fn run(target: &str, bytes: &[u8]) {
    let (_, run) = TARGETS
        .iter()
        .find(|(name, _)| *name == target)
        .unwrap_or_else(|| panic!("no target {target}"));
    run(bytes);
}
