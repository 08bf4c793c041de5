//! `policy.json` and signatures: what GnuPG, skopeo and openssl sign is taken, everything else is
//! refused with one line, and nothing of it is in the store.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use umiak::base::digest::Digest;
use umiak::image::registry::{self, Content};
use umiak::image::source::Source;

use crate::requires;
use crate::support::{Need, Output, Registry, Umiak, images, skip, tool};

/// A GnuPG home of a test's own.
pub struct Gpg(pub PathBuf);

impl Gpg {
    pub fn new(umiak: &Umiak) -> Self {
        use std::os::unix::fs::DirBuilderExt;
        let dir = umiak.dir.join("gpg");
        std::fs::DirBuilder::new().mode(0o700).create(&dir).unwrap();
        Self(dir)
    }

    pub fn run(&self, args: &[&str], input: &[u8]) -> Vec<u8> {
        use std::io::Write;
        let mut child = Command::new(tool("gpg").unwrap())
            .args(["--batch", "-q", "--homedir"])
            .arg(&self.0)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// Makes a key and returns the file with its public half.
    pub fn key(&self, user: &str, more: &[&str], kind: &str, life: &str) -> PathBuf {
        self.run(
            &[more, &["--passphrase", "", "--quick-generate-key", user, kind, "sign", life]].concat(),
            b"",
        );
        let path = self.0.join(format!("{user}.pub"));
        std::fs::write(&path, self.run(&["--armor", "--export", user], b"")).unwrap();
        path
    }

    /// The signed text for a manifest.
    fn sign(&self, user: &str, more: &[&str], name: &str, digest: &str) -> Vec<u8> {
        let text = format!(
            r#"{{"critical":{{"identity":{{"docker-reference":"{name}"}},"image":{{"docker-manifest-digest":"{digest}"}},"type":"atomic container signature"}},"optional":{{"creator":"test"}}}}"#
        );
        self.run(&[more, &["-u", user, "--sign"]].concat(), text.as_bytes())
    }
}

impl Drop for Gpg {
    fn drop(&mut self) {
        // Its agent would live on.
        let _ = Command::new("gpgconf").args(["--homedir"]).arg(&self.0).args(["--kill", "all"]).status();
    }
}

pub fn policy(umiak: &Umiak, requirements: &str) -> String {
    let text = format!(
        "{{\"default\":[{{\"type\":\"reject\"}}],\"transports\":{{\"docker\":{{\"\":[{requirements}]}},\"dir\":{{\"\":[{requirements}]}}}}}}"
    );
    umiak.file("policy.json", &text).display().to_string()
}

pub fn signed_by(key: &Path) -> String {
    format!("{{\"type\":\"signedBy\",\"keyType\":\"GPGKeys\",\"keyPath\":\"{}\"}}", key.display())
}

pub fn pull(umiak: &Umiak, policy: &str, name: &str) -> Output {
    umiak.run(&["pull", "-q", "--tls-verify=false", "--signature-policy", policy, name])
}

/// Refused: with this line, and without a trace.
pub fn refused(umiak: &Umiak, policy: &str, name: &str, why: &str) {
    let output = pull(umiak, policy, name).exits(125).tells(why);
    assert_eq!(output.stderr.matches("error:").count(), 1, "{}", output.stderr);
    assert!(output.stderr.lines().count() <= 2, "{}", output.stderr);
    for dir in ["layers", "images", "tags", "blobs/sha256", "staging", "trash"] {
        let left: Vec<_> = std::fs::read_dir(umiak.dir.join("store").join(dir)).unwrap().flatten().collect();
        assert!(left.is_empty(), "{why}: {dir}: {left:?}");
    }
}

/// Tells both programs where signatures are.
pub fn lookaside(umiak: &Umiak, more: &str) -> (PathBuf, PathBuf) {
    let signatures = umiak.dir.join("signatures");
    let dir = umiak.dir.join("home/.config/containers/registries.d");
    std::fs::create_dir_all(&dir).unwrap();
    let text = format!(
        "# where signatures are\ndefault-docker:\n    lookaside: file://{}\n{more}",
        signatures.display()
    );
    std::fs::write(dir.join("default.yaml"), text).unwrap();
    (signatures, dir)
}

fn skopeo_sign(gpg: &Gpg, dir: &Path, user: &str, image: &str, name: &str) {
    let output = Command::new(tool("skopeo").unwrap())
        .args(["--insecure-policy", "--registries.d"])
        .arg(dir)
        .args(["copy", "-q", "--dest-tls-verify=false", "--sign-by", user])
        .arg(format!("oci:{}:localhost/{image}:latest", images().join(image).display()))
        .arg(format!("docker://{name}"))
        .env("GNUPGHOME", &gpg.0)
        .env("TMPDIR", &gpg.0)
        .env("XDG_RUNTIME_DIR", &gpg.0)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The only directory of a repository's signatures.
pub fn of_repository(signatures: &Path, repository: &str) -> PathBuf {
    let (parent, base) = repository.rsplit_once('/').unwrap();
    let entries = std::fs::read_dir(signatures.join(parent)).unwrap().flatten();
    let fits = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(&format!("{base}@"));
    entries.map(|entry| entry.path()).find(fits).unwrap()
}

#[test]
fn what_gnupg_has_signed() {
    requires!(
        Need::Image("busybox"),
        Need::Image("configured"),
        Need::Tool("docker-registry"),
        Need::Tool("skopeo"),
        Need::Tool("gpg")
    );
    let umiak = Umiak::new();
    let registry = Registry::start(&umiak);
    let gpg = Gpg::new(&umiak);
    let (signatures, registries_d) = lookaside(&umiak, "");
    let key = gpg.key("good@example.com", &[], "rsa3072", "never");
    let other_key = gpg.key("other@example.com", &[], "ed25519", "never");
    let name = format!("{}/test/busybox:1", registry.address);
    skopeo_sign(&gpg, &registries_d, "good@example.com", "busybox", &name);
    let strict = policy(&umiak, &signed_by(&key));
    let digest = {
        let id = pull(&umiak, &strict, &name).ok().stdout;
        let digest = umiak.run(&["image", "inspect", "--format", "{{.Digest}}", id.trim()]).ok().stdout;
        umiak.run(&["run", "--rm", "--network", "none", &name, "true"]).ok();
        umiak.run(&["rmi", &name]).ok();
        digest.trim().to_owned()
    };
    let repository = format!("{}/test/busybox", registry.address);
    pull(&umiak, &strict, &format!("{repository}@{digest}")).ok();
    umiak.run(&["rmi", "-a", "-f"]).ok();
    // Skopeo's directory takes the signatures along; it has no name of its own.
    let copy = umiak.dir.join("copy");
    let copied = Command::new(tool("skopeo").unwrap())
        .args([
            "--insecure-policy",
            "--registries.d",
            registries_d.to_str().unwrap(),
            "copy",
            "-q",
            "--src-tls-verify=false",
        ])
        .args([format!("docker://{name}"), format!("dir:{}", copy.display())])
        .env("XDG_RUNTIME_DIR", &umiak.dir)
        .status()
        .unwrap();
    assert!(copied.success());
    let dir = format!("dir:{}", copy.display());
    refused(&umiak, &strict, &dir, "is for the name");
    let identity = format!(
        "\"signedIdentity\":{{\"type\":\"exactRepository\",\"dockerRepository\":\"{repository}\"}},\"type\""
    );
    let named = policy(&umiak, &signed_by(&key).replacen("\"type\"", &identity, 1));
    pull(&umiak, &named, &dir).ok();
    umiak.run(&["rmi", "-a", "-f"]).ok();

    // Other keys, both keys, and a policy of the user's own.
    let strict_other = policy(&umiak, &signed_by(&other_key));
    refused(&umiak, &strict_other, &name, "which is not trusted");
    let both = policy(&umiak, &format!("{},{}", signed_by(&key), signed_by(&other_key)));
    refused(&umiak, &both, &name, "which is not trusted");
    refused(&umiak, &policy(&umiak, "{\"type\":\"reject\"}"), &name, "forbids");
    let own = umiak.dir.join("home/.config/containers/policy.json");
    std::fs::copy(policy(&umiak, &signed_by(&other_key)), &own).unwrap();
    umiak.run(&["run", "--tls-verify=false", &name, "true"]).exits(125).tells("which is not trusted");
    std::fs::write(&own, "{\"default\":[{\"type\":\"sinedBy\"}]}").unwrap();
    umiak.run(&["pull", "--tls-verify=false", &name]).exits(125).tells("\"sinedBy\" is not known");
    std::fs::remove_file(&own).unwrap();
    pull(&umiak, "/no/such/policy", &name).exits(125).tells("/no/such/policy");

    // Another tag of the same image, another image under the same name, no signature at all.
    let strict = policy(&umiak, &signed_by(&key));
    let plain = format!("{}/test/configured:1", registry.address);
    skopeo_sign(&gpg, &registries_d, "other@example.com", "configured", &plain);
    refused(&umiak, &strict, &plain, "which is not trusted");
    let theirs = of_repository(&signatures, "test/configured");
    std::fs::remove_file(theirs.join("signature-1")).unwrap();
    refused(&umiak, &strict, &plain, "which has none");
    let ours = of_repository(&signatures, "test/busybox");
    std::fs::copy(ours.join("signature-1"), theirs.join("signature-1")).unwrap();
    refused(&umiak, &strict, &plain, "a signature is for sha256:");
    let digest_of_theirs =
        theirs.file_name().unwrap().to_str().unwrap().split('=').nth(1).unwrap().to_owned();
    let stolen = gpg.sign("good@example.com", &[], &name, &format!("sha256:{digest_of_theirs}"));
    std::fs::write(theirs.join("signature-1"), stolen).unwrap();
    refused(&umiak, &strict, &plain, "is for the name");

    // A byte that is another, a signature that is cut, one of a key whose time is over, and one that will do behind them.
    let good = std::fs::read(ours.join("signature-1")).unwrap();
    for at in [0, 3, good.len() / 2, good.len() - 3] {
        let mut changed = good.clone();
        changed[at] ^= 0x21;
        std::fs::write(ours.join("signature-1"), &changed).unwrap();
        refused(&umiak, &strict, &name, "demands");
    }
    std::fs::write(ours.join("signature-1"), &good[..good.len() - 9]).unwrap();
    refused(&umiak, &strict, &name, "is cut off");
    let at = |time| ["--faked-system-time", time];
    let old_key = gpg.key("old@example.com", &at("20200101T000000"), "ed25519", "1d");
    // Later than the key, whose making may take seconds: a clock that is told goes on.
    let old = gpg.sign("old@example.com", &at("20200101T010000"), &name, &digest);
    std::fs::write(ours.join("signature-1"), &old).unwrap();
    refused(&umiak, &policy(&umiak, &signed_by(&old_key)), &name, "has expired");
    std::fs::write(ours.join("signature-2"), &good).unwrap();
    pull(&umiak, &policy(&umiak, &signed_by(&key)), &name).ok();
}

#[test]
fn what_a_sigstore_key_has_signed() {
    requires!(
        Need::Image("busybox"),
        Need::Tool("docker-registry"),
        Need::Tool("skopeo"),
        Need::Tool("openssl")
    );
    let umiak = Umiak::new();
    let registry = Registry::start(&umiak);
    let name = registry.push("busybox");
    let (_, registries_d) = lookaside(&umiak, "    use-sigstore-attachments: true\n");
    let openssl = |args: &[&str]| {
        let output =
            Command::new(tool("openssl").unwrap()).args(args).current_dir(&umiak.dir).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let kinds: [(&str, &[&str]); 3] = [
        ("p256", &["EC", "-pkeyopt", "ec_paramgen_curve:P-256"]),
        ("p384", &["EC", "-pkeyopt", "ec_paramgen_curve:P-384"]),
        ("rsa", &["RSA", "-pkeyopt", "rsa_keygen_bits:2048"]),
    ];
    for (key, kind) in kinds {
        openssl(&[&["genpkey", "-out", &format!("{key}.key"), "-algorithm"], kind].concat());
        openssl(&["pkey", "-in", &format!("{key}.key"), "-pubout", "-out", &format!("{key}.pub")]);
    }
    let requirement = |key: &str, more: &str| {
        let path = umiak.dir.join(format!("{key}.pub"));
        format!("{{\"type\":\"sigstoreSigned\",\"keyPath\":\"{}\"{more}}}", path.display())
    };
    let repository = r#","signedIdentity":{"type":"matchRepository"}"#;
    let strict = policy(&umiak, &requirement("p256", repository));
    refused(&umiak, &strict, &name, "which has none");

    // What the manifest is.
    let accept = "{\"type\":\"insecureAcceptAnything\"}";
    let id = pull(&umiak, &policy(&umiak, accept), &name).ok().stdout;
    let digest = umiak.run(&["image", "inspect", "--format", "{{.Digest}}", id.trim()]).ok().stdout;
    let digest: Digest = digest.trim().parse().unwrap();
    umiak.run(&["rmi", "-a", "-f"]).ok();
    let bare = name.rsplit_once(':').unwrap().0;
    let attach = |key: &str, reference: &str, manifest: &Digest, change: fn(&mut Vec<u8>)| {
        let payload = format!(
            r#"{{"critical":{{"identity":{{"docker-reference":"{reference}"}},"image":{{"docker-manifest-digest":"{manifest}"}},"type":"cosign container image signature"}},"optional":null}}"#
        );
        let file = umiak.file("payload", &payload);
        let signature = openssl(&["dgst", "-sha256", "-sign", &format!("{key}.key"), file.to_str().unwrap()]);
        let mut payload = payload.into_bytes();
        change(&mut payload);
        upload_attachment(bare, &digest, &payload, &signature);
    };
    for key in ["p256", "p384", "rsa"] {
        attach(key, bare, &digest, |_| {});
        pull(&umiak, &policy(&umiak, &requirement(key, repository)), &name).ok();
        umiak.run(&["rmi", "-a", "-f"]).ok();
    }
    attach("p256", bare, &digest, |_| {});
    // Without a tag in the signature only the repository can be demanded.
    refused(&umiak, &policy(&umiak, &requirement("p256", "")), &name, "is for the name");
    refused(&umiak, &policy(&umiak, &requirement("p384", repository)), &name, "not made by the key");
    refused(&umiak, &policy(&umiak, &requirement("rsa", repository)), &name, "not made by the key");
    attach("p256", &name, &digest, |_| {});
    pull(&umiak, &policy(&umiak, &requirement("p256", "")), &name).ok();
    umiak.run(&["rmi", "-a", "-f"]).ok();
    attach("p256", "other.example.com/test/busybox", &digest, |_| {});
    let strict = policy(&umiak, &requirement("p256", repository));
    refused(&umiak, &strict, &name, "is for the name");
    attach("p256", bare, &Digest::of(b"another"), |_| {});
    refused(&umiak, &strict, &name, "a signature is for sha256:");
    attach("p256", bare, &digest, |payload| payload.push(b' '));
    refused(&umiak, &strict, &name, "not made by the key");
    attach("p256", bare, &digest, |_| {});
    std::fs::write(registries_d.join("default.yaml"), "default-docker:\n").unwrap();
    refused(&umiak, &strict, &name, "which has none");
    let rekor = policy(&umiak, &requirement("p256", ",\"rekorPublicKeyPath\":\"/x\""));
    refused(&umiak, &rekor, &name, "not supported yet");
}

/// Stores a signature as cosign does.
fn upload_attachment(repository: &str, digest: &Digest, payload: &[u8], signature: &[u8]) {
    use base64::Engine as _;
    let reference = format!("{repository}:x").parse().unwrap();
    let options = registry::Options { tls_verify: Some(false), ..registry::Options::default() };
    let registry = registry::Registry::to_push(&reference, &options).unwrap();
    let config = b"{}";
    for blob in [&config[..], payload] {
        let content = Content {
            digest: Digest::of(blob),
            size: blob.len() as u64,
            open: &|| Ok(Box::new(std::io::Cursor::new(blob.to_vec()))),
        };
        registry.upload(&content, None, &|_| {}).unwrap();
    }
    let signature = base64::engine::general_purpose::STANDARD.encode(signature);
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": Digest::of(config), "size": 2 },
        "layers": [{
            "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
            "digest": Digest::of(payload), "size": payload.len(),
            "annotations": { "dev.cosignproject.cosign/signature": signature },
        }],
    });
    let tag = format!("sha256-{}.sig", digest.hex());
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    registry.put_manifest(&tag, media_type, manifest.to_string().as_bytes()).unwrap();
}

#[test]
fn what_is_loaded_answers_to_the_policy_too() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::new();
    let own = umiak.dir.join("home/.config/containers");
    std::fs::create_dir_all(&own).unwrap();
    let say = |text: &str| std::fs::write(own.join("policy.json"), text).unwrap();
    let archive = images().join("busybox-docker.tar").display().to_string();
    let layout = images().join("busybox").display().to_string();
    let all = [
        &["load", "-q", "-i", &archive][..],
        &["load", "-q", "-i", &layout],
        &["pull", "-q", &format!("oci:{layout}")],
    ];
    say("{\"default\":[{\"type\":\"reject\"}]}");
    for command in all {
        umiak.run(command).exits(125).tells("forbids");
    }
    say("{");
    for command in all {
        umiak.run(command).exits(125).tells("parsing the policy");
    }
    // By transport, and by the path of a layout.
    say(&format!(
        "{{\"default\":[{{\"type\":\"reject\"}}],\"transports\":{{\"docker-archive\":{{\"\":[{{\"type\":\"insecureAcceptAnything\"}}]}},\
         \"oci\":{{\"{layout}\":[{{\"type\":\"insecureAcceptAnything\"}}]}}}}}}"
    ));
    for command in all {
        umiak.run(command).ok();
    }
    umiak
        .run(&["load", "-q", "-i", images().join("busybox.tar").to_str().unwrap()])
        .exits(125)
        .tells("forbids");
}

