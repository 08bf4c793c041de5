//! Signing what is pushed with a sigstore key: the signature is put beside the image, under the tag
//! `sha256-HEX.sig` of its repository, where cosign and others look for it.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crypto_secretbox::aead::Aead;
use crypto_secretbox::{KeyInit, XSalsa20Poly1305};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Error;
use crate::base::digest::Digest;
use crate::image::artifact::MANIFEST as ARTIFACT;
use crate::image::destination::{Destination as _, Remote};
use crate::image::reference::Reference;
use crate::image::registry;
use crate::image::source::{self, Source};
use crate::image::trust::{payload, read_limited, sigstore};

/// A key as it is given: `--sign-by-sigstore-private-key` and `--sign-passphrase-file`.
#[derive(Clone)]
pub struct KeyFile {
    /// A key in PEM, encrypted as cosign and skopeo do it, or PKCS #8.
    pub path: PathBuf,
    /// What it is encrypted with.
    pub passphrase: Vec<u8>,
}

impl std::fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyFile({:?})", self.path)
    }
}

/// The file's form when it is encrypted.
#[derive(Deserialize)]
struct Encrypted {
    kdf: Kdf,
    cipher: Cipher,
    ciphertext: String,
}

#[derive(Deserialize)]
struct Kdf {
    name: String,
    params: Params,
    salt: String,
}

#[derive(Deserialize)]
struct Params {
    #[serde(rename = "N")]
    n: u64,
    r: u32,
    p: u32,
}

#[derive(Deserialize)]
struct Cipher {
    name: String,
    nonce: String,
}

/// scrypt's cost is what the file says: no more memory than this (128 · N · r bytes) and no more rounds.
const MAX_MEMORY: u64 = 256 << 20;
const MAX_PARALLEL: u32 = 16;

/// The content of a PEM file, with its label.
struct Pem(String, Vec<u8>);

/// The section of a PEM text: its label and its bytes. The labels of encrypted keys are not among those that
/// TLS knows.
fn section(text: &str) -> Option<Pem> {
    let start = text.find("-----BEGIN ")? + "-----BEGIN ".len();
    let (label, rest) = text[start..].split_once("-----")?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
    let body: String = body.chars().filter(|c| !c.is_whitespace()).collect();
    Some(Pem(label.to_owned(), STANDARD.decode(body).ok()?))
}

fn decrypt(bytes: &[u8], passphrase: &[u8]) -> Result<Vec<u8>, &'static str> {
    let file: Encrypted = serde_json::from_slice(bytes).map_err(|_| "it is damaged")?;
    if file.kdf.name != "scrypt" || file.cipher.name != "nacl/secretbox" {
        return Err("it is encrypted in an unknown way");
    }
    let Params { n, r, p } = file.kdf.params;
    let memory = n.checked_mul(u64::from(r)).and_then(|blocks| blocks.checked_mul(128));
    if !n.is_power_of_two() || n < 2 || p > MAX_PARALLEL || memory.is_none_or(|bytes| bytes > MAX_MEMORY) {
        return Err("it is encrypted at an unreasonable cost");
    }
    let decode = |text: &str| STANDARD.decode(text).map_err(|_| "it is damaged");
    let (salt, nonce, text) =
        (decode(&file.kdf.salt)?, decode(&file.cipher.nonce)?, decode(&file.ciphertext)?);
    let params =
        scrypt::Params::new(n.ilog2() as u8, r, p).map_err(|_| "it is encrypted in an unknown way")?;
    let mut key = [0; 32];
    scrypt::scrypt(passphrase, &salt, &params, &mut key).map_err(|_| "it is encrypted in an unknown way")?;
    let nonce: [u8; 24] = nonce.try_into().map_err(|_| "it is damaged")?;
    let cipher = XSalsa20Poly1305::new(&key.into());
    cipher.decrypt(&nonce.into(), &*text).map_err(|_| "the passphrase is wrong, or it is damaged")
}

impl KeyFile {
    /// Reads the key.
    pub fn open(&self) -> Result<Key, Error> {
        let bytes =
            read_limited(&self.path).map_err(|source| Error::Read { path: self.path.clone(), source })?;
        let failed = |why| Error::Key { path: self.path.clone(), why };
        let text = std::str::from_utf8(&bytes).map_err(|_| failed("it is not PEM"))?;
        let Pem(label, der) = section(text).ok_or_else(|| failed("it is not PEM"))?;
        let der = match &*label {
            "ENCRYPTED SIGSTORE PRIVATE KEY" | "ENCRYPTED COSIGN PRIVATE KEY" => {
                decrypt(&der, &self.passphrase).map_err(failed)?
            }
            "PRIVATE KEY" => der,
            _ => return Err(failed("it is no private key of sigstore, nor one in PKCS #8")),
        };
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &der, &random)
            .map_err(|_| failed("it is of a kind that is not supported: use ECDSA over P-256"))?;
        Ok(Key { key, random })
    }
}

/// A key that can sign.
pub struct Key {
    key: EcdsaKeyPair,
    random: SystemRandom,
}

impl Key {
    /// Signs the manifest that was pushed as `reference`, and puts the signature beside it. Signatures that are there
    /// stay.
    pub fn attach(
        &self,
        reference: &Reference,
        options: &registry::Options,
        manifest: &Digest,
    ) -> Result<(), Error> {
        let what = reference.to_string();
        let text = payload::write(payload::Kind::Sigstore, manifest, &what);
        let signature =
            self.key.sign(&self.random, text.as_bytes()).map_err(|_| Error::Sign(what.clone()))?;
        let signature = STANDARD.encode(signature);
        let place = options.location.as_ref().unwrap_or(reference);
        let tag = sigstore::tag(manifest);
        let options = registry::Options { location: None, ..options.clone() };
        let stored = |source| Error::Put { what: what.clone(), source };
        let beside: Reference =
            format!("{}:{tag}", place.name()).parse().map_err(|_| Error::Sign(what.clone()))?;
        let remote = Remote::new(&beside, &options).map_err(stored)?;
        let mut document = match remote.registry().root() {
            Ok(found) => {
                serde_json::from_slice(&found.bytes).map_err(|_| Error::Foreign(beside.to_string()))?
            }
            Err(source::Error::Registry(registry::Error::NotFound { .. })) => json!({ "layers": [] }),
            Err(source) => return Err(Error::Known { what, source: Box::new(source) }),
        };
        let layers = document.get_mut("layers").and_then(Value::as_array_mut);
        let layers = layers.ok_or_else(|| Error::Foreign(beside.to_string()))?;
        layers.push(sigstore::entry(text.as_bytes(), &signature));
        let payloads: Vec<Value> = layers.iter().map(|layer| layer["digest"].clone()).collect();
        let config = json!({
            "architecture": "", "os": "", "config": {}, "rootfs": { "type": "layers", "diff_ids": payloads },
        });
        let config = config.to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": ARTIFACT,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": Digest::of(&config),
                "size": config.len(),
            },
            "layers": layers,
        });
        for bytes in [text.as_bytes(), &config] {
            remote.put_config(&Digest::of(bytes), bytes).map_err(stored)?;
        }
        remote.put_document(ARTIFACT, manifest.to_string().as_bytes()).map_err(stored)
    }
}
