//! The text that is signed (containers-signature(5)): which manifest, under which name. Read as
//! strictly as the specification says, for a field that is not understood may be the one that
//! matters.

use serde::Deserialize;
use serde_json::Value;

use crate::base::digest::Digest;

/// Which kind of signature a text belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// GnuPG's.
    Simple,
    /// cosign's.
    Sigstore,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Simple => "atomic container signature",
            Self::Sigstore => "cosign container image signature",
        }
    }
}

/// A text that says nothing usable.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not of this form.
    #[error("parsing the signed text")]
    Parse(#[source] serde_json::Error),
    /// It is of another kind.
    #[error("the signed text is a \"{0}\"")]
    Kind(String),
    /// Its digest is none.
    #[error("the signed text names its manifest in an unsupported way")]
    Digest(#[source] crate::base::digest::ParseDigestError),
}

/// What is signed.
#[derive(Debug, PartialEq, Eq)]
pub struct Payload {
    /// Digest of the manifest.
    pub digest: Digest,
    /// The name that the signer gave it.
    pub reference: String,
}

/// The text to sign for a manifest under a name.
pub fn write(kind: Kind, manifest: &Digest, reference: &str) -> String {
    let text = serde_json::json!({
        "critical": {
            "identity": { "docker-reference": reference },
            "image": { "docker-manifest-digest": manifest },
            "type": kind.word(),
        },
        "optional": { "creator": concat!("umiak ", env!("CARGO_PKG_VERSION")) },
    });
    text.to_string()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    critical: Critical,
    #[serde(default)]
    #[allow(dead_code, reason = "known, and of no weight")]
    optional: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Critical {
    r#type: String,
    image: Image,
    identity: Identity,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    #[serde(rename = "docker-reference")]
    reference: String,
}

impl Payload {
    /// Parses a text whose signature has been checked.
    pub fn parse(kind: Kind, bytes: &[u8]) -> Result<Self, Error> {
        let Text { critical, .. } = serde_json::from_slice(bytes).map_err(Error::Parse)?;
        if critical.r#type != kind.word() {
            return Err(Error::Kind(critical.r#type));
        }
        let digest = critical.image.digest.parse().map_err(Error::Digest)?;
        Ok(Self { digest, reference: critical.identity.reference })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        let digest = Digest::of(b"");
        let text = format!(
            r#"{{"critical":{{"type":"atomic container signature","image":{{"docker-manifest-digest":"{digest}"}},"identity":{{"docker-reference":"a/b"}}}},"optional":{{"creator":"x","more":1}}}}"#
        );
        let parse = |text: &str| Payload::parse(Kind::Simple, text.as_bytes());
        assert_eq!(parse(&text).unwrap(), Payload { digest, reference: "a/b".into() });
        assert!(matches!(Payload::parse(Kind::Sigstore, text.as_bytes()), Err(Error::Kind(_))));
        for (from, to) in [
            ("\"optional\"", "\"other\""),
            ("\"identity\"", "\"identities\""),
            ("sha256:", "md5:"),
            ("{\"docker-reference\"", "{\"x\":1,\"docker-reference\""),
            ("{\"docker-reference\"", "{\"docker-reference\":\"c\",\"docker-reference\""),
            ("}},\"optional\"", "},\"optional\""),
        ] {
            assert!(parse(&text.replace(from, to)).is_err(), "{from} {to}");
        }
    }
}
