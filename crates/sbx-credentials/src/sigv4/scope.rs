//! What a signature holds for.

use std::fmt;

/// Longest name of a region or service, bytes; the longest of today have about 35.
const LONGEST: usize = 64;

/// A credential scope: day, region and service (`20150830/us-east-1/iam/aws4_request`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    date: String,
    region: String,
    service: String,
}

impl Scope {
    /// Reads the text behind the access key id. `None`: it is not one scope.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let (date, region, service) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next()? != "aws4_request" || parts.next().is_some() {
            return None;
        }
        let is_date = date.len() == 8 && date.bytes().all(|b| b.is_ascii_digit());
        if !is_date || !is_name(region) || !is_name(service) {
            return None;
        }
        let (date, region, service) = (date.into(), region.into(), service.into());
        Some(Self {
            date,
            region,
            service,
        })
    }

    /// Day, `YYYYMMDD`.
    pub fn date(&self) -> &str {
        &self.date
    }

    /// Region, e.g. `us-east-1`.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// The service's signing name, e.g. `bedrock`.
    pub fn service(&self) -> &str {
        &self.service
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{}/{}/aws4_request",
            self.date, self.region, self.service
        )
    }
}

/// Whether it can be the name of a region or service.
pub(super) fn is_name(text: &str) -> bool {
    let of_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=LONGEST).contains(&text.len()) && text.bytes().all(of_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_has_one_form() {
        let text = "20150830/us-east-1/iam/aws4_request";
        let scope = Scope::parse(text).unwrap();
        assert_eq!(scope.to_string(), text);
        assert_eq!((scope.region(), scope.service()), ("us-east-1", "iam"));
        for text in [
            "",
            "20150830/us-east-1/iam",
            "20150830/us-east-1/iam/aws4_request/",
            "20150830/us-east-1/iam/aws4_Request",
            "2015083/us-east-1/iam/aws4_request",
            "20150830//iam/aws4_request",
            "20150830/us-east-1/i%61m/aws4_request",
            "20150830/us-east-1/iam\n/aws4_request",
        ] {
            assert_eq!(Scope::parse(text), None, "{text:?}");
        }
        let long = format!("20150830/us-east-1/{}/aws4_request", "a".repeat(65));
        assert_eq!(Scope::parse(&long), None);
    }
}
