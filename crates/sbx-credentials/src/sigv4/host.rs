//! Which region and service a host is of. A form that is not known is of none, so that nothing is signed for it.
//!
//! Source: AWS, "AWS service endpoints" (General Reference) and the pages about endpoints of the services; "Access an AWS
//! service using an interface VPC endpoint". The names that differ are in [`super::host_names`].

use std::fmt;

use super::host_names::{BEHIND, DOMAINS, GLOBAL, NAMES, OF_RESOURCES, Partition, SUFFIXES};
use super::refusal::Refusal;
use super::scope::is_name;

/// Region and service that a host is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    region: String,
    service: String,
    /// The user said so: the host's name says nothing.
    own: bool,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.service, self.region)
    }
}

impl Endpoint {
    /// Reads a name in lower case, without a port.
    pub fn of(host: &str) -> Result<Self, Refusal> {
        let found = parse(host);
        found.ok_or_else(|| Refusal::UnknownHost(host.to_owned()))
    }

    /// What a user said about a host with a name of its own. `None`: one of them is no name that can be signed for.
    pub fn own(service: &str, region: &str) -> Option<Self> {
        let own = Self {
            own: true,
            ..Self::new(service, region)
        };
        (is_name(service) && is_name(region)).then_some(own)
    }

    /// The host of a service that is called the same in every region, and what it is signed for. `None`: the region is of no
    /// part of AWS that is known.
    pub(super) fn of_region(service: &str, region: &str) -> Option<(String, Self)> {
        let mut suffixes = SUFFIXES.iter();
        let (suffix, ..) =
            suffixes.find(|(_, partition, kind)| *kind == Kind::Plain && partition.has(region))?;
        let host = format!("{service}.{region}.{suffix}");
        let endpoint = Self::of(&host).ok()?;
        endpoint.is(region, service).then_some((host, endpoint))
    }

    /// The service's signing name, e.g. `bedrock`.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// Region, e.g. `us-east-1`.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// The part of AWS that it is in, as ARNs name it, e.g. `aws-cn`.
    pub fn partition(&self) -> &'static str {
        let region = self.region.as_str();
        if Partition::China.has(region) {
            "aws-cn"
        } else if Partition::Europe.has(region) {
            "aws-eusc"
        } else if region.starts_with("us-gov-") {
            "aws-us-gov"
        } else {
            "aws"
        }
    }

    pub(super) fn is(&self, region: &str, service: &str) -> bool {
        self.region == region && self.service == service
    }

    /// Whether it is a store of somebody's own that is called as S3 is. Others than AWS give out keys at the same host.
    pub(super) fn is_own_store(&self) -> bool {
        self.own && self.is_s3()
    }

    /// Whether it is one of the services that take bodies in chunks and paths as keys.
    pub fn is_s3(&self) -> bool {
        matches!(
            self.service.as_str(),
            "s3" | "s3-object-lambda" | "s3-outposts"
        )
    }

    fn new(service: &str, region: &str) -> Self {
        Self {
            region: region.to_owned(),
            service: service.to_owned(),
            own: false,
        }
    }
}

/// Whether the name is AWS's, or one below it: then it says itself what a request is signed for, and nobody else does.
pub fn is_of_aws(host: &str) -> bool {
    DOMAINS.iter().any(|domain| {
        let front = host.strip_suffix(domain);
        front.is_some_and(|front| front.is_empty() || front.ends_with('.'))
    })
}

fn parse(host: &str) -> Option<Endpoint> {
    let of_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b);
    if !host.bytes().all(of_name) {
        return None;
    }
    let mut suffixes = SUFFIXES.iter();
    let (rest, partition, kind) = suffixes.find_map(|(suffix, partition, kind)| {
        let rest = host.strip_suffix(suffix)?.strip_suffix('.')?;
        Some((rest, *partition, *kind))
    })?;
    let labels: Vec<&str> = rest.split('.').collect();
    if labels.iter().any(|label| label.is_empty()) {
        return None;
    }
    match kind {
        Kind::Plain => global(&labels, partition).or_else(|| regional(&labels, partition)),
        Kind::Vpc => {
            // `bucket.vpce-ID.s3.REGION`: a VPC's own name for the service.
            let at = labels.iter().position(|label| label.starts_with("vpce-"))?;
            regional(&labels[at + 1..], partition)
        }
        Kind::Function => match labels[..] {
            [_, "lambda-url", region] if partition.has(region) => {
                Some(Endpoint::new("lambda", region))
            }
            _ => None,
        },
    }
}

