//! Signatures that stand for the token in addresses of files.
//!
//! `v1_` and the SHA-256 digest of `PATH:OPERATION:USERNAME:TOKEN[:EXPIRATION]` in base64 without padding. What is not in
//! it (method, body, size, number of uses) is not signed.

use sha2::{Digest as _, Sha256};

use crate::connect::encode_base64;

/// What a signature allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// A file may be read.
    Read,
    /// A file may be written.
    Write,
}

impl Operation {
    fn text(self) -> &'static str {
        match self {
            Operation::Read => "read",
            Operation::Write => "write",
        }
    }
}

/// Parameters of an address that belong to its signature, as decoded from the query.
#[derive(Debug, Clone, Copy, Default)]
pub struct Signed<'a> {
    /// `path`; empty if there is none.
    pub path: &'a str,
    /// `username`; empty if there is none.
    pub username: &'a str,
    /// `signature`.
    pub signature: Option<&'a str>,
    /// `signature_expiration`: Unix seconds.
    pub expiration: Option<i64>,
}

/// Why an address gives no access.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// There is none.
    #[error("missing signature query parameter")]
    Missing,
    /// Another path, operation, user, token or expiration was signed.
    #[error("invalid signature")]
    Invalid,
    /// It was valid once.
    #[error("signature is already expired")]
    Expired,
}

impl Signed<'_> {
    /// Whether these parameters give access with this token at a time (Unix seconds).
    ///
    /// # Errors
    /// When there is no signature, it is another one, or its time is over.
    pub fn verify(&self, operation: Operation, token: &str, now: i64) -> Result<(), SignatureError> {
        let given = self.signature.ok_or(SignatureError::Missing)?;
        let expected = sign(self.path, operation, self.username, token, self.expiration);
        if !same(given.as_bytes(), expected.as_bytes()) {
            return Err(SignatureError::Invalid);
        }
        match self.expiration {
            Some(expiration) if expiration < now => Err(SignatureError::Expired),
            _ => Ok(()),
        }
    }
}

/// The signature of a path, an operation, a user (empty for the default one), and an expiration in Unix seconds.
pub fn sign(
    path: &str,
    operation: Operation,
    username: &str,
    token: &str,
    expiration: Option<i64>,
) -> String {
    let mut digest = Sha256::new();
    digest.update(format!("{path}:{}:{username}:", operation.text()));
    digest.update(token);
    if let Some(expiration) = expiration {
        digest.update(format!(":{expiration}"));
    }
    format!("v1_{}", encode_base64(&digest.finalize()).trim_end_matches('='))
}

/// Whether two secrets are the same. How long it takes tells their length, and nothing of where they differ.
pub fn same(one: &[u8], other: &[u8]) -> bool {
    // The compiler must not see that the first difference decides.
    let differences = one.iter().zip(other).fold(0, |all, (a, b)| std::hint::black_box(all | (a ^ b)));
    one.len() == other.len() && std::hint::black_box(differences) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `printf %s '/tmp/a b:read:user:secret:1700000000' | sha256sum | xxd -r -p | base64`.
    const KNOWN: &str = "v1_AyfH83JfvPHbiR8MKG6mBuftofHAEqEItrTHoHIu0PU";

    fn signed(signature: &str) -> Signed<'_> {
        Signed {
            path: "/tmp/a b",
            username: "user",
            signature: Some(signature),
            expiration: Some(1_700_000_000),
        }
    }

    #[test]
    fn a_known_signature_is_right_until_it_expires() {
        assert_eq!(sign("/tmp/a b", Operation::Read, "user", "secret", Some(1_700_000_000)), KNOWN);
        let verify = |now| signed(KNOWN).verify(Operation::Read, "secret", now);
        assert_eq!(verify(1_700_000_000), Ok(()));
        assert_eq!(verify(1_700_000_001), Err(SignatureError::Expired));
    }

    #[test]
    fn everything_that_is_signed_counts() {
        let verify = |signed: Signed<'_>, operation, token| signed.verify(operation, token, 0);
        let right = signed(KNOWN);
        for (other, operation, token) in [
            (right, Operation::Write, "secret"),
            (right, Operation::Read, "Secret"),
            (Signed { path: "/tmp/a", ..right }, Operation::Read, "secret"),
            (Signed { username: "", ..right }, Operation::Read, "secret"),
            (Signed { expiration: None, ..right }, Operation::Read, "secret"),
            (Signed { signature: Some(""), ..right }, Operation::Read, "secret"),
            (Signed { signature: Some(&KNOWN[..20]), ..right }, Operation::Read, "secret"),
        ] {
            assert_eq!(verify(other, operation, token), Err(SignatureError::Invalid), "{other:?}");
        }
        let none = Signed { signature: None, ..right };
        assert_eq!(verify(none, Operation::Read, "secret"), Err(SignatureError::Missing));
        // Somebody else must not make an expired one live on.
        let later = Signed { expiration: Some(i64::MAX), ..right };
        assert_eq!(verify(later, Operation::Read, "secret"), Err(SignatureError::Invalid));
    }

    #[test]
    fn secrets_are_compared_as_a_whole() {
        assert!(same(b"", b"") && same(b"abc", b"abc"));
        for other in ["", "abd", "ab", "abcd", "Abc"] {
            assert!(!same(b"abc", other.as_bytes()), "{other}");
        }
    }
}
