//! Why something was let through or stopped: the stable codes in records and block pages.

use sbx_policy::{ReasonCode, Verdict};

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal, $allowed:literal;)+) => {
        /// A reason code. Its text is kebab-case and never changes its meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[doc = $doc])+ $name,)+ }

        impl Reason {
            /// Every code, for documentation and tests.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The stable spelling.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code,)+ }
            }

            /// Whether it is a reason for letting something through.
            pub fn is_allowed(self) -> bool {
                match self { $(Self::$name => $allowed,)+ }
            }
        }
    };
}

reasons! {
    /// A rule allows it.
    AllowRule = "allow-rule", true;
    /// A name that is answered without asking anybody.
    LocalName = "local-name", true;
    /// Allowed, but nobody answered at the upstream's address.
    UpstreamUnreachable = "upstream-unreachable", true;
    /// Allowed, but the name could not be resolved.
    ResolveFailed = "resolve-failed", true;
    /// Allowed, but the host opened no page in a browser.
    NotOpened = "not-opened", true;
    /// The host's SSH agent signed it.
    SshSigned = "ssh-signed", true;
    /// The host's SSH agent, or who is asked before it, did not sign it.
    SshRefused = "ssh-refused", false;
    /// A key of AWS that ends soon was handed in.
    KeyHandedIn = "key-handed-in", true;
    /// Somebody who does not show the token asked for a key of AWS.
    KeyNotHandedIn = "key-not-handed-in", false;
    /// A rule denies it.
    DenyRule = "deny-rule", false;
    /// No rule allows it.
    DefaultDeny = "default-deny", false;
    /// The address is in a range that only a rule naming it opens.
    AddressBlocked = "address-blocked", false;
    /// The name has no address.
    NoAddress = "no-address", false;
    /// A rule needs method and path, and this connection cannot be inspected.
    NotInspectable = "not-inspectable", false;
    /// There is no usable policy: everything is denied.
    PolicyUnavailable = "policy-unavailable", false;
    /// A resolver answered with addresses that are blocked (DNS rebinding).
    Rebinding = "rebinding", false;
    /// A transparent TLS or HTTP client asked an address that was never resolved for its name.
    AddressNotPinned = "address-not-pinned", false;
    /// The TLS server name differs from the host that was judged.
    SniMismatch = "sni-mismatch", false;
    /// The request's authority differs from the connection's host.
    HostMismatch = "host-mismatch", false;
    /// TLS was expected and something else came.
    NotTls = "not-tls", false;
    /// A TLS client hello that cannot be read, or that is larger than allowed.
    BadHello = "bad-client-hello", false;
    /// A request that cannot be parsed without doubt.
    BadRequest = "bad-request", false;
    /// A placeholder was on its way to a host that its credential is not bound to, or in a place where it stands for nothing.
    PlaceholderToUnboundHost = "placeholder-to-unbound-host", false;
    /// A placeholder for which nothing is stored any more.
    CredentialWithdrawn = "credential-withdrawn", false;
    /// The value of a credential that the request needs cannot be had.
    CredentialUnavailable = "credential-unavailable", false;
    /// The endpoint issues credentials, which must not reach the guest.
    CredentialIssuer = "credential-issuer", false;
    /// A request to AWS whose signature is not the placeholder's, or that cannot be signed anew.
    AwsSignature = "aws-signature", false;
    /// A body in an encoding that cannot be looked into, where it has to be.
    BodyEncoding = "body-encoding", false;
    /// The host needs a credential or an inspected connection, and the gateway has not been given
    /// them yet.
    NotConfigured = "not-configured", false;
    /// Allowed at first, then a new policy came that does not allow it.
    PolicyChanged = "policy-changed", false;
    /// The upstream's certificate is not valid for the name.
    UpstreamCertificate = "upstream-certificate", false;
    /// The upstream's TLS handshake failed for another reason.
    UpstreamTls = "upstream-tls", false;
    /// ICMP other than an echo to the gateway.
    Icmp = "icmp-blocked", false;
    /// IPv6: the guest has none.
    Ipv6 = "ipv6-blocked", false;
    /// UDP other than DNS to the gateway, where no setting opens it, or to everybody at once.
    Udp = "udp-blocked", false;
    /// UDP to a port of resolvers, other than DNS to the gateway.
    ForeignResolver = "foreign-resolver", false;
    /// Another IP protocol, a fragment, or a source address that is not the guest's.
    Packet = "packet-blocked", false;
    /// Too many connections at a time.
    ConnectionLimit = "connection-limit", false;
    /// Dropped packets to more places than are told apart; the host says how many packets.
    TooManyPlaces = "too-many-places", false;
    /// Allowed, but it could not be written down.
    RecordsUnwritten = "records-unwritten", false;
    /// Records that could not be written and are gone; the host says how many, and in what time.
    RecordsLost = "records-lost", false;
    /// A DNS question of a kind that is never asked upstream.
    DnsQuestion = "dns-question-refused", false;
}

impl Reason {
    /// The code of a verdict.
    pub fn of(verdict: &Verdict) -> Self {
        Self::of_code(verdict.reason)
    }

    /// The code of what the policy says.
    pub fn of_code(code: ReasonCode) -> Self {
        match code {
            ReasonCode::AllowRule => Self::AllowRule,
            ReasonCode::LocalName => Self::LocalName,
            ReasonCode::DenyRule => Self::DenyRule,
            ReasonCode::AddressBlocked => Self::AddressBlocked,
            ReasonCode::NoAddress => Self::NoAddress,
            ReasonCode::NotInspectable => Self::NotInspectable,
            ReasonCode::UdpBlocked => Self::Udp,
            ReasonCode::ForeignResolver => Self::ForeignResolver,
            // Codes that this gateway does not know are denials: `decide` never allows with one.
            _ => Self::DefaultDeny,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_kebab_case_and_unique() {
        let mut seen = std::collections::HashSet::new();
        for reason in Reason::ALL {
            let code = reason.as_str();
            assert!(
                code.bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'),
                "{code}"
            );
            assert!(seen.insert(code), "{code} twice");
        }
    }
}