#[test]
fn artifacts_answer_to_the_policy_too() {
    requires!(Need::Image("busybox"), Need::Tool("docker-registry"), Need::Tool("skopeo"));
    let umiak = Umiak::new();
    let registry = Registry::start(&umiak);
    let own = umiak.dir.join("home/.config/containers");
    std::fs::create_dir_all(&own).unwrap();
    let file = umiak.file("file.txt", "content").display().to_string();
    let name = format!("{}/test/artifact:1", registry.address);
    umiak.run(&["artifact", "add", &name, &file]).ok();
    umiak.run(&["artifact", "push", "--tls-verify=false", &name]).ok();
    umiak.run(&["artifact", "rm", &name]).ok();
    std::fs::write(own.join("policy.json"), "{\"default\":[{\"type\":\"reject\"}]}").unwrap();
    umiak.run(&["artifact", "pull", "--tls-verify=false", &name]).exits(125).tells("forbids");
    std::fs::remove_file(own.join("policy.json")).unwrap();
    umiak.run(&["artifact", "pull", "--tls-verify=false", &name]).ok();
}

#[test]
fn the_policy_is_shown_and_changed() {
    let umiak = Umiak::new();
    let own = umiak.dir.join("home/.config/containers/policy.json");
    let key = umiak.file("key.pub", "nonsense").display().to_string();
    let (_, registries_d) = lookaside(&umiak, "");
    let file = umiak.file("p.json", "{\"default\":[{\"type\":\"reject\"}],\"transports\":{\"docker\":{\"a.io\":[{\"type\":\"insecureAcceptAnything\"}]}}}");
    let file = file.to_str().unwrap();
    let set = |args: &[&str]| umiak.run(&[&["image", "trust", "set", "--policypath", file], args].concat());
    set(&["-f", &key, "b.io/x"]).ok().says("");
    set(&["-t", "sigstoreSigned", "-f", &key, "c.io"]).ok();
    set(&["-t", "reject", "*.d.io"]).ok();
    set(&["-t", "accept", "default"]).ok();
    for (bad, why) in [
        (&["b.io"][..], "needs a public key"),
        (&["-t", "reject", "-f", &key, "b.io"], "takes no public key"),
        (&["-t", "trust", "b.io"], "not a type of trust"),
        (&["-t", "accept", "no scope"], "neither"),
        (&["-f", "/no/such/key", "b.io"], "/no/such/key"),
    ] {
        set(bad).exits(125).tells(why);
    }
    let show =
        ["image", "trust", "show", "--policypath", file, "--registrypath", registries_d.to_str().unwrap()];
    let store = format!("file://{}", umiak.dir.join("signatures").display());
    let table = umiak.run(&show).ok().stdout;
    let words: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words[0], ["TRANSPORT", "NAME", "TYPE", "ID", "STORE"]);
    assert_eq!(words[1], ["all", "default", "accept", &store]);
    assert_eq!(words[2], ["repository", "*.d.io", "reject", &store]);
    assert_eq!(words[3], ["repository", "a.io", "accept", &store]);
    assert_eq!(words[4], ["repository", "b.io/x", "signed", &store]);
    assert_eq!(words[5], ["repository", "c.io", "sigstoreSigned", "N/A", &store]);
    let json: serde_json::Value =
        serde_json::from_str(&umiak.run(&[&show[..], &["--json"]].concat()).ok().stdout).unwrap();
    assert_eq!(json[4]["gpg_id"], "N/A");
    assert_eq!(
        umiak.run(&[&show[..], &["--raw"]].concat()).ok().stdout,
        std::fs::read_to_string(file).unwrap()
    );
    // An ordinary user's own policy is made where there was none.
    if !rustix::process::geteuid().is_root() {
        umiak.run(&["image", "trust", "set", "-t", "reject", "quay.io"]).ok();
        umiak.run(&["pull", "quay.io/x"]).exits(125).tells("quay.io");
        assert!(std::fs::read_to_string(&own).unwrap().contains("quay.io"));
    }
    std::fs::write(file, "{").unwrap();
    umiak.run(&show).exits(125).tells("parsing the policy");
    set(&["-t", "accept", "b.io"]).exits(125).tells("parsing the policy");
}

