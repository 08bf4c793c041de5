//! Which name a signature must speak of (containers-policy.json(5), "signedIdentity").

use serde::Deserialize;

use crate::image::Reference;

/// What the name in a signature must be.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", deny_unknown_fields)]
pub enum SignedIdentity {
    /// The very name that was asked for.
    MatchExact {},
    /// The very name if it has a tag; any of the same repository if it has a digest.
    MatchRepoDigestOrExact {},
    /// Any of the same repository.
    MatchRepository {},
    /// One name, whatever was asked for.
    #[serde(rename_all = "camelCase")]
    ExactReference {
        /// With a tag or a digest.
        docker_reference: String,
    },
    /// Any of one repository, whatever was asked for.
    #[serde(rename_all = "camelCase")]
    ExactRepository {
        /// Without tag and digest.
        docker_repository: String,
    },
    /// As `MatchRepoDigestOrExact`, of a name whose beginning is another.
    #[serde(rename_all = "camelCase")]
    RemapIdentity {
        /// The beginning of what was asked for.
        prefix: String,
        /// The beginning in the signature.
        signed_prefix: String,
    },
}

impl Default for SignedIdentity {
    fn default() -> Self {
        Self::MatchRepoDigestOrExact {}
    }
}

/// A full name as signatures have it: Docker's short names are of Docker Hub.
fn full(text: &str) -> Option<Reference> {
    let reference: Reference = text.parse().ok()?;
    Some(if reference.is_short() { reference.at("docker.io") } else { reference })
}

impl SignedIdentity {
    /// Whether a signature for `signed` serves an image that was asked for as `intended`; `None` for
    /// one from a place without names.
    pub fn accepts(&self, intended: Option<&Reference>, signed: &str) -> bool {
        let Some(signed) = full(signed) else { return false };
        match self {
            Self::MatchExact {} => intended.is_some_and(|intended| exact(intended, &signed)),
            Self::MatchRepoDigestOrExact {} => {
                intended.is_some_and(|intended| by_digest_or_exact(intended, &signed))
            }
            Self::MatchRepository {} => intended.is_some_and(|intended| intended.name() == signed.name()),
            Self::ExactReference { docker_reference } => full(docker_reference)
                .is_some_and(|wanted| !name_only(&wanted) && written(&wanted) == written(&signed)),
            Self::ExactRepository { docker_repository } => {
                full(docker_repository).is_some_and(|wanted| wanted.name() == signed.name())
            }
            Self::RemapIdentity { prefix, signed_prefix } => intended.is_some_and(|intended| {
                let remapped = remap(intended, prefix, signed_prefix);
                remapped.is_some_and(|intended| by_digest_or_exact(&intended, &signed))
            }),
        }
    }
}

fn name_only(reference: &Reference) -> bool {
    reference.tag().is_none() && reference.digest().is_none()
}

fn written(reference: &Reference) -> String {
    reference.to_string()
}

/// What was asked for, with the tag that is meant where none is written, and without one beside a
/// digest, which the digest outvotes.
fn asked(intended: &Reference) -> String {
    match intended.digest() {
        Some(digest) => format!("{}@{digest}", intended.name()),
        None => format!("{}:{}", intended.name(), intended.tag().unwrap_or("latest")),
    }
}

fn exact(intended: &Reference, signed: &Reference) -> bool {
    !name_only(signed) && asked(intended) == written(signed)
}

/// That the manifest has the digest in the name is checked when it is fetched.
fn by_digest_or_exact(intended: &Reference, signed: &Reference) -> bool {
    match intended.digest() {
        Some(_) => !name_only(signed) && intended.name() == signed.name(),
        None => exact(intended, signed),
    }
}

/// The name with another beginning; as it is if it does not begin so.
fn remap(intended: &Reference, prefix: &str, signed_prefix: &str) -> Option<Reference> {
    let name = intended.name();
    let rest = name.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with('/'));
    let Some(rest) = rest else { return Some(intended.clone()) };
    let all = asked(intended);
    full(&format!("{signed_prefix}{rest}{}", &all[name.len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities() {
        let digest = crate::base::digest::Digest::of(b"");
        let by_digest = format!("r.io/a/b@{digest}");
        let by_both = format!("r.io/a/b:1@{digest}");
        let parse = |text: &str| serde_json::from_str::<SignedIdentity>(text).unwrap();
        let exact = parse(r#"{"type":"matchExact"}"#);
        let usual = parse(r#"{"type":"matchRepoDigestOrExact"}"#);
        let repository = parse(r#"{"type":"matchRepository"}"#);
        let reference = parse(r#"{"type":"exactReference","dockerReference":"busybox:1"}"#);
        let named = parse(r#"{"type":"exactRepository","dockerRepository":"vendor.io/p"}"#);
        let remapped = parse(r#"{"type":"remapIdentity","prefix":"r.io/a","signedPrefix":"vendor.io"}"#);
        assert_eq!(usual, SignedIdentity::default());
        for (identity, intended, signed, fits) in [
            (&exact, "r.io/a/b", "r.io/a/b:latest", true),
            (&exact, "r.io/a/b", "r.io/a/b", false),
            (&exact, "r.io/a/b:1", "r.io/a/b:2", false),
            (&exact, &by_digest, "r.io/a/b:1", false),
            (&exact, "docker.io/busybox:1", "busybox:1", true),
            (&usual, "r.io/a/b:1", "r.io/a/b:1", true),
            (&usual, "r.io/a/b:1", "r.io/a/b:2", false),
            (&usual, "r.io/a/b:1", "r.io/a/b", false),
            (&usual, "r.io/a/b:1", "s.io/a/b:1", false),
            (&usual, &by_digest, "r.io/a/b:7", true),
            (&usual, &by_digest, "r.io/a/c:7", false),
            (&usual, &by_both, "r.io/a/b:7", true),
            (&repository, "r.io/a/b:1", "r.io/a/b:2", true),
            (&repository, "r.io/a/b:1", "r.io/a/b", true),
            (&repository, "r.io/a/b:1", "r.io/a", false),
            (&reference, "r.io/a/b:1", "docker.io/library/busybox:1", true),
            (&reference, "r.io/a/b:1", "r.io/a/b:1", false),
            (&named, "r.io/a/b:1", "vendor.io/p:3", true),
            (&named, "r.io/a/b:1", "vendor.io/q:3", false),
            (&remapped, "r.io/a/b:1", "vendor.io/b:1", true),
            (&remapped, "r.io/a/b:1", "vendor.io/b:2", false),
            (&remapped, "r.io/ab:1", "r.io/ab:1", true),
            (&remapped, "r.io/a/b:1", "r.io/a/b:1", false),
            (&usual, "r.io/a/b:1", "no name", false),
        ] {
            let intended: Reference = intended.parse().unwrap();
            assert_eq!(identity.accepts(Some(&intended), signed), fits, "{identity:?} {intended} {signed}");
        }
        // Without a name only what names one itself.
        assert!(named.accepts(None, "vendor.io/p:1") && reference.accepts(None, "busybox:1"));
        assert!(![exact, usual, repository, remapped].iter().any(|i| i.accepts(None, "vendor.io/p:1")));
        for bad in [
            r#"{"type":"matchExact","more":1}"#,
            r#"{"type":"matchRepoDigestOrExact","more":1}"#,
            r#"{"type":"exactReference"}"#,
            r#"{}"#,
            r#"{"type":"other"}"#,
        ] {
            assert!(serde_json::from_str::<SignedIdentity>(bad).is_err(), "{bad}");
        }
    }
}
