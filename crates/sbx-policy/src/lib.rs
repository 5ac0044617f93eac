//! What may leave a sandbox: names, rules, presets and the one evaluator.
//!
//! Pure: no clock, no async, and no I/O but for [`what_is_near`], which a decision asks only if it is told to. Text from outside is parsed once into types that can only be
//! valid ([`HostName`], [`Target`], [`ResourcePattern`], [`Rule`]); everything after that compares
//! canonical values. `policy check`, the proxy, DNS and the log all ask the same [`Evaluator`].
//!
//! Order of a decision: any matching deny wins; otherwise any matching allow; otherwise denied.

#![forbid(unsafe_code)]

mod address;
mod check;
mod datagram;
mod document;
mod evaluator;
mod findings;
mod host;
mod http;
mod index;
mod intent;
mod label;
mod near;
mod nearest;
mod pattern;
mod pattern_error;
mod preset;
mod request_path;
mod review;
mod rule;
mod scope;
mod suffix;
mod target;
mod text;
mod verdict;

pub use address::{AddressClass, classify};
pub use check::{CheckReport, check};
pub use datagram::{never_by_udp, reaches_many};
pub use document::{DocumentError, MAX_RULES, PolicyDocument, Removed, removal_command};
pub use evaluator::Evaluator;
pub use host::{
    GATEWAY_ADDRESS, HOST_SERVICE_ADDRESSES, HOST_SERVICE_NAMES, Host, HostError, HostName,
};
pub use http::{HttpMatch, HttpMatchError, HttpRequest, Method, Methods, PathPattern};
pub use intent::{Intent, IntentKind};
pub use label::LabelError;
pub use near::what_is_near;
pub use nearest::{Miss, Nearest};
pub use pattern::{HostPattern, ResourcePattern};
pub use pattern_error::PatternError;
pub use preset::{Preset, UnknownPreset, preset};
pub use request_path::{PathError, RequestPath};
pub use review::Caution;
pub use rule::{CreatedVia, Decision, MAX_RESOURCES, Protocols, Rule, RuleError, Transport};
pub use scope::{Scope, ScopeError};
pub use target::{Port, Target, TargetError};
pub use verdict::{DenyKind, Inspection, ReasonCode, RuleRef, Verdict};
