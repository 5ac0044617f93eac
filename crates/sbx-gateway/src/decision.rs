//! Room 3: the one evaluator, on one generation. What comes out is a [`Grant`] that names every address
//! that may be dialled and every credential that may be written, or a [`Denial`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use sbx_policy::{Host, HttpRequest, Inspection, Intent, RuleRef, Target, Transport, Verdict};

use crate::addresses::GATEWAY;
use crate::credentials::Bound;
use crate::gateway::Gateway;
use crate::generation::Generation;
use crate::intent::Attempt;
use crate::limits;
use crate::reason::Reason;
use crate::records::Event;
use crate::resolver::{self, ResolveError};

/// Permission to leave. The connector works from this and nothing else.
#[derive(Debug, Clone)]
pub struct Grant {
    /// The generation that decided.
    pub generation: Arc<Generation>,
    /// Where to, as judged. TLS verifies this host.
    pub target: Target,
    /// What may be dialled, in this order.
    pub addresses: Vec<SocketAddr>,
    /// The rule that allowed it.
    pub rule: Option<Arc<RuleRef>>,
    /// Why it is allowed.
    pub reason: Reason,
    /// Credentials to write into requests, and what must not go there or come back.
    pub bound: Arc<Bound>,
    /// Whether every request has to be judged: by a rule with method and path, or for a credential.
    pub inspect: bool,
    /// Whether it is a rule that needs method and path.
    pub by_request: bool,
    /// Whether a tunnel through the proxy has to begin with TLS for the host.
    pub needs_tls: bool,
    /// The question that was asked, about the addresses that may be dialled, to be asked again when the policy changes.
    pub intent: Arc<Intent>,
    /// The questions about the other names of an address that was dialled raw, and about the address: a later deny of
    /// any of them ends it too. At most [`limits::NAMES_BESIDE`] and one: that many say that there were more.
    pub beside: Arc<[Intent]>,
}

/// Refusal, with what the client and the record are told.
#[derive(Debug, Clone)]
pub struct Denial {
    /// The generation that decided.
    pub generation: Arc<Generation>,
    /// Where to, as judged.
    pub target: Target,
    /// Why.
    pub reason: Reason,
    /// The rule that decided.
    pub rule: Option<Arc<RuleRef>>,
    /// The reason as one sentence for people.
    pub text: String,
}

impl Denial {
    /// A denial that is not the evaluator's.
    pub fn new(
        generation: &Arc<Generation>,
        target: &Target,
        reason: Reason,
        text: impl Into<String>,
    ) -> Self {
        let (generation, target) = (generation.clone(), target.clone());
        Self {
            generation,
            target,
            reason,
            rule: None,
            text: text.into(),
        }
    }

    fn of(generation: &Arc<Generation>, target: &Target, verdict: &Verdict) -> Self {
        let denial = match &generation.problem {
            Some(problem) => Self::new(
                generation,
                target,
                Reason::PolicyUnavailable,
                format!("The policy cannot be read, so everything is denied: {problem}"),
            ),
            None => Self::new(
                generation,
                target,
                Reason::of(verdict),
                verdict.reason_text(),
            ),
        };
        Self {
            rule: verdict.rule.clone(),
            ..denial
        }
    }

    /// The event for the record.
    pub fn event(&self, proxy: sbx_wire::gateway::ProxyKind) -> Event {
        Event::new(&self.target, proxy, self.reason, self.generation.number)
            .with_rule(self.rule.clone())
    }
}

