//! The one place where it is decided what may leave a sandbox.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::address::{AddressClass, block, embedded_v4, is_metadata_name};
use crate::datagram::never_by_udp;
use crate::document::PolicyDocument;
use crate::findings::{Best, Findings, Question, Stage};
use crate::host::{Host, HostName};
use crate::index::{Entry, Index};
use crate::intent::{Intent, IntentKind};
use crate::rule::{Decision, Protocols, Transport};
use crate::target::Port;
use crate::verdict::{DenyKind, ReasonCode, RuleRef, Verdict};

/// Decides on one immutable policy. Cheap to ask (a few hash look-ups, whatever the number of
/// rules), so that every request is asked about; a changed policy is a new evaluator.
///
/// A deny that matches wins; otherwise any allow that matches; otherwise it is denied. The order of
/// rules never matters, neither for the answer nor for the rule that is named in it.
#[derive(Debug)]
pub struct Evaluator {
    generation: u64,
    index: Index,
    /// Whether rules may open UDP.
    udp: bool,
    near: fn(IpAddr) -> Option<(IpNet, AddressClass)>,
}

impl Evaluator {
    /// Indexes a copy of a policy; see [`Evaluator::of`].
    pub fn new(document: &PolicyDocument) -> Self {
        Self::of(document.clone())
    }

    /// Indexes a policy. Takes time and memory in proportion to its resources.
    pub fn of(document: PolicyDocument) -> Self {
        Self {
            generation: document.generation,
            index: Index::new(document),
            udp: false,
            near: |_| None,
        }
    }

    /// Whether the rules about UDP count: the setting `feature.udp-egress`. Until this is said they open nothing.
    #[must_use]
    pub fn opening_udp(mut self, open: bool) -> Self {
        self.udp = open;
        self
    }

    /// Whom to ask where an address lies as seen from this machine: [`crate::what_is_near`], for those whose answers
    /// count. Until this is said nothing is near.
    #[must_use]
    pub fn knowing_what_is_near(
        mut self,
        near: fn(IpAddr) -> Option<(IpNet, AddressClass)>,
    ) -> Self {
        self.near = near;
        self
    }

    /// The generation of the policy.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    /// Answers an intent. With [`Intent::resolved`], or for an address, the address check is part of
    /// the answer and [`Verdict::pinned`] says what may be dialled.
    pub fn decide(&self, intent: &Intent) -> Verdict {
        if intent.kind == IntentKind::Dns {
            return self.host_may_resolve(&intent.sandbox, &intent.host);
        }
        let stage = match (intent.kind, &intent.http) {
            (_, _) if intent.transport == Transport::Udp => Stage::Opaque,
            (IntentKind::Http, Some(request)) => Stage::Request(request),
            (IntentKind::Tls, _) => Stage::Later,
            _ => Stage::Opaque,
        };
        let question = Question {
            sandbox: &intent.sandbox,
            transport: intent.transport,
            port: intent.port,
            stage,
        };
        match &intent.host {
            Host::Ip(ip) => self.decide_address(*ip, &question),
            host => {
                let verdict = self.decide_host(host, &question);
                match (&intent.resolved, host) {
                    (Some(addresses), Host::Name(_)) if verdict.is_allowed() => {
                        self.pin(verdict, addresses, &question)
                    }
                    _ => verdict,
                }
            }
        }
    }

    /// Whether the sandbox may have the name resolved: some allow could match it on some port, and
    /// no deny covers that allow whole. Names of the host itself are answered locally, always.
    pub fn name_may_resolve(&self, sandbox: &str, name: &HostName) -> Verdict {
        self.host_may_resolve(sandbox, &Host::from(name.clone()))
    }

    /// Whether the sandbox may dial an address that a name resolved to, in any of these ways: who asks does not know
    /// the connection yet. The name itself was allowed; allow rules about addresses are not asked again, deny rules and
    /// the address check are. Where the address lies is asked once, however many ways there are.
    pub fn address_allowed(
        &self,
        sandbox: &str,
        ip: IpAddr,
        ways: impl IntoIterator<Item = (Transport, Port)>,
    ) -> bool {
        let block = self.block_of(ip);
        ways.into_iter().any(|(transport, port)| {
            let question = Question {
                sandbox,
                transport,
                port,
                stage: Stage::Opaque,
            };
            self.check_in_block(ip, block, &question).is_ok()
        })
    }

