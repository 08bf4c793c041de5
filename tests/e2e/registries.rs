//! Registries: certificates, credentials, `registries.conf`, what a terminal shows of a pull.

use crate::requires;
use crate::support::{Need, Registry, Umiak};

#[test]
fn from_a_registry_with_https() {
    requires!(
        Need::Image("busybox"),
        Need::Tool("docker-registry"),
        Need::Tool("skopeo"),
        Need::Tool("openssl")
    );
    let umiak = Umiak::new();
    let (registry, trusted) = Registry::start_with_tls(&umiak);
    let name = registry.push("busybox");
    umiak.run(&["pull", &name]).exits(125).tells("certificate").hints("--cert-dir");
    umiak.run(&["pull", "--cert-dir", trusted.to_str().unwrap(), &name]).ok();
    umiak.run(&["rmi", &name]).ok();
    umiak.run(&["pull", "--tls-verify=false", &name]).ok();
}

#[test]
fn a_self_signed_certificate() {
    requires!(
        Need::Image("busybox"),
        Need::Tool("docker-registry"),
        Need::Tool("skopeo"),
        Need::Tool("openssl")
    );
    let mut umiak = Umiak::new();
    let (registry, trusted) = Registry::start_self_signed(&umiak, "IP:127.0.0.1", false);
    let name = registry.push("busybox");
    let dir = trusted.to_str().unwrap();
    // Trusted: by a directory, and as one of the system's authorities.
    umiak.run(&["pull", "--cert-dir", dir, &name]).ok();
    umiak.run(&["rmi", &name]).ok();
    umiak.run(&["pull", &name]).exits(125).tells("nobody who is trusted").hints("--cert-dir");
    umiak.set_env("SSL_CERT_FILE", trusted.join("server.crt").to_str().unwrap());
    umiak.run(&["pull", &name]).ok();
    // The certificate does not have this name.
    let other = name.replace("127.0.0.1", "localhost");
    umiak.run(&["pull", &other]).exits(125).tells("another name").hints("--tls-verify=false");
    umiak.run(&["pull", "--tls-verify=false", &other]).ok();

    let (expired, its_own) = Registry::start_self_signed(&umiak, "IP:127.0.0.1", true);
    let name = expired.push("busybox");
    umiak.run(&["pull", "--cert-dir", its_own.to_str().unwrap(), &name]).exits(125).tells("has expired");
    // Trusting one self-signed certificate is not trusting another of the same subject.
    let (stranger, _) = Registry::start_self_signed(&umiak, "IP:127.0.0.1", false);
    let name = stranger.push("busybox");
    umiak
        .run(&["pull", "--cert-dir", dir, &name])
        .exits(125)
        .tells("nobody who is trusted")
        .hints("--cert-dir");
}