/// Judges an attempt. Names are resolved only after a rule allowed them, and the addresses are judged
/// as well before any is granted.
pub async fn decide(
    gateway: &Gateway,
    generation: &Arc<Generation>,
    attempt: &Attempt,
    http: Option<HttpRequest>,
) -> Result<Grant, Denial> {
    let target = &attempt.target;
    let question = attempt.question(&generation.sandbox, http, None);
    let verdict = generation.evaluator.decide(&question);
    let overridden = generation.overrides.get(target).copied();
    if !verdict.is_allowed() {
        return Err(Denial::of(generation, target, &verdict));
    }
    recordable(gateway, generation, target)?;
    if dialled_elsewhere(attempt) {
        return Err(not_pinned(generation, target));
    }
    let (verdict, addresses, intent) = match (overridden, &target.host) {
        // The name alone was judged, so no address check: that is what an override exempts from.
        (Some(address), _) => {
            check_dialled_override(gateway, generation, attempt)?;
            (verdict, vec![address], question)
        }
        (None, Host::HostService) => {
            let addresses = loopback(target);
            (verdict, addresses, question)
        }
        (None, Host::Ip(_)) => {
            let addresses = sockets(&verdict.pinned, target);
            (verdict, addresses, question)
        }
        (None, Host::Name(name)) => {
            let resolved = match attempt.dialled {
                Some(dialled) if gateway.pins.contains(name, dialled) => vec![dialled],
                dialled => {
                    // Apart, so that what needs no look-up does not carry its state.
                    let found = Box::pin(resolver::resolve(gateway, generation, name))
                        .await
                        .map_err(|error| unresolved(generation, target, &error))?;
                    match dialled {
                        Some(dialled) if found.contains(&dialled) => vec![dialled],
                        Some(_) => return Err(not_pinned(generation, target)),
                        None => found,
                    }
                }
            };
            let question = question.with_resolved(resolved.into_iter().map(IpAddr::V4).collect());
            let verdict = generation.evaluator.decide(&question);
            if !verdict.is_allowed() {
                return Err(Denial::of(generation, target, &verdict));
            }
            let addresses = sockets(&verdict.pinned, target);
            let question = question.with_resolved(verdict.pinned.clone());
            (verdict, addresses, question)
        }
    };
    Ok(grant(generation, target, &verdict, addresses, intent))
}

/// Judges raw TCP or UDP to an address: by the names it was resolved for, else as an address. Needs no look-up,
/// so that a SYN can be answered at once.
pub fn decide_raw(
    gateway: &Gateway,
    generation: &Arc<Generation>,
    transport: Transport,
    dialled: Ipv4Addr,
    port: sbx_policy::Port,
) -> Result<Grant, Denial> {
    let host = Host::from(IpAddr::V4(dialled));
    let mut names: Vec<Host> = gateway
        .pins
        .names_of(dialled)
        .into_iter()
        .map(Host::Name)
        .collect();
    let synthetic = generation
        .synthetic
        .iter()
        .find(|(_, address)| **address == dialled);
    let synthetic = synthetic.map(|(name, _)| Host::Name(name.clone()));
    // Once it was asked for it is pinned as well.
    names.extend(synthetic.filter(|name| !names.contains(name)));
    let mut granted = None;
    let mut beside = Vec::new();
    let mut denied = None;
    for host in names.into_iter().chain([host]) {
        let named = matches!(host, Host::Name(_));
        let target = Target { host, port };
        let kind = sbx_policy::IntentKind::Opaque;
        let attempt = Attempt::transparent(target.clone(), kind, dialled);
        let overridden = generation.overrides.get(&target).copied();
        let resolved = (named && overridden.is_none()).then(|| vec![IpAddr::V4(dialled)]);
        let mut question = attempt.question(&generation.sandbox, None, resolved);
        question.transport = transport;
        let verdict = generation.evaluator.decide(&question);
        if verdict.is_allowed() {
            let addresses = match (overridden, &target.host) {
                (Some(address), _) => vec![address],
                (None, Host::HostService) => loopback(&target),
                (None, _) => sockets(&verdict.pinned, &target),
            };
            if granted.is_none() {
                let grant = grant(generation, &target, &verdict, addresses, question);
                granted = Some(grant);
                continue;
            }
        } else {
            let denial = Denial::of(generation, &target, &verdict);
            // A deny on any of the names stops it: nobody can see which name was meant.
            if verdict.deny_kind == Some(sbx_policy::DenyKind::Explicit) {
                return Err(denial);
            }
            denied.get_or_insert(denial);
        }
        // One that no rule is about today may be denied tomorrow.
        if beside.len() <= limits::NAMES_BESIDE {
            beside.push(question);
        }
    }
    match (granted, denied) {
        (Some(grant), _) if grant.bound.credentials.is_empty() && !grant.inspect => {
            recordable(gateway, generation, &grant.target)?;
            let beside = beside.into();
            Ok(Grant { beside, ..grant })
        }
        (Some(grant), _) => Err(Denial::new(
            generation,
            &grant.target,
            Reason::NotInspectable,
            "The host needs an inspected connection, and raw TCP and UDP cannot be inspected",
        )),
        (None, Some(denial)) => Err(denial),
        (None, None) => Err(Denial::new(
            generation,
            &Target {
                host: Host::from(IpAddr::V4(dialled)),
                port,
            },
            Reason::DefaultDeny,
            "No matching allow rule (default deny)",
        )),
    }
}