/// Writes an ECDSA key as cosign and skopeo do, encrypted with a passphrase, and its public half.
const MAKE_KEY: &str = r#"
import base64, hashlib, json, subprocess, sys, os
import nacl.secret
def openssl(*args): return subprocess.run(["openssl", *args], check=True, capture_output=True).stdout
openssl("genpkey", "-out", "plain.key", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
openssl("pkey", "-in", "plain.key", "-pubout", "-out", "signer.pub")
der = openssl("pkcs8", "-topk8", "-nocrypt", "-in", "plain.key", "-outform", "DER")
salt, nonce = os.urandom(32), os.urandom(24)
key = hashlib.scrypt(b"sesame", salt=salt, n=32768, r=8, p=1, dklen=32, maxmem=1 << 26)
text = nacl.secret.SecretBox(key).encrypt(der, nonce).ciphertext
code = lambda data: base64.b64encode(data).decode()
body = json.dumps({"kdf": {"name": "scrypt", "params": {"N": 32768, "r": 8, "p": 1}, "salt": code(salt)},
    "cipher": {"name": "nacl/secretbox", "nonce": code(nonce)}, "ciphertext": code(text)})
label = "ENCRYPTED COSIGN PRIVATE KEY"
open("signer.key", "w").write(f"-----BEGIN {label}-----\n{code(body.encode())}\n-----END {label}-----\n")
"#;

/// Has openssl check all signatures beside an image by `signer.pub`; returns what was signed.
fn verify_attachment(umiak: &Umiak, name: &str) -> Vec<String> {
    use base64::Engine as _;
    let digest = umiak.run(&["image", "inspect", "--format", "{{.Digest}}", name]).ok().stdout;
    let tag = digest.trim().replace(':', "-") + ".sig";
    let reference = format!("{}:{tag}", name.rsplit_once(':').unwrap().0).parse().unwrap();
    let options = registry::Options { tls_verify: Some(false), ..registry::Options::default() };
    let registry = registry::Registry::new(&reference, &options).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&registry.root().unwrap().bytes).unwrap();
    let layers = manifest["layers"].as_array().unwrap();
    let checked = layers.iter().map(|layer| {
        let digest = layer["digest"].as_str().unwrap().parse().unwrap();
        let (media_type, size) = (String::new(), layer["size"].as_u64().unwrap());
        let descriptor = umiak::image::manifest::Descriptor { media_type, digest, size };
        let mut payload = String::new();
        registry.blob(&descriptor).unwrap().read_to_string(&mut payload).unwrap();
        let signature = layer["annotations"]["dev.cosignproject.cosign/signature"].as_str().unwrap();
        let signature = base64::engine::general_purpose::STANDARD.decode(signature).unwrap();
        std::fs::write(umiak.dir.join("signature"), signature).unwrap();
        let file = umiak.file("payload", &payload);
        let output = Command::new(tool("openssl").unwrap())
            .args(["dgst", "-sha256", "-verify", "signer.pub", "-signature", "signature"])
            .arg(file)
            .current_dir(&umiak.dir)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        payload
    });
    checked.collect()
}

