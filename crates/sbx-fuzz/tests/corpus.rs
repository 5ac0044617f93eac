//! Every target over its corpus: what the fuzzer has found to be interesting, and what once broke something.
#![expect(
    clippy::unwrap_used,
    reason = "clippy allows it in test functions only, and helpers of tests fail the same way"
)]

use std::path::{Path, PathBuf};

use sbx_fuzz::TARGETS;

/// Most files in one corpus: the run stays a matter of seconds.
const MOST: usize = 400;
/// Longest file, in bytes.
const LONGEST: u64 = 16 * 1024;

fn corpus(target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/corpus")
        .join(target);
    let entries =
        std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn run(target: &str) {
    let files = corpus(target);
    assert!((1..=MOST).contains(&files.len()), "{} files", files.len());
    for file in files {
        assert!(
            file.metadata().unwrap().len() <= LONGEST,
            "{}",
            file.display()
        );
        let bytes = std::fs::read(&file).unwrap();
        // The file's name is what somebody needs to know when it breaks.
        let ran = std::panic::catch_unwind(|| sbx_fuzz::run(target, &bytes));
        assert!(ran.is_ok(), "{} breaks {target}", file.display());
    }
}

macro_rules! targets {
    ($($test:ident = $target:literal;)+) => {
        $(#[test] fn $test() { run($target); })+

        #[test]
        fn every_target_has_a_test_and_a_program() {
            let mut tested = vec![$($target),+];
            tested.sort_unstable();
            let known: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
            assert_eq!(tested, known);
            let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/Cargo.toml");
            let manifest = std::fs::read_to_string(manifest).unwrap();
            for name in known {
                assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
            }
        }
    };
}

targets! {
    configurations_of_the_corpus_are_read_or_refused = "control";
    compressed_bodies_of_the_corpus_come_to_the_same_in_whatever_pieces = "decoding";
    questions_of_the_corpus_are_answered_or_dropped = "dns";
    answers_of_the_corpus_belong_to_their_question_or_are_none = "dns_answer";
    frames_of_the_corpus_do_not_end_the_stack = "frames";
    file_requests_of_the_corpus_change_nothing_outside = "fuse";
    hellos_of_the_corpus_are_read_or_refused = "hello";
    requests_of_the_corpus_name_their_host_in_one_way = "http";
    names_patterns_and_paths_of_the_corpus_have_one_form = "policy";
    signatures_of_the_corpus_are_of_one_key_or_none = "sigv4";
    messages_of_the_corpus_are_read_the_same_in_whatever_pieces = "websocket";
}
