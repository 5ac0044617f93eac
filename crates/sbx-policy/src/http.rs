//! The HTTP part of a rule: methods and path.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::request_path::{RequestPath, without_parameters};
use crate::text::serde_as_text;

/// Longest path pattern in bytes.
const MAX_PATH_PATTERN: usize = 1024;

/// Why a method list or a path pattern is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HttpMatchError {
    /// A method that rules do not know.
    #[error(
        "{0:?} is not a method: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, CONNECT, TRACE or ANY"
    )]
    Method(String),
    /// `ANY` beside others.
    #[error("ANY stands alone")]
    AnyBesideOthers,
    /// The path does not start with `/`.
    #[error("a path starts with `/`")]
    NoSlash,
    /// More than 1024 bytes.
    #[error("a path has at most 1024 bytes")]
    TooLong,
    /// `?`, `#`, `%`, `\`, spaces, control characters and everything outside ASCII.
    #[error("a path may not contain {0:?}: no query, no fragment, no percent-encoding")]
    BadCharacter(char),
    /// `//`, a trailing slash, `.` or `..`.
    #[error("a path has no empty, `.` or `..` segment and no trailing slash")]
    NotCanonical,
    /// `**` next to other characters.
    #[error("`**` in a path is a segment of its own")]
    DoubleStar,
}

/// The methods that a rule can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(
    missing_docs,
    reason = "the names are the methods of RFC 9110 and RFC 5789"
)]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
    Connect,
    Trace,
}

impl Method {
    const ALL: [(Self, &'static str); 9] = [
        (Self::Get, "GET"),
        (Self::Head, "HEAD"),
        (Self::Post, "POST"),
        (Self::Put, "PUT"),
        (Self::Patch, "PATCH"),
        (Self::Delete, "DELETE"),
        (Self::Options, "OPTIONS"),
        (Self::Connect, "CONNECT"),
        (Self::Trace, "TRACE"),
    ];

    /// The method of a request, which is case-sensitive (RFC 9110, section 9.1). `None` for
    /// extension methods, which only `ANY` covers.
    pub fn of_request(token: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(_, name)| *name == token)
            .map(|(method, _)| *method)
    }

    fn bit(self) -> u16 {
        1 << self as u16
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL
            .iter()
            .find(|(method, _)| method == self)
            .map_or("", |(_, name)| name);
        f.write_str(name)
    }
}

/// A set of methods: a comma list, or `ANY` for all, also those that no list can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Methods {
    /// Bit n is the n-th variant of [`Method`]; 0 stands for `ANY`.
    bits: u16,
}

impl Methods {
    /// Every method.
    pub const ANY: Self = Self { bits: 0 };

    /// Whether a request with the method is covered; `None` is an extension method.
    pub fn contains(self, method: Option<Method>) -> bool {
        self == Self::ANY || method.is_some_and(|m| self.bits & m.bit() != 0)
    }
}

impl FromStr for Methods {
    type Err = HttpMatchError;

    fn from_str(text: &str) -> Result<Self, HttpMatchError> {
        let mut bits = 0;
        let mut any = false;
        for word in text.split(',') {
            let word = word.trim().to_ascii_uppercase();
            if word == "ANY" {
                any = true;
            } else {
                let bad = || HttpMatchError::Method(word.chars().take(16).collect());
                bits |= Method::of_request(&word).ok_or_else(bad)?.bit();
            }
        }
        if any && (bits != 0 || text.contains(',')) {
            return Err(HttpMatchError::AnyBesideOthers);
        }
        Ok(Self { bits })
    }
}

impl fmt::Display for Methods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::ANY {
            return f.write_str("ANY");
        }
        let mut comma = "";
        for (method, name) in Method::ALL {
            if self.contains(Some(method)) {
                write!(f, "{comma}{name}")?;
                comma = ",";
            }
        }
        Ok(())
    }
}

serde_as_text!(Methods);

/// A path pattern: segments, where `*` stands for any characters inside one segment and `**`, as a
/// segment of its own, for any number of segments (also none). `/**` is every path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PathPattern(Box<str>);

impl PathPattern {
    /// `/**`.
    pub fn everything() -> Self {
        Self("/**".into())
    }

