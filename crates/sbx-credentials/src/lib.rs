//! Placeholders and the values they stand for. Pure: no I/O, no clock, no randomness.
//!
//! - [`services`]: whose credentials there are, where they go and what they look like ([`shape`]);
//! - [`stray`]: placeholders on their way to where they do not belong, in whatever encoding;
//! - [`scrub`]: values on their way back to the guest;
//! - [`oauth`]: what token endpoints answer, and what the guest is told instead;
//! - [`registry`]: requests to registries of images, and the tokens that those issue;
//! - [`substitute`]: the value in the place of its placeholder;
//! - [`sigv4`]: a signature with the placeholder key, checked and made anew with the real one.
#![forbid(unsafe_code)]

pub mod forms;
mod held;
pub mod oauth;
mod plain;
pub mod registry;
pub mod scrub;
pub mod services;
pub mod shape;
mod shown;
pub mod sigv4;
pub mod stray;
pub mod substitute;
