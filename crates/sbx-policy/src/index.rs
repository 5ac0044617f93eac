//! Rules by what they match, so that a decision looks at few of them.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use ipnet::IpNet;

use crate::document::{PolicyDocument, is_active};
use crate::host::{Host, HostName};
use crate::http::HttpMatch;
use crate::pattern::{HostPattern, Lead, Shape, literal_tail};
use crate::rule::{Decision, Protocols, Rule};
use crate::target::Port;
use crate::verdict::RuleRef;

/// One resource of one rule. What every decision looks at lies here, the rest behind the rule.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) decision: Decision,
    pub(crate) port: Option<Port>,
    pub(crate) protocols: Protocols,
    rule: Arc<Rule>,
    /// Which of the rule's resources.
    resource: usize,
    /// Made by the first verdict that names it: most rules are never named.
    reference: OnceLock<Arc<RuleRef>>,
}

impl Entry {
    /// Whether the rule is for this sandbox.
    pub(crate) fn is_for(&self, sandbox: &str) -> bool {
        self.rule.scope.sandbox().is_none_or(|name| name == sandbox)
    }

    /// The method and path that the rule is about.
    pub(crate) fn http(&self) -> Option<&HttpMatch> {
        self.rule.http.as_ref()
    }

    /// The range, for patterns that name addresses.
    pub(crate) fn net(&self) -> Option<&IpNet> {
        match &self.pattern().0 {
            Shape::Net(net) => Some(net),
            _ => None,
        }
    }

    /// Whether the pattern is one name, written out.
    pub(crate) fn is_exact_name(&self) -> bool {
        matches!(self.pattern().0, Shape::Name(Lead::Nothing, _))
    }

    /// How verdicts name it.
    pub(crate) fn reference(&self) -> &Arc<RuleRef> {
        self.reference.get_or_init(|| {
            Arc::new(RuleRef {
                id: self.rule.id.clone(),
                name: self.rule.name.clone(),
                scope: self.rule.scope.clone(),
                resource: self.rule.resources[self.resource].to_string(),
            })
        })
    }

    fn pattern(&self) -> &HostPattern {
        &self.rule.resources[self.resource].host
    }
}

type Id = usize;

/// The entries whose written-out labels end in one and the same name.
#[derive(Debug, Default)]
struct Node {
    /// For the name itself.
    here: Vec<Id>,
    /// For names with exactly one more label.
    one_below: Vec<Id>,
    /// For names with at least one more label.
    below: Vec<Id>,
    /// For what the pattern says.
    globs: Vec<Id>,
}

/// Entries by address range: for each prefix length in use, the ranges of that length.
type Nets = BTreeMap<u8, HashMap<IpAddr, Vec<Id>>>;

/// An immutable index over the rules of one document.
#[derive(Debug, Default)]
pub(crate) struct Index {
    entries: Vec<Entry>,
    names: HashMap<Box<str>, Node>,
    nets_v4: Nets,
    nets_v6: Nets,
    everything: Vec<Id>,
    host_service: Vec<Id>,
}

impl Index {
    pub(crate) fn new(document: PolicyDocument) -> Self {
        let governed = document.governed;
        let mut index = Self::default();
        index.entries.reserve(document.rules.len());
        index.names.reserve(document.rules.len());
        for rule in document.rules {
            if is_active(governed, &rule) {
                index.add(&Arc::new(rule));
            }
        }
        index
    }

    fn add(&mut self, rule: &Arc<Rule>) {
        for (at, resource) in rule.resources.iter().enumerate() {
            let id = self.entries.len();
            self.entries.push(Entry {
                decision: rule.decision,
                port: resource.port,
                protocols: rule.protocols,
                rule: Arc::clone(rule),
                resource: at,
                reference: OnceLock::new(),
            });
            self.file(id, &resource.host);
            // The host's loopback is denied by anything that covers one of its spellings, but only
            // allowed by its own pattern.
            let own = resource.host.0 == Shape::HostService;
            let denied = rule.decision == Decision::Deny && resource.host.touches_host_service();
            if own || denied {
                self.host_service.push(id);
            }
        }
    }

