//! Whether an image may be taken: what `policy.json` demands, against the signatures that are there.
//!
//! Asked when the manifest is known and before anything else of the image is read: a manifest that is
//! not trusted leads to no download, no configuration and no file.

pub mod identity;
pub mod lookaside;
pub mod openpgp;
pub mod payload;
pub mod policy;
pub mod sign;
pub mod sigstore;
pub mod yaml;

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

pub use lookaside::Lookaside;
pub use policy::Policy;

use self::identity::SignedIdentity;
use self::payload::{Kind, Payload};
use self::policy::{Keys, Requirement};
use super::manifest::{Descriptor, MAX_MANIFEST};
use super::registry::{self, Registry};
use super::source::{self, Source};
use super::{Reference, Transport};
use crate::base::digest::Digest;

/// An image that must not be taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `reject`.
    #[error("the policy \"{}\" forbids \"{what}\"", path.display())]
    Rejected {
        /// The policy.
        path: PathBuf,
        /// The source.
        what: String,
    },
    /// There is no signature of the kind that is demanded.
    #[error("the policy \"{}\" demands a signature of \"{what}\", which has none", path.display())]
    Unsigned {
        /// The policy.
        path: PathBuf,
        /// The source.
        what: String,
    },
    /// There are signatures, and none will do.
    #[error("the policy \"{}\" demands another signature of \"{what}\": {}", path.display(), reasons.join("; "))]
    Refused {
        /// The policy.
        path: PathBuf,
        /// The source.
        what: String,
        /// What is wrong with each.
        reasons: Vec<String>,
    },
    /// Something that cannot be checked.
    #[error("the policy \"{}\" demands \"{kind}\" of \"{what}\", which is not supported yet", path.display())]
    Unsupported {
        /// The policy.
        path: PathBuf,
        /// The source.
        what: String,
        /// The word.
        kind: String,
    },
    /// A key of the policy.
    #[error("reading the key \"{}\"", path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A key of the policy is none.
    #[error("the key \"{key}\" is unusable: {why}")]
    Key {
        /// The file, or where in the policy it stands.
        key: String,
        /// Why.
        why: String,
    },
    /// `registries.d`.
    #[error(transparent)]
    Lookaside(#[from] lookaside::Error),
    /// A signature cannot be read.
    #[error("reading the signature \"{}\"", path.display())]
    SignatureFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A signature cannot be fetched.
    #[error("fetching the signatures of \"{what}\"")]
    Fetch {
        /// The source.
        what: String,
        /// Why.
        #[source]
        source: Box<source::Error>,
    },
}

impl Error {
    /// What may help.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Rejected { .. } => Some("umiak image trust show lists what is accepted".into()),
            Self::Unsigned { .. } => {
                Some("where signatures are looked for stands in registries.d (docs/images.md)".into())
            }
            _ => None,
        }
    }
}

/// More signatures than anybody has.
const MAX_SIGNATURES: usize = 128;

/// A signature as it came.
enum Signature {
    Simple(Vec<u8>),
    Sigstore(sigstore::Signature),
}

/// An image that is asked about.
struct Asked<'a> {
    policy: &'a Policy,
    transport: &'a Transport,
    manifest: Digest,
    what: String,
}

/// Refuses an image that the policy does not let in. Without a policy everything is let in
/// (docs/adr/0014-no-policy.md). `manifest` is that of the image itself, not of an index.
pub fn check(
    policy: Option<&Policy>,
    source: &dyn Source,
    registry: &registry::Options,
    manifest: &[u8],
) -> Result<(), Error> {
    let (Some(policy), Some(transport)) = (policy, source.transport()) else { return Ok(()) };
    let transport = &transport;
    let asked = Asked { policy, transport, manifest: Digest::of(manifest), what: transport.to_string() };
    let (path, what) = (|| policy.path.clone(), || asked.what.clone());
    let mut signatures = None;
    for requirement in policy.requirements(transport) {
        match requirement {
            Requirement::Accept => {}
            Requirement::Reject => return Err(Error::Rejected { path: path(), what: what() }),
            Requirement::Unsupported(kind) => {
                return Err(Error::Unsupported { path: path(), what: what(), kind: kind.clone() });
            }
            Requirement::SignedBy { .. } | Requirement::SigstoreSigned { .. } => {
                let found = match &signatures {
                    Some(found) => found,
                    None => signatures.insert(asked.signatures(registry)?),
                };
                asked.signed(requirement, found)?;
            }
        }
    }
    Ok(())
}

