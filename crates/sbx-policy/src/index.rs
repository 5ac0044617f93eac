//! Rules by what they match, so that a decision looks at few of them.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::document::PolicyDocument;
use crate::host::{Host, HostName};
use crate::http::HttpMatch;
use crate::label::Label;
use crate::pattern::{HostPattern, Lead, Shape};
use crate::rule::{Decision, Protocols, Rule, Scope};
use crate::target::Port;
use crate::verdict::RuleRef;

/// One resource of one rule.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) decision: Decision,
    pub(crate) port: Option<Port>,
    pub(crate) protocols: Protocols,
    pub(crate) http: Option<Arc<HttpMatch>>,
    /// The range, for patterns that name addresses.
    pub(crate) net: Option<IpNet>,
    /// Whether the pattern is one name, written out.
    pub(crate) exact_name: bool,
    pub(crate) rule: Arc<RuleRef>,
}

impl Entry {
    /// Whether the rule is for this sandbox.
    pub(crate) fn is_for(&self, sandbox: &str) -> bool {
        self.rule.scope.sandbox().is_none_or(|name| name == sandbox)
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
    globs: Vec<(HostPattern, Id)>,
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
    pub(crate) fn new(document: &PolicyDocument) -> Self {
        let mut index = Self::default();
        for rule in &document.rules {
            // Under an organisation the allows of others do not count, their denies do.
            let counts =
                !document.governed || rule.decision == Decision::Deny || rule.scope == Scope::Org;
            if counts {
                index.add(rule);
            }
        }
        index
    }

    fn add(&mut self, rule: &Rule) {
        let http = rule.http.clone().map(Arc::new);
        for resource in &rule.resources {
            let id = self.entries.len();
            let shape = &resource.host.0;
            self.entries.push(Entry {
                decision: rule.decision,
                port: resource.port,
                protocols: rule.protocols,
                http: http.clone(),
                net: if let Shape::Net(net) = shape {
                    Some(*net)
                } else {
                    None
                },
                exact_name: matches!(shape, Shape::Name(Lead::Nothing, _)),
                rule: Arc::new(RuleRef {
                    id: rule.id.clone(),
                    name: rule.name.clone(),
                    scope: rule.scope.clone(),
                    resource: resource.to_string(),
                }),
            });
            self.file(id, &resource.host);
            // The host's loopback is denied by anything that covers one of its spellings, but only
            // allowed by its own pattern.
            let own = *shape == Shape::HostService;
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
                let literal = labels.iter().rev().take_while(|l| !l.is_wild()).count();
                let tail: Vec<&str> = labels[labels.len() - literal..]
                    .iter()
                    .map(Label::as_str)
                    .collect();
                let node = self.names.entry(tail.join(".").into()).or_default();
                node.globs.push((pattern.clone(), id));
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
                let globs = node.globs.iter().map(|(_, id)| id);
                let ids = node
                    .here
                    .iter()
                    .chain(&node.one_below)
                    .chain(&node.below)
                    .chain(globs);
                for id in ids {
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
                for (pattern, id) in &node.globs {
                    if pattern.matches_name(name) {
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
