//! Signatures of sigstore (cosign) by a key: the registry holds them as an image of their own, under
//! the tag `sha256-HEX.sig`.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature as ring;
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;

use crate::image::tls::element;

/// The annotation that holds the signature of a payload.
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// The media type of a payload.
const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

/// A key or a signature that is not to be trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The file is something else.
    #[error("it is not a public key in PEM")]
    Pem,
    /// A kind of key.
    #[error("it is a key of a kind that is not supported: use ECDSA over P-256 or P-384, RSA or Ed25519")]
    Kind,
    /// There is no signature.
    #[error("it lacks the annotation {SIGNATURE}")]
    Missing,
    /// It is not base64.
    #[error("the annotation {SIGNATURE} is not base64")]
    Base64,
    /// The numbers do not fit.
    #[error("it was not made by the key that is trusted, or not for this text")]
    Bad,
}

/// A public key.
#[derive(Clone)]
pub struct Key {
    algorithm: &'static dyn ring::VerificationAlgorithm,
    bytes: Vec<u8>,
}

/// A signature, as it came.
#[derive(Clone, Debug, Deserialize)]
pub struct Signature {
    /// Media type of the payload.
    #[serde(rename = "mimeType")]
    pub media_type: String,
    /// The text that is signed.
    #[serde(deserialize_with = "base64")]
    pub payload: Vec<u8>,
    /// The signature is among them.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

fn base64<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    STANDARD.decode(text).map_err(serde::de::Error::custom)
}

impl Signature {
    /// Whether it is what cosign signs images with; others are attestations and the like.
    pub fn is_of_image(&self) -> bool {
        self.media_type == PAYLOAD
    }
}

impl Key {
    /// Reads `-----BEGIN PUBLIC KEY-----`.
    pub fn parse(pem: &[u8]) -> Result<Self, Error> {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem).map_err(|_| Error::Pem)?;
        let (algorithm, bytes) = key(der.as_ref()).ok_or(Error::Pem)?;
        let algorithm = algorithm.ok_or(Error::Kind)?;
        Ok(Self { algorithm, bytes: bytes.to_vec() })
    }

    /// Whether the signature over its text was made with this key.
    pub fn check(&self, signature: &Signature) -> Result<(), Error> {
        let text = signature.annotations.get(SIGNATURE).ok_or(Error::Missing)?;
        let bytes = STANDARD.decode(text).map_err(|_| Error::Base64)?;
        ring::UnparsedPublicKey::new(self.algorithm, &self.bytes)
            .verify(&signature.payload, &bytes)
            .map_err(|_| Error::Bad)
    }
}

type Algorithm = Option<&'static dyn ring::VerificationAlgorithm>;

/// Algorithm and key of a SubjectPublicKeyInfo (RFC 5280, 4.1); cosign hashes with SHA-256 always.
fn key(der: &[u8]) -> Option<(Algorithm, &[u8])> {
    const SEQUENCE: u8 = 0x30;
    const OBJECT: u8 = 0x06;
    const BITS: u8 = 0x03;
    let (SEQUENCE, inner, []) = element(der)? else { return None };
    let (SEQUENCE, algorithm, rest) = element(inner)? else { return None };
    let (BITS, [0, bytes @ ..], []) = element(rest)? else { return None };
    let (OBJECT, kind, parameters) = element(algorithm)? else { return None };
    let curve = || element(parameters).filter(|(tag, ..)| *tag == OBJECT).map(|(_, curve, _)| curve);
    let known: Algorithm = match kind {
        // id-ecPublicKey, by its curve.
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01] => match curve()? {
            [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07] => Some(&ring::ECDSA_P256_SHA256_ASN1),
            [0x2b, 0x81, 0x04, 0x00, 0x22] => Some(&ring::ECDSA_P384_SHA256_ASN1),
            _ => None,
        },
        // rsaEncryption: the key is what ring takes.
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01] => Some(&ring::RSA_PKCS1_2048_8192_SHA256),
        // id-Ed25519.
        [0x2b, 0x65, 0x70] => Some(&ring::ED25519),
        _ => None,
    };
    Some((known, bytes))
}

/// The entry of a payload with its signature (base64) in such an image's manifest.
pub fn entry(payload: &[u8], signature: &str) -> serde_json::Value {
    serde_json::json!({
        "mediaType": PAYLOAD,
        "digest": crate::base::digest::Digest::of(payload),
        "size": payload.len(),
        "annotations": { SIGNATURE: signature },
    })
}

/// The tag under which a manifest's signatures are.
pub fn tag(manifest: &crate::base::digest::Digest) -> String {
    format!("sha256-{}.sig", manifest.hex())
}

/// An entry of such an image's manifest.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Media type of the payload.
    pub media_type: String,
    /// Its digest.
    pub digest: String,
    /// Its size.
    pub size: u64,
    /// The signature is among them.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// The entries of such an image's manifest.
pub fn entries(manifest: &[u8]) -> Result<Vec<Entry>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Manifest {
        layers: Vec<Entry>,
    }
    Ok(serde_json::from_slice::<Manifest>(manifest)?.layers)
}
