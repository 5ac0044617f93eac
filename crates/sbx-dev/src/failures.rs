//! Why tests failed, in a few lines each, after everything else that was printed: a log is often read from its end, and
//! often only its end is kept.

use std::path::Path;

/// The report that `.config/nextest.toml` has the runner write, in the format that JUnit made common.
pub(crate) const REPORT: &str = "target/nextest/default/junit.xml";
/// Lines of each failure, and characters of each line: what panics say first.
const LINES: usize = 12;
const LINE: usize = 600;

/// The failed tests of a report, each with the beginning of what it said. Empty: no report, or nothing failed.
pub(crate) fn summary(report: &Path) -> String {
    let text = std::fs::read_to_string(report).unwrap_or_default();
    summarize(&text)
}

fn summarize(report: &str) -> String {
    let mut out = String::new();
    for case in report.split("<testcase ").skip(1) {
        let case = case.split("</testcase>").next().unwrap_or_default();
        let Some((_, failure)) = case.split_once("<failure") else {
            continue;
        };
        let name = case
            .strip_prefix("name=\"")
            .and_then(|rest| rest.split('"').next())
            .unwrap_or("a test");
        out.push_str(&format!("failed: {}\n", unescape(name)));
        let said = failure.split_once('>').map_or("", |(_, said)| said);
        let said = unescape(said.split("</failure>").next().unwrap_or_default());
        let lines = said.lines().filter(|line| !line.trim().is_empty());
        for line in lines
            .take_while(|line| !line.contains("stack backtrace:"))
            .take(LINES)
        {
            let cut: String = line.chars().take(LINE).collect();
            out.push_str(&format!("  {cut}\n"));
        }
    }
    out
}

/// The five entities of XML (XML 1.0, section 4.6).
fn unescape(text: &str) -> String {
    text.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&apos;", "'")
        .replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_test_is_named_with_what_it_said_first_and_one_that_passed_is_not() {
        let report = r#"<testsuite name="s"><testcase name="good::one" classname="s" time="1"/>
<testcase name="bad::two" classname="s" time="1">
  <failure message="x" type="test failure">thread &apos;bad::two&apos; panicked at a.rs:1:2:
left &lt; right &amp;amp;
stack backtrace:
   0: rust_begin_unwind</failure><system-out>noise</system-out></testcase>
<testcase name="good::three" classname="s" time="1"/></testsuite>"#;
        assert_eq!(
            summarize(report),
            "failed: bad::two\n  thread 'bad::two' panicked at a.rs:1:2:\n  left < right &amp;\n"
        );
        assert_eq!(summarize(""), "");
    }
}
