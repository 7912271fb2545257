//! The certificate that makes an MLS leaf key speak for an identity.

/// Which rule a certificate breaks.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CredentialError {
    /// Not a certificate.
    #[error("malformed certificate")]
    Malformed,
}
