//! Why a request is not signed.

/// Why a request to an AWS host is not sent on. A sentence that the guest may read. Always the guest's own doing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// What it says about its signature has no single meaning.
    #[error("The signature cannot be read: {0}")]
    Malformed(&'static str),
    /// A way to sign that is known, and not signed anew.
    #[error("{0} cannot be signed again outside of the sandbox")]
    Unsupported(&'static str),
    /// Another key than the placeholder.
    #[error("The access key id of the signature is not the one that this sandbox was given")]
    OtherKey,
    /// A host that names no service and region.
    #[error("The host {0} names no service and region that a request could be signed for")]
    UnknownHost(String),
    /// Signed for another place than the host's.
    #[error("The request is signed for {signed}, but its host is that of {host}")]
    Scope {
        /// Region and service of the signature.
        signed: String,
        /// Region and service of the host.
        host: String,
    },
    /// The clock differs.
    #[error("The time of the signature differs from the gateway's by more than 15 minutes")]
    Skewed,
    /// A presigned URL whose time is over.
    #[error("The presigned URL has ended")]
    Ended,
    /// The signature is not the placeholder's.
    #[error("The signature does not match the request")]
    Mismatch,
    /// The digest is not the body's.
    #[error("The body is not the one that was signed")]
    OtherBody,
    /// The body would have to be held whole.
    #[error("The signature covers the body, which is too large to be held while it is verified")]
    TooLarge,
    /// The answer would be a credential.
    #[error("{0} gives out credentials, and none enters the sandbox")]
    Issuing(&'static str),
}

impl Refusal {
    /// The error code that clients of AWS know: the service's own where it would say the same.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "IncompleteSignature",
            Self::Unsupported(_)
            | Self::UnknownHost(_)
            | Self::Scope { .. }
            | Self::Ended
            | Self::Issuing(_) => "AccessDenied",
            Self::OtherKey => "InvalidClientTokenId",
            Self::Skewed => "RequestTimeTooSkewed",
            Self::Mismatch => "SignatureDoesNotMatch",
            Self::OtherBody => "XAmzContentSHA256Mismatch",
            Self::TooLarge => "EntityTooLarge",
        }
    }
}