impl Asked<'_> {
    /// The name that a signature must speak of; none for places without names.
    fn reference(&self) -> Option<&Reference> {
        match self.transport {
            Transport::Registry(reference) => Some(reference),
            Transport::DockerArchive { name, .. } => name.as_ref(),
            _ => None,
        }
    }

    /// Whether one of the signatures fulfils a requirement.
    fn signed(&self, requirement: &Requirement, signatures: &[Signature]) -> Result<(), Error> {
        let mut reasons = Vec::new();
        match requirement {
            Requirement::SignedBy { keys, identity } => {
                let keyrings = self.keyrings(keys)?;
                for signature in signatures {
                    let Signature::Simple(bytes) = signature else { continue };
                    match self.simple(bytes, &keyrings, identity) {
                        Ok(()) => return Ok(()),
                        Err(reason) => reasons.push(reason),
                    }
                }
            }
            Requirement::SigstoreSigned { keys, identity } => {
                let keys = self.sigstore_keys(keys)?;
                for signature in signatures {
                    let Signature::Sigstore(signature) = signature else { continue };
                    if !signature.is_of_image() {
                        continue;
                    }
                    match self.sigstore(signature, &keys, identity) {
                        Ok(()) => return Ok(()),
                        Err(reason) => reasons.push(reason),
                    }
                }
            }
            _ => return Ok(()),
        }
        let (path, what) = (self.policy.path.clone(), self.what.clone());
        if reasons.is_empty() {
            return Err(Error::Unsigned { path, what });
        }
        reasons.dedup();
        Err(Error::Refused { path, what, reasons })
    }

    fn simple(
        &self,
        bytes: &[u8],
        keyrings: &[openpgp::Keyring],
        identity: &SignedIdentity,
    ) -> Result<(), String> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let text = openpgp::verify(bytes, keyrings, now)
            .map_err(|error| format!("a signature is not accepted, for {error}"))?;
        self.payload(Kind::Simple, &text, identity)
    }

    fn sigstore(
        &self,
        signature: &sigstore::Signature,
        keys: &[sigstore::Key],
        identity: &SignedIdentity,
    ) -> Result<(), String> {
        let mut failure = sigstore::Error::Bad;
        let fits = keys.iter().any(|key| key.check(signature).map_err(|error| failure = error).is_ok());
        if !fits {
            return Err(format!("a signature is not accepted, for {failure}"));
        }
        self.payload(Kind::Sigstore, &signature.payload, identity)
    }

    fn payload(&self, kind: Kind, text: &[u8], identity: &SignedIdentity) -> Result<(), String> {
        let payload = Payload::parse(kind, text).map_err(|error| crate::base::report::chain(&error))?;
        if payload.digest != self.manifest {
            return Err(format!("a signature is for {}, this is {}", payload.digest, self.manifest));
        }
        if !identity.accepts(self.reference(), &payload.reference) {
            return Err(format!("a signature is for the name \"{}\"", payload.reference));
        }
        Ok(())
    }

    /// The bytes of the policy's keys, with a name for errors.
    fn key_bytes(&self, keys: &Keys) -> Result<Vec<(String, Vec<u8>)>, Error> {
        match keys {
            Keys::Data(data) => Ok(data
                .iter()
                .map(|data| (format!("{}: keyData", self.policy.path.display()), data.clone()))
                .collect()),
            Keys::Paths(paths) => paths
                .iter()
                .map(|path| {
                    let bytes =
                        read_limited(path).map_err(|source| Error::KeyFile { path: path.clone(), source })?;
                    Ok((path.display().to_string(), bytes))
                })
                .collect(),
        }
    }

    fn keyrings(&self, keys: &Keys) -> Result<Vec<openpgp::Keyring>, Error> {
        let parse = |(key, bytes): (String, Vec<u8>)| {
            openpgp::Keyring::parse(&bytes).map_err(|error| Error::Key { key, why: error.to_string() })
        };
        self.key_bytes(keys)?.into_iter().map(parse).collect()
    }

    fn sigstore_keys(&self, keys: &Keys) -> Result<Vec<sigstore::Key>, Error> {
        let parse = |(key, bytes): (String, Vec<u8>)| {
            sigstore::Key::parse(&bytes).map_err(|error| Error::Key { key, why: error.to_string() })
        };
        self.key_bytes(keys)?.into_iter().map(parse).collect()
    }

    /// All signatures that are kept for the image.
    fn signatures(&self, options: &registry::Options) -> Result<Vec<Signature>, Error> {
        match self.transport {
            Transport::Registry(reference) => {
                // Signatures are where the image is, also if that is a mirror.
                let place = options.location.as_ref().unwrap_or(reference);
                let lookaside = Lookaside::read(&|name| std::env::var_os(name))?;
                let mut found = self.in_lookaside(&lookaside, place)?;
                if lookaside.section(place).and_then(|section| section.attachments) == Some(true) {
                    let attached = self.attached(place, options);
                    found
                        .extend(attached.map_err(|source| Error::Fetch { what: self.what.clone(), source })?);
                }
                Ok(found)
            }
            Transport::Dir(path) => {
                self.numbered(|number| read_file(&path.join(format!("signature-{number}"))))
            }
            _ => Ok(Vec::new()),
        }
    }

    fn in_lookaside(&self, lookaside: &Lookaside, place: &Reference) -> Result<Vec<Signature>, Error> {
        self.numbered(|number| {
            let Some(url) = lookaside.url(place, &self.manifest, number) else { return Ok(None) };
            match url.strip_prefix("file://") {
                Some(path) => read_file(Path::new(path)),
                None => registry::fetch(&url).map_err(|error| Error::Fetch {
                    what: self.what.clone(),
                    source: Box::new(error.into()),
                }),
            }
        })
    }

    /// Signature 1, 2, … up to the first that is not there.
    fn numbered(
        &self,
        read: impl Fn(usize) -> Result<Option<Vec<u8>>, Error>,
    ) -> Result<Vec<Signature>, Error> {
        let mut found = Vec::new();
        for number in 1..=MAX_SIGNATURES {
            let Some(bytes) = read(number)? else { break };
            found.extend(classify(bytes));
        }
        Ok(found)
    }

    /// What cosign has put beside the image.
    fn attached(
        &self,
        place: &Reference,
        options: &registry::Options,
    ) -> Result<Vec<Signature>, Box<source::Error>> {
        let Ok(reference) =
            format!("{}:{}", place.name(), sigstore::tag(&self.manifest)).parse::<Reference>()
        else {
            return Ok(Vec::new());
        };
        let options = registry::Options { location: None, ..options.clone() };
        let registry = Registry::new(&reference, &options).map_err(|error| Box::new(error.into()))?;
        let manifest = match registry.root() {
            Err(source::Error::Registry(registry::Error::NotFound { .. })) => return Ok(Vec::new()),
            other => other?,
        };
        let entries = sigstore::entries(&manifest.bytes).map_err(|error| source::Error::Manifest {
            what: reference.to_string(),
            source: super::manifest::Error::Parse(error),
        })?;
        let mut found = Vec::new();
        for entry in entries.into_iter().take(MAX_SIGNATURES) {
            let Ok(digest) = entry.digest.parse() else { continue };
            let size = entry.size.min(MAX_MANIFEST);
            let descriptor = Descriptor { media_type: entry.media_type.clone(), digest, size };
            let payload = source::checked_blob(&registry, &descriptor)?;
            let (media_type, annotations) = (entry.media_type, entry.annotations);
            found.push(Signature::Sigstore(sigstore::Signature { media_type, payload, annotations }));
        }
        Ok(found)
    }
}

/// Which kind of signature a file holds: GnuPG's have no mark of their own but the first bit of every
/// OpenPGP packet, others begin with a zero and their format's name on a line. Unknown ones are nobody's.
fn classify(bytes: Vec<u8>) -> Option<Signature> {
    const SIGSTORE: &[u8] = b"\0sigstore-json\n";
    const SIMPLE: &[u8] = b"\0simple-signing\n";
    if let Some(json) = bytes.strip_prefix(SIGSTORE) {
        return serde_json::from_slice(json).ok().map(Signature::Sigstore);
    }
    if let Some(message) = bytes.strip_prefix(SIMPLE) {
        return Some(Signature::Simple(message.to_vec()));
    }
    (bytes.first() != Some(&0)).then_some(Signature::Simple(bytes))
}

fn read_file(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match read_limited(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(source) => Err(Error::SignatureFile { path: path.to_owned(), source }),
    }
}

fn read_limited(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_MANIFEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_MANIFEST { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}
