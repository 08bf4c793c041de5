//! TLS to registries: which certificates are trusted, and the connector that the HTTP client uses.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme,
    StreamOwned,
};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport, TransportAdapter,
};

use super::registry::Error;

/// Certificates and keys for one registry, as they were found in files.
#[derive(Debug)]
pub struct Trust {
    verify: bool,
    roots: Vec<CertificateDer<'static>>,
    chain: Vec<CertificateDer<'static>>,
    key: Option<PrivateKeyDer<'static>>,
}

impl Trust {
    /// Reads what is trusted for `host` (with its port): `*.crt` of `cert_dir` or else of
    /// `certs.d` (containers-certs.d(5)) of the user and the system, and the system's authorities; `*.cert` and `*.key` are
    /// ours to show. Without `verify` every certificate will do.
    pub fn read(host: &str, verify: bool, cert_dir: Option<&Path>) -> Result<Self, Error> {
        let mut trust = Self { verify, roots: Vec::new(), chain: Vec::new(), key: None };
        let own = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config/containers/certs.d"));
        let system = ["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from);
        let directories: Vec<PathBuf> = match cert_dir {
            Some(dir) => vec![dir.to_owned()],
            None => own.into_iter().chain(system).map(|dir| dir.join(host)).collect(),
        };
        for dir in directories {
            let entries = match std::fs::read_dir(&dir) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && cert_dir.is_none() => continue,
                other => other.map_err(|source| Error::Certificates { path: dir.clone(), source })?,
            };
            for path in entries.flatten().map(|entry| entry.path()) {
                match path.extension().and_then(|e| e.to_str()) {
                    Some("crt") => trust.roots.extend(certificates(&path)?),
                    Some("cert") => trust.chain.extend(certificates(&path)?),
                    Some("key") => trust.key = Some(private_key(&path)?),
                    _ => {}
                }
            }
            // Half of a pair would be left out without a word, and the registry would say "denied".
            if trust.chain.is_empty() != trust.key.is_none() {
                let what = if trust.key.is_none() {
                    "a *.cert without its *.key"
                } else {
                    "a *.key without its *.cert"
                };
                let source = io::Error::new(io::ErrorKind::InvalidData, what);
                return Err(Error::Certificates { path: dir, source });
            }
        }
        if verify {
            trust.roots.extend(system_roots()?);
        }
        Ok(trust)
    }

    fn config(&self) -> Result<ClientConfig, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(rustls::ALL_VERSIONS)?
            .dangerous()
            .with_custom_certificate_verifier(self.verifier(provider));
        match &self.key {
            Some(key) if !self.chain.is_empty() => {
                builder.with_client_auth_cert(self.chain.clone(), key.clone_key())
            }
            _ => Ok(builder.with_no_client_auth()),
        }
    }

    fn verifier(&self, provider: Arc<CryptoProvider>) -> Arc<dyn ServerCertVerifier> {
        if !self.verify {
            return Arc::new(Anybody(provider));
        }
        let mut store = RootCertStore::empty();
        // One that cannot be parsed does not spoil the others, as in every other client.
        store.add_parsable_certificates(self.roots.iter().cloned());
        // Fails only if there is no root at all: then nobody is trusted.
        let chains = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider.clone()).build();
        Arc::new(Verifier { chains: chains.ok(), roots: self.roots.clone(), provider })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::Certificates { path: path.to_owned(), source })
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|_| {
        let source = io::Error::new(
            io::ErrorKind::InvalidData,
            "it is not a private key in PEM, or it has a password",
        );
        Error::Certificates { path: path.to_owned(), source }
    })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    Ok(CertificateDer::pem_slice_iter(&read(path)?).flatten().collect())
}

/// The certificate authorities of the system, from the first bundle that is there.
fn system_roots() -> Result<Vec<CertificateDer<'static>>, Error> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let usual = [
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/ca-bundle.pem",
        "/etc/ssl/cert.pem",
    ];
    let bundle = named.into_iter().chain(usual.map(PathBuf::from)).find(|path| path.exists());
    bundle.map_or_else(|| Ok(Vec::new()), |bundle| certificates(&bundle))
}