/// What stands in front of a suffix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Service and region.
    Plain,
    /// The same behind the name of a VPC endpoint.
    Vpc,
    /// The URL of a function.
    Function,
}

/// Hosts without a region. Buckets may stand in front of S3's.
fn global(labels: &[&str], partition: Partition) -> Option<Endpoint> {
    let text = labels.join(".");
    let known = GLOBAL
        .iter()
        .find(|(name, of, ..)| *of == partition && *name == text);
    if let Some((.., service, region)) = known {
        return Some(Endpoint::new(service, region));
    }
    match (partition, labels) {
        (Partition::Standard, [.., "s3" | "s3-external-1"]) => {
            Some(Endpoint::new("s3", "us-east-1"))
        }
        _ => None,
    }
}

fn regional(labels: &[&str], partition: Partition) -> Option<Endpoint> {
    let (last, before) = labels.split_last()?;
    if let [_, .., region] = before
        && BEHIND.contains(last)
        && partition.has(region)
    {
        return Some(Endpoint::new(last, region));
    }
    // The first years of S3: `s3-REGION`.
    if let Some(region) = last.strip_prefix("s3-")
        && partition.has(region)
    {
        return Some(Endpoint::new("s3", region));
    }
    let region = partition.has(last).then_some(*last)?;
    let before = match before {
        [before @ .., "dualstack"] if before.last().is_some_and(|last| s3(last).is_some()) => {
            before
        }
        _ => before,
    };
    let service = service(before)?;
    Some(Endpoint::new(service, region))
}

/// The service of the labels in front of a region.
fn service<'a>(labels: &[&'a str]) -> Option<&'a str> {
    let last = *labels.last()?;
    // Buckets, access points and accounts stand in front, with dots of their own.
    if let Some(service) = s3(last) {
        return Some(service);
    }
    let plain: Vec<&str> = labels.iter().map(|label| without_fips(label)).collect();
    let text = plain.join(".");
    if let Some((_, service)) = NAMES.iter().find(|(name, _)| *name == text) {
        return Some(service);
    }
    let of_resource =
        |(name, _): &&(&str, &str)| text.strip_suffix(name).is_some_and(|name| !name.is_empty());
    if let Some((_, service)) = OF_RESOURCES.iter().find(of_resource) {
        return Some(service);
    }
    // Most services are called the same everywhere. What is not, and is not in the tables, is not what was signed for.
    match labels {
        [one] => Some(without_fips(one)).filter(|name| !name.is_empty()),
        _ => None,
    }
}

fn without_fips(label: &str) -> &str {
    let label = label.strip_suffix("-fips").unwrap_or(label);
    label.strip_prefix("fips-").unwrap_or(label)
}

fn s3(label: &str) -> Option<&'static str> {
    match without_fips(label) {
        "s3" | "s3-accesspoint" | "s3-control" => Some("s3"),
        "s3-object-lambda" => Some("s3-object-lambda"),
        "s3-outposts" => Some("s3-outposts"),
        _ => None,
    }
}

impl Partition {
    /// Whether it is the name of a region of the partition, also one that is yet to come.
    pub(super) fn has(self, region: &str) -> bool {
        let mut parts = region.split('-');
        let country = parts.next().unwrap_or_default();
        let parts: Vec<&str> = parts.collect();
        let Some((number, names)) = parts.split_last() else {
            return false;
        };
        let letters =
            |text: &&str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase());
        let is_number =
            (1..=2).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit());
        let formed = is_number && (1..=3).contains(&names.len()) && names.iter().all(letters);
        // Those that are cut off from the rest have hosts of their own (`us-iso-east-1`).
        let isolated = names.iter().any(|name| name.starts_with("iso"));
        let ours = match self {
            Self::Standard => {
                country.len() == 2 && letters(&country) && country != "cn" && !isolated
            }
            Self::China => country == "cn",
            Self::Europe => country == "eusc",
        };
        formed && ours
    }
}