/// What could not be written down does not happen: a guest may have filled the disk so that nobody sees it.
fn recordable(
    gateway: &Gateway,
    generation: &Arc<Generation>,
    target: &Target,
) -> Result<(), Denial> {
    if gateway.records.can_write() {
        return Ok(());
    }
    let reason = Reason::RecordsUnwritten;
    Err(Denial::new(generation, target, reason, UNWRITTEN))
}

/// What is said then.
pub const UNWRITTEN: &str = "The gateway cannot write its records, so nothing new passes until it can: perhaps the disk of the host is full";

/// Whether a transparent client names a place other than the one that it dialled. What a name leads to is looked at when
/// it is known.
fn dialled_elsewhere(attempt: &Attempt) -> bool {
    let Some(dialled) = attempt.dialled else {
        return false;
    };
    match &attempt.target.host {
        Host::HostService => dialled != GATEWAY && !dialled.is_loopback(),
        Host::Ip(ip) => IpAddr::V4(dialled) != *ip,
        Host::Name(_) => false,
    }
}

/// A transparent client of an overridden name must have dialled the address we made up for it.
fn check_dialled_override(
    gateway: &Gateway,
    generation: &Arc<Generation>,
    attempt: &Attempt,
) -> Result<(), Denial> {
    let (Some(dialled), Host::Name(name)) = (attempt.dialled, &attempt.target.host) else {
        return Ok(());
    };
    let ours = generation.synthetic.get(name) == Some(&dialled);
    if ours || gateway.pins.contains(name, dialled) {
        return Ok(());
    }
    Err(not_pinned(generation, &attempt.target))
}

fn grant(
    generation: &Arc<Generation>,
    target: &Target,
    verdict: &Verdict,
    addresses: Vec<SocketAddr>,
    intent: Intent,
) -> Grant {
    let by_request = verdict.inspection == Inspection::Required;
    Grant {
        generation: generation.clone(),
        target: target.clone(),
        addresses,
        rule: verdict.rule.clone(),
        reason: Reason::of(verdict),
        inspect: by_request || generation.needs_credential(target),
        by_request,
        needs_tls: verdict.tunnel_needs_tls(target.port),
        bound: generation.credentials.of(target),
        intent: Arc::new(intent),
        beside: Arc::default(),
    }
}

/// Where a service of the host listens: some on one of the two alone.
fn loopback(target: &Target) -> Vec<SocketAddr> {
    let both = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    sockets(&both, target)
}

fn sockets(addresses: &[IpAddr], target: &Target) -> Vec<SocketAddr> {
    addresses
        .iter()
        .map(|ip| SocketAddr::new(*ip, target.port.get()))
        .collect()
}

fn not_pinned(generation: &Arc<Generation>, target: &Target) -> Denial {
    let text = "The address was not resolved for this name by the sandbox's resolver";
    Denial::new(generation, target, Reason::AddressNotPinned, text)
}

fn unresolved(generation: &Arc<Generation>, target: &Target, error: &ResolveError) -> Denial {
    let reason = match error {
        ResolveError::NoAddress => Reason::NoAddress,
        _ => Reason::ResolveFailed,
    };
    Denial::new(generation, target, reason, error.to_string())
}
