//! Placeholders and values in texts of all shapes, against a plain way to say the same.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod scrub;
mod stray;