#[test]
fn what_is_pushed_is_signed() {
    requires!(
        Need::Image("busybox"),
        Need::Tool("docker-registry"),
        Need::Tool("openssl"),
        Need::Tool("python3")
    );
    let umiak = Umiak::with_busybox();
    let registry = Registry::start(&umiak);
    lookaside(&umiak, "    use-sigstore-attachments: true\n");
    // Debian's own: it has Debian's modules.
    let made = Command::new("/usr/bin/python3").args(["-c", MAKE_KEY]).current_dir(&umiak.dir).output();
    let made = made.unwrap();
    if !made.status.success() {
        return skip(&format!("python3-nacl: {}", String::from_utf8_lossy(&made.stderr)), false);
    }
    let path = |name: &str| umiak.dir.join(name).display().to_string();
    let (key, good) = (path("signer.key"), umiak.file("good", "sesame\n").display().to_string());
    let bad = umiak.file("bad", "open").display().to_string();
    let name = format!("{}/signed/box:v1", registry.address);
    let push = |words: &[&str], to: &str| {
        let start = ["push", "-q", "--tls-verify=false", "--sign-by-sigstore-private-key"];
        umiak.run(&[&start, words, &["busybox", to]].concat())
    };
    // What cannot be signed is not pushed.
    push(&[&key, "--sign-passphrase-file", &bad], &name).exits(125).tells("passphrase is wrong");
    push(&[&key, "--sign-passphrase-file", "/nowhere"], &name).exits(125).tells("/nowhere");
    push(&[&key], &name).exits(125).tells("on a terminal only").hints("--sign-passphrase-file");
    push(&["/nowhere", "--sign-passphrase-file", &good], &name).exits(125).tells("/nowhere");
    push(&[&path("signer.pub"), "--sign-passphrase-file", &good], &name).exits(125).tells("no private key");
    push(&[&good, "--sign-passphrase-file", &good], &name).exits(125).tells("not PEM");
    let layout = format!("oci:{}", path("layout"));
    push(&[&key, "--sign-passphrase-file", &good], &layout)
        .exits(125)
        .tells("only what goes to a registry is signed");
    let there = |name: &str| umiak.run(&["search", "--tls-verify=false", "--list-tags", name]).code;
    assert_ne!(there(name.rsplit_once(':').unwrap().0), Some(0));
    push(&[&key, "--sign-passphrase-file", &good], &name).ok().says("");
    // Signed twice, under two names, both signatures count.
    let second = name.replace(":v1", ":v2");
    push(&[&path("plain.key"), "--sign-passphrase-file", &good], &second).ok();
    let requirement = format!("{{\"type\":\"sigstoreSigned\",\"keyPath\":\"{}\"}}", path("signer.pub"));
    let strict = policy(&umiak, &requirement);
    umiak.run(&["rmi", "-a", "-f"]).ok();
    for name in [&name, &second] {
        pull(&umiak, &strict, name).ok();
        let checked = verify_attachment(&umiak, name);
        assert!(checked.iter().any(|payload| payload.contains(&format!("\"{name}\""))), "{checked:?}");
    }
    // A name that it was not signed for is refused; so is what nobody signed.
    let third = name.replace(":v1", ":v3");
    umiak.run(&["push", "-q", "--tls-verify=false", &name, &third]).ok();
    umiak.run(&["rmi", "-a", "-f"]).ok();
    refused(&umiak, &strict, &third, "is for the name");
    // Lists and artifacts are signed as well.
    pull(&umiak, &strict, &name).ok();
    let list = format!("{}/signed/list:v1", registry.address);
    umiak.run(&["manifest", "create", "l"]).ok();
    umiak.run(&["manifest", "add", "l", &name]).ok();
    let words =
        ["--tls-verify=false", "--sign-by-sigstore-private-key", &key, "--sign-passphrase-file", &good];
    umiak.run(&[&["manifest", "push"], &words[..], &["l", &list]].concat()).ok();
    umiak.run(&["artifact", "add", "a", &good]).ok();
    let artifact = format!("{}/signed/artifact:v1", registry.address);
    umiak.run(&[&["artifact", "push", "-q"], &words[..], &["a", &artifact]].concat()).ok();
    for name in [list, artifact] {
        let bare = name.rsplit_once(':').unwrap().0;
        let tags = umiak.run(&["search", "--tls-verify=false", "--list-tags", bare]).ok().stdout;
        assert!(tags.contains(".sig"), "{tags}");
    }
}
