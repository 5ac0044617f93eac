//! Placeholders and values in texts of all shapes, against a plain way to say the same; the table of services.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod issuing;
mod scrub;
mod service_table;
mod services;
mod sigv4;
mod stray;