/// Chains to trusted roots as webpki checks them, and one more case: a server that shows the very
/// certificate that is trusted. `openssl req -x509` marks what it makes as an authority's, which
/// webpki refuses from a server whoever trusts it; curl and every client in Go take it.
#[derive(Debug)]
struct Verifier {
    chains: Option<Arc<WebPkiServerVerifier>>,
    roots: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(chains) = &self.chains else { return Err(CertificateError::UnknownIssuer.into()) };
        match chains.verify_server_cert(shown, intermediates, name, ocsp, now) {
            Err(error) if is_authority(&error) => {
                // Who has the key of a trusted root could sign a certificate for any name and use,
                // so to take the root's own gives nobody more; its dates and names still bind.
                if !self.roots.iter().any(|root| root.as_ref() == shown.as_ref()) {
                    return Err(CertificateError::UnknownIssuer.into());
                }
                check_dates(shown, now)?;
                rustls::client::verify_server_name(&ParsedCertificate::try_from(shown)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn is_authority(error: &rustls::Error) -> bool {
    let rustls::Error::InvalidCertificate(CertificateError::Other(other)) = error else { return false };
    matches!(other.0.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
}

fn check_dates(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), rustls::Error> {
    let (from, until) = validity(certificate).ok_or(CertificateError::BadEncoding)?;
    let time = |seconds| UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
    if now.as_secs() < from {
        return Err(CertificateError::NotValidYetContext { time: now, not_before: time(from) }.into());
    }
    if now.as_secs() > until {
        return Err(CertificateError::ExpiredContext { time: now, not_after: time(until) }.into());
    }
    Ok(())
}

/// The first and last second of a certificate's validity, since the epoch (RFC 5280, 4.1).
fn validity(certificate: &[u8]) -> Option<(u64, u64)> {
    const SEQUENCE: u8 = 0x30;
    let (tag, certificate, _) = element(certificate)?;
    let (inner, mut fields, _) = element(certificate)?;
    // [0] version, serial number, algorithm, issuer; then the validity.
    let skipped = if fields.first() == Some(&0xa0) { 4 } else { 3 };
    for _ in 0..skipped {
        fields = element(fields)?.2;
    }
    let (kind, validity, _) = element(fields)?;
    if [tag, inner, kind] != [SEQUENCE; 3] {
        return None;
    }
    let (first, from, rest) = element(validity)?;
    let (second, until, _) = element(rest)?;
    Some((seconds(first, from)?, seconds(second, until)?))
}

/// Tag, content and what follows of a DER element.
pub(super) fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// UTCTime `YYMMDDhhmmssZ`, or GeneralizedTime with a year of four digits; before 1970 is 0.
fn seconds(tag: u8, text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let year_digits = match (tag, text.len()) {
        (0x17, 13) => 2,
        (0x18, 15) => 4,
        _ => return None,
    };
    let digits = text.strip_suffix('Z').filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?;
    let mut year: i16 = digits[..year_digits].parse().ok()?;
    if year_digits == 2 {
        year += if year < 50 { 2000 } else { 1900 };
    }
    let rest = &digits[year_digits..];
    let part = |at: usize| rest[2 * at..2 * at + 2].parse::<i8>().ok();
    let time = jiff::civil::DateTime::new(year, part(0)?, part(1)?, part(2)?, part(3)?, part(4)?, 0).ok()?;
    let time = jiff::tz::TimeZone::UTC.to_timestamp(time).ok()?;
    Some(time.as_second().max(0).unsigned_abs())
}

/// Takes every certificate: `--tls-verify=false`.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Wraps a connection in TLS where the address says `https`. The client's own connector cannot be
/// given a verifier.
#[derive(Debug)]
pub struct TlsConnector {
    trust: Trust,
    // Not before it is needed: to parse all of a system's authorities takes milliseconds.
    config: OnceLock<Arc<ClientConfig>>,
}

impl TlsConnector {
    /// With this trust.
    pub fn new(trust: Trust) -> Self {
        Self { trust, config: OnceLock::new() }
    }

    fn config(&self) -> Result<Arc<ClientConfig>, rustls::Error> {
        if let Some(config) = self.config.get() {
            return Ok(config.clone());
        }
        let config = Arc::new(self.trust.config()?);
        Ok(self.config.get_or_init(|| config).clone())
    }
}

impl<In: Transport> Connector<In> for TlsConnector {
    type Out = Either<In, Encrypted>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        let Some(transport) = chained else { return Ok(None) };
        if !details.needs_tls() || transport.is_tls() {
            return Ok(Some(Either::A(transport)));
        }
        let host = details.uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| ureq::Error::Tls("the registry's name cannot be in a certificate"))?;
        let connection = ClientConnection::new(self.config()?, name)?;
        let mut socket = TransportAdapter::new(transport.boxed(), details.current_time.clone());
        socket.set_timeout(details.timeout);
        let mut stream = StreamOwned::new(connection, socket);
        stream.conn.complete_io(&mut stream.sock)?;
        let (input, output) = (details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Either::B(Encrypted { buffers: LazyBuffers::new(input, output), stream })))
    }
}

/// A connection with TLS.
pub struct Encrypted {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
}

impl std::fmt::Debug for Encrypted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encrypted").finish_non_exhaustive()
    }
}

impl Transport for Encrypted {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.stream.get_mut().set_timeout(timeout);
        self.stream.write_all(&self.buffers.output()[..amount])?;
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.stream.get_mut().set_timeout(timeout);
        let amount = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.get_mut().get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn der(tag: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![tag];
        match content.len() {
            length @ 0..=0x7f => bytes.push(length as u8),
            length => bytes.extend([0x82, (length >> 8) as u8, length as u8]),
        }
        bytes.extend(content);
        bytes
    }

    fn certificate(from: (u8, &str), until: (u8, &str)) -> Vec<u8> {
        let validity = [der(from.0, from.1.as_bytes()), der(until.0, until.1.as_bytes())].concat();
        let fields = [
            der(0xa0, &der(2, &[2])),
            der(2, &[7; 200]),
            der(0x30, b""),
            der(0x30, b"issuer"),
            der(0x30, &validity),
        ];
        der(0x30, &[der(0x30, &fields.concat()), der(3, b"signature")].concat())
    }

    #[test]
    fn dates_of_certificates() {
        let bytes = certificate((0x17, "700101000001Z"), (0x18, "20500101000000Z"));
        assert_eq!(validity(&bytes), Some((1, 2_524_608_000)));
        assert_eq!(
            validity(&certificate((0x17, "491231235959Z"), (0x17, "500101000000Z"))),
            Some((2_524_607_999, 0))
        );
        for bad in ["701301000000Z", "7001010000010", "70010100001Z", "70010100000\u{e9}"] {
            assert_eq!(validity(&certificate((0x17, bad), (0x17, bad))), None, "{bad}");
        }
        for cut in 0..bytes.len() {
            let _ = validity(&bytes[..cut]);
        }
        let at = |seconds| UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        let bytes = certificate((0x17, "260101000000Z"), (0x17, "260102000000Z")).into();
        assert!(check_dates(&bytes, at(1_767_225_600)).is_ok());
        assert!(check_dates(&bytes, at(1_767_225_599)).is_err());
        assert!(check_dates(&bytes, at(1_767_312_001)).is_err());
    }
}