    /// Whether an allow covers the path: exact in case and parameters.
    pub fn allows(&self, path: &RequestPath) -> bool {
        self.covers(path.segments(), &|pattern, segment| {
            segment_matches(pattern, segment)
        })
    }

    /// Whether a deny covers the path. A server may ignore case and `;parameters`, or take `%2F` and `\` for `/`, so a
    /// deny does.
    pub fn denies(&self, path: &RequestPath) -> bool {
        let same = |pattern: &str, segment: &str| {
            let pattern = pattern.to_lowercase();
            let segment = segment.to_lowercase();
            let bare = without_parameters(&segment);
            segment_matches(&pattern, &segment) || segment_matches(&pattern, bare)
        };
        path.readings().any(|reading| self.covers(reading, &same))
    }

    fn covers(&self, path: &[Box<str>], same: &dyn Fn(&str, &str) -> bool) -> bool {
        let pattern: Vec<&str> = self.0[1..].split('/').filter(|s| !s.is_empty()).collect();
        // Greedy with one retry point, as in any glob: time is bounded by the product of lengths.
        let (mut p, mut s) = (0, 0);
        let mut retry = None;
        while s < path.len() {
            match pattern.get(p) {
                Some(&"**") => {
                    retry = Some((p, s));
                    p += 1;
                }
                Some(segment) if same(segment, &path[s]) => {
                    p += 1;
                    s += 1;
                }
                _ => match retry {
                    Some((star, from)) => {
                        retry = Some((star, from + 1));
                        p = star + 1;
                        s = from + 1;
                    }
                    None => return false,
                },
            }
        }
        pattern[p..].iter().all(|segment| *segment == "**")
    }
}

/// Matches one segment against a pattern with `*`.
fn segment_matches(pattern: &str, segment: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == segment;
    };
    let Some(mut segment) = segment.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or("");
    for part in parts {
        match segment.find(part) {
            Some(at) => segment = &segment[at + part.len()..],
            None => return false,
        }
    }
    segment.ends_with(last)
}

impl FromStr for PathPattern {
    type Err = HttpMatchError;

    fn from_str(text: &str) -> Result<Self, HttpMatchError> {
        if text.len() > MAX_PATH_PATTERN {
            return Err(HttpMatchError::TooLong);
        }
        let rest = text.strip_prefix('/').ok_or(HttpMatchError::NoSlash)?;
        let good = |c: char| {
            c.is_ascii_alphanumeric() || matches!(c, '/' | '*') || "-._~!$&'()+,;=:@".contains(c)
        };
        if let Some(bad) = rest.chars().find(|c| !good(*c)) {
            return Err(HttpMatchError::BadCharacter(bad));
        }
        for segment in rest.split('/').filter(|_| !rest.is_empty()) {
            if matches!(segment, "" | "." | "..") {
                return Err(HttpMatchError::NotCanonical);
            }
            if segment.contains("**") && segment != "**" {
                return Err(HttpMatchError::DoubleStar);
            }
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

serde_as_text!(PathPattern);

/// The HTTP requests that a rule is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpMatch {
    /// Which methods.
    pub methods: Methods,
    /// Which paths.
    pub path: PathPattern,
}

impl HttpMatch {
    /// Whether an allow with it covers the request: exactly as it is sent.
    pub fn allows(&self, request: &HttpRequest) -> bool {
        self.methods.contains(request.method) && self.path.allows(&request.path)
    }

    /// Whether a deny with it covers the request: also as a server may read it that is less exact, about the letters of
    /// the method as well.
    pub fn denies(&self, request: &HttpRequest) -> bool {
        let method = [request.method, request.any_case]
            .into_iter()
            .any(|method| self.methods.contains(method));
        method && self.path.denies(&request.path)
    }
}

/// One HTTP request, as far as rules look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRequest {
    /// The method; `None` for one that no list of methods can name.
    pub method: Option<Method>,
    /// The method that it is to a server which ignores case.
    any_case: Option<Method>,
    /// The normalised path; what is judged is what has to be sent.
    pub path: RequestPath,
}

impl HttpRequest {
    /// From the method token and the request path (without or with query).
    pub fn parse(method: &str, path: &str) -> Result<Self, crate::PathError> {
        Ok(Self {
            method: Method::of_request(method),
            any_case: Method::of_request(&method.to_ascii_uppercase()),
            path: RequestPath::parse(path)?,
        })
    }
}
