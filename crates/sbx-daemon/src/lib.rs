//! The daemon: desired state, the store, the local API.
//!
//! | module | what it knows |
//! |---|---|
//! | [`host`] | folders, lock and socket that belong to one daemon alone |
//! | [`store`] | SQLite with its mirrors; [`record`]: what a sandbox is |
//! | [`reconcile`], [`salvage`] | rows and folders brought together at the start; what is left of a damaged sandbox |
//! | [`credentials`], [`services`], [`aws`], [`authority`] | what is kept from guests, and what they get instead |
//! | [`storing`], [`keeper`], [`on_demand`], [`custom`] | where values are kept and when they are fetched; secrets of the user's own |
//! | [`ssh_agent`], [`git_identity`] | the keys of the user's SSH agent, and who makes commits |
//! | [`policy`], [`policy_log`], [`policy_follow`], [`settings`] | what may leave, what did, and where to |
//! | [`create`], [`lifecycle`], [`launching`], [`finishing`] | from a request to a running machine and back |
//! | [`guard`], [`git_settings`], [`git_repositories`], [`unreadable`] | what a workspace protects and hides, and where the host's git looks in it |
//! | [`warm`] | snapshots of booted machines that new sandboxes begin from |
//! | [`supervisor_link`], [`gateway_link`], [`older_gateway`] | connections to running sandboxes |
//! | [`api`] | the local API |
//! | [`diagnose`], [`reset`] | what has to work without a daemon |
//!
//! Killing the daemon changes nothing in any sandbox: supervisors are processes of their own, and the next
//! daemon connects to them again.
#![forbid(unsafe_code)]

mod agents;
mod api;
mod attempts;
mod authority;
mod aws;
mod browser;
mod clock;
mod consent;
mod create;
mod credentials;
mod custom;
mod daemon;
mod diagnose;
mod endpoints;
mod error;
mod events;
mod finishing;
mod folding;
mod gateway_link;
mod git;
mod git_identity;
mod git_repositories;
mod git_settings;
mod guard;
mod host;
mod image;
mod issued;
mod keeper;
mod kernel;
mod launching;
mod lifecycle;
mod links;
mod listener;
mod logging;
mod masks;
mod older_gateway;
mod on_demand;
mod personalise;
mod places;
mod policy;
mod policy_follow;
mod policy_log;
mod programs;
mod random;
mod reconcile;
mod record;
mod removal;
mod repositories;
mod reset;
mod salvage;
mod sandbox;
mod serve;
mod services;
mod settings;
mod short_lived;
mod sign_ins;
mod small_kernel;
mod ssh_agent;
mod stand_ins;
mod store;
mod storing;
mod supervisor_link;
mod token_endpoint;
mod unreadable;
mod warm;
mod workspace;

pub use diagnose::diagnose;
pub use reset::reset;
pub(crate) use sbx_files as files;
pub use serve::run;