    /// By which protocols the sandbox may reach the name, on some port: none if it may not be resolved.
    pub fn protocols_to(&self, sandbox: &str, name: &HostName) -> Protocols {
        let host = Host::from(name.clone());
        let (allows, denies) = self.about_name(sandbox, &host);
        allows.iter().fold(Protocols::NONE, |open, allow| {
            open.union(self.left_of(allow, &denies))
        })
    }

    /// What is denied before any rule is looked at: UDP that is closed, or that never goes there.
    fn refused(&self, ip: Option<IpAddr>, question: &Question<'_>) -> Option<Verdict> {
        if question.transport != Transport::Udp {
            return None;
        }
        if let Some(reason) = never_by_udp(ip, question.port.get()) {
            return Some(Verdict::udp_refused(reason, ip));
        }
        (!self.udp).then(|| Verdict::udp_refused(ReasonCode::UdpBlocked, None))
    }

    fn decide_host(&self, host: &Host, question: &Question<'_>) -> Verdict {
        let ip = match host {
            Host::Ip(ip) => Some(*ip),
            Host::Name(_) | Host::HostService => None,
        };
        if let Some(refused) = self.refused(ip, question) {
            return refused;
        }
        let metadata = host
            .name()
            .is_some_and(|name| is_metadata_name(name.as_str()));
        let mut findings = Findings::default();
        self.index.matching(host, |entry| {
            // A wildcard does not open a metadata service.
            let counts = !metadata || entry.is_exact_name() || entry.decision == Decision::Deny;
            if counts && question.is_met_by(entry) {
                findings.add(entry, question.stage);
            }
        });
        findings.verdict(question.stage)
    }

    fn decide_address(&self, ip: IpAddr, question: &Question<'_>) -> Verdict {
        let verdict = self.decide_host(&Host::Ip(ip), question);
        if verdict.deny_kind == Some(DenyKind::Explicit) {
            return verdict;
        }
        match self.check_address(ip, question) {
            Err(denied) => denied,
            Ok(_) if !verdict.is_allowed() => verdict,
            Ok(opener) => Verdict {
                rule: opener.or(verdict.rule),
                pinned: vec![ip],
                ..verdict
            },
        }
    }

    /// Keeps the addresses that may be dialled; if none is left, the verdict is the first denial.
    fn pin(&self, verdict: Verdict, addresses: &[IpAddr], question: &Question<'_>) -> Verdict {
        let mut pinned = Vec::with_capacity(addresses.len());
        let mut denied = None;
        for ip in addresses {
            match self.check_address(*ip, question) {
                Ok(_) => pinned.push(*ip),
                Err(verdict) => denied = denied.or(Some(verdict)),
            }
        }
        if pinned.is_empty() {
            return denied.unwrap_or_else(|| {
                Verdict::deny(
                    ReasonCode::NoAddress,
                    verdict.rule.clone(),
                    DenyKind::Implicit,
                )
            });
        }
        Verdict { pinned, ..verdict }
    }

    /// The address check, also of the IPv4 address that an IPv6 one stands for: no deny, and either a
    /// public address or one that an allow names. Returns the allow that opened it.
    fn check_address(
        &self,
        ip: IpAddr,
        question: &Question<'_>,
    ) -> Result<Option<Arc<RuleRef>>, Verdict> {
        self.check_in_block(ip, self.block_of(ip), question)
    }