    fn file(&mut self, id: Id, pattern: &HostPattern) {
        match &pattern.0 {
            Shape::Everything => self.everything.push(id),
            Shape::HostService => {}
            Shape::Net(net) => {
                let nets = if net.addr().is_ipv4() {
                    &mut self.nets_v4
                } else {
                    &mut self.nets_v6
                };
                let ranges = nets.entry(net.prefix_len()).or_default();
                ranges.entry(net.addr()).or_default().push(id);
            }
            Shape::Name(lead, name) => {
                let node = self.names.entry(name.as_str().into()).or_default();
                match lead {
                    Lead::Nothing => node.here.push(id),
                    Lead::One => node.one_below.push(id),
                    Lead::Many => node.below.push(id),
                    Lead::Any => {
                        node.here.push(id);
                        node.below.push(id);
                    }
                }
            }
            Shape::Glob(_, labels) => {
                let node = self.names.entry(literal_tail(labels).into()).or_default();
                node.globs.push(id);
            }
        }
    }

    /// Calls `found` with every entry whose pattern covers the host, in no particular order.
    pub(crate) fn matching<'a>(&'a self, host: &Host, mut found: impl FnMut(&'a Entry)) {
        let mut each = |ids: &[Id]| ids.iter().for_each(|id| found(&self.entries[*id]));
        match host {
            Host::HostService => each(&self.host_service),
            Host::Ip(ip) => {
                self.nets_of(*ip, &mut each);
                each(&self.everything);
            }
            Host::Name(name) => {
                self.names_of(name, &mut each);
                each(&self.everything);
            }
        }
    }

    /// Calls `found` with every entry that names a range with the address in it.
    pub(crate) fn matching_nets<'a>(&'a self, ip: IpAddr, mut found: impl FnMut(&'a Entry)) {
        self.nets_of(ip, &mut |ids| {
            for id in ids {
                found(&self.entries[*id]);
            }
        });
    }

    /// Calls `found` with entries about names above, below or beside the name: everything filed
    /// under it or under a parent of at least two labels.
    pub(crate) fn related<'a>(&'a self, name: &HostName, mut found: impl FnMut(&'a Entry)) {
        let mut suffix = name.as_str();
        while let Some((_, rest)) = suffix.split_once('.') {
            if let Some(node) = self.names.get(suffix) {
                let below = node.one_below.iter().chain(&node.below);
                for id in node.here.iter().chain(below).chain(&node.globs) {
                    found(&self.entries[*id]);
                }
            }
            suffix = rest;
        }
    }

    fn nets_of(&self, ip: IpAddr, each: &mut impl FnMut(&[Id])) {
        let nets = if ip.is_ipv4() {
            &self.nets_v4
        } else {
            &self.nets_v6
        };
        for (prefix, ranges) in nets {
            let range = IpNet::new(ip, *prefix).map(|net| net.network());
            if let Some(ids) = range.ok().and_then(|start| ranges.get(&start)) {
                each(ids);
            }
        }
    }

    fn names_of(&self, name: &HostName, each: &mut impl FnMut(&[Id])) {
        let mut suffix = name.as_str();
        for depth in 0_usize.. {
            if let Some(node) = self.names.get(suffix) {
                match depth {
                    0 => each(&node.here),
                    1 => {
                        each(&node.one_below);
                        each(&node.below);
                    }
                    _ => each(&node.below),
                }
                for id in &node.globs {
                    if self.entries[*id].pattern().matches_name(name) {
                        each(&[*id]);
                    }
                }
            }
            let Some((_, rest)) = suffix.split_once('.') else {
                break;
            };
            suffix = rest;
        }
    }
}
