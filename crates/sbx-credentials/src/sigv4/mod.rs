//! AWS Signature Version 4 on the way out: a request that a guest has signed with its placeholder key is checked as the
//! service would check it, and signed anew with the real one.
//!
//! Sources: AWS, "AWS Signature Version 4 for API requests" (IAM User Guide); "Authenticating Requests (AWS Signature
//! Version 4)" with "Transferring Payload in Multiple Chunks" and its variant with trailers (S3 API Reference).
//!
//! The order in which this is used: [`Claim::of`] reads what the request says about its signature;
//! [`Claim::check`] compares that with the host ([`Endpoint`]), the clock and the placeholder; [`Claim::payload`] says
//! how the body is covered; [`Claim::verify`] computes the signature; and of what that gives, [`Verified::sign`] makes
//! the new one. [`issuing`] knows the calls whose answers are credentials. [`Session`] is the one that the host asks for
//! itself: a key that ends soon, for programs that must hold one.
//!
//! Why not the `aws-sigv4` crate: it signs what a client is about to send. Verifying somebody else's signature, signing
//! again the same headers, and doing both for each chunk of a body it does not do; what is left of it then is a chain of
//! HMACs. It is what the tests compare with.

mod canonical;
mod chunks;
mod claim;
mod claim_parse;
mod host;
mod host_names;
mod issue;
mod issue_table;
mod key;
mod payload;
mod refusal;
mod resign;
mod scope;
mod session;
mod time;

pub use chunks::{ChunkError, Chunks, MAX_CHUNK};
pub use claim::{Claim, Head, MAX_SKEW};
pub use host::{Endpoint, is_of_aws};
pub use issue::{acts_in_body, issuing};
pub use key::{Digest, Hasher, Keys, NoKey, Placeholder};
pub use payload::Payload;
pub use refusal::Refusal;
pub use resign::{Signed, Verified};
pub use scope::Scope;
pub use session::{Ask, LIFE_S, NoSession, Request, Session, shows_token};
pub use time::Timestamp;