    /// The address check of an address whose block (see [`Evaluator::block_of`]) is known.
    fn check_in_block(
        &self,
        ip: IpAddr,
        block: Option<(IpNet, AddressClass)>,
        question: &Question<'_>,
    ) -> Result<Option<Arc<RuleRef>>, Verdict> {
        if let Some(refused) = self.refused(Some(ip), question) {
            return Err(refused);
        }
        let (mut deny, mut allow) = (Best::default(), Best::default());
        self.index.matching_nets(ip, |entry| {
            if !question.is_met_by(entry) {
                return;
            }
            match entry.decision {
                Decision::Deny => deny.offer(entry),
                Decision::Allow => {
                    let named = |net: &IpNet| block.is_some_and(|(b, _)| b.contains(net));
                    if entry.net().is_some_and(named) {
                        allow.offer(entry);
                    }
                }
            }
        });
        // A name can lead to the host's loopback, and other addresses are the host's as well: denials of the host
        // service count there.
        let own = block.is_some_and(|(_, class)| class == AddressClass::Own);
        if own || Host::from(ip) == Host::HostService {
            self.index.matching(&Host::HostService, |entry| {
                if entry.decision == Decision::Deny && question.is_met_by(entry) {
                    deny.offer(entry);
                }
            });
        }
        if let Some(rule) = deny.rule() {
            return Err(Verdict::deny(
                ReasonCode::DenyRule,
                Some(rule),
                DenyKind::Explicit,
            ));
        }
        let Some((_, class)) = block else {
            return Ok(None);
        };
        // Link-local UDP is discovery on the host's own networks.
        let local_udp = class == AddressClass::LinkLocal && question.transport == Transport::Udp;
        let Some(rule) = allow.rule().filter(|_| class.can_be_opened() && !local_udp) else {
            return Err(Verdict::address_blocked(ip, class));
        };
        // Opening a translation prefix does not open what lies behind it.
        for v4 in embedded_v4(ip) {
            self.check_address(IpAddr::V4(v4), question)?;
        }
        Ok(Some(rule))
    }

    /// The block of an address (see [`block`]), with what only this machine knows.
    fn block_of(&self, ip: IpAddr) -> Option<(IpNet, AddressClass)> {
        let block = block(ip);
        if block.is_some_and(|(_, class)| class.is_final()) {
            return block;
        }
        let near = (self.near)(ip);
        // A special block says more than that it lies on a link of the machine.
        near.filter(|(_, class)| block.is_none() || *class == AddressClass::Own)
            .or(block)
    }

    fn host_may_resolve(&self, sandbox: &str, host: &Host) -> Verdict {
        if *host == Host::HostService {
            return Verdict::allow(ReasonCode::LocalName, None);
        }
        let (allows, denies) = self.about_name(sandbox, host);
        let mut open = Best::default();
        for allow in &allows {
            if !self.left_of(allow, &denies).is_empty() {
                open.offer(allow);
            }
        }
        if let Some(rule) = open.rule() {
            return Verdict::allow(ReasonCode::AllowRule, Some(rule));
        }
        let mut closed = Best::default();
        for deny in &denies {
            let counts = deny.port.is_none() || !allows.is_empty();
            if counts {
                closed.offer(deny);
            }
        }
        match closed.rule() {
            Some(rule) => Verdict::deny(ReasonCode::DenyRule, Some(rule), DenyKind::Explicit),
            None if allows.is_empty() => Verdict::default_deny(),
            // Nothing but allows of UDP that opens nothing.
            None if self.udp => Verdict::udp_refused(ReasonCode::ForeignResolver, None),
            None => Verdict::udp_refused(ReasonCode::UdpBlocked, None),
        }
    }

    /// The allows and denies that count when the sandbox asks for the name, on any port.
    fn about_name(&self, sandbox: &str, host: &Host) -> (Vec<&Entry>, Vec<&Entry>) {
        let metadata = host
            .name()
            .is_some_and(|name| is_metadata_name(name.as_str()));
        let (mut allows, mut denies) = (Vec::new(), Vec::new());
        self.index.matching(host, |entry| {
            if !entry.is_for(sandbox) {
                return;
            }
            match entry.decision {
                // Part of the host stays reachable under a deny with method and path.
                Decision::Deny if entry.http().is_none() => denies.push(entry),
                Decision::Allow if !metadata || entry.is_exact_name() => allows.push(entry),
                _ => {}
            }
        });
        (allows, denies)
    }

    /// The protocols that the denies leave of an allow, on the ports it names, and that are not closed anyway.
    fn left_of(&self, allow: &Entry, denies: &[&Entry]) -> Protocols {
        let port = allow.port.map_or(0, Port::get);
        let closed = !self.udp || never_by_udp(None, port).is_some();
        let granted = if closed {
            allow.protocols.minus(Protocols::UDP)
        } else {
            allow.protocols
        };
        denies
            .iter()
            .filter(|deny| deny.port.is_none() || deny.port == allow.port)
            .fold(granted, |left: Protocols, deny| left.minus(deny.protocols))
    }
}
