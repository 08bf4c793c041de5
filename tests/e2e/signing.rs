//! Signatures of GnuPG's that we make: with the keys that its agent holds, checked by gpg, by skopeo and by us.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::requires;
use crate::support::{Need, Output, Registry, Umiak, finish, tool};
use crate::trust::{Gpg, lookaside, of_repository, policy, pull, refused, signed_by};

/// Runs umiak with that GnuPG.
fn with(umiak: &Umiak, gpg: &Gpg, args: &[&str]) -> Output {
    let mut command = umiak.command(args);
    command.env("GNUPGHOME", &gpg.0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    finish(command.spawn().unwrap(), b"", args.join(" "))
}

/// Whether skopeo finds the signature good.
fn skopeo_verifies(gpg: &Gpg, manifest: &Path, name: &str, fingerprint: &str, signature: &Path) {
    let output = Command::new(tool("skopeo").unwrap())
        .arg("standalone-verify")
        .args([manifest.as_os_str(), name.as_ref(), fingerprint.as_ref(), signature.as_os_str()])
        .env("GNUPGHOME", &gpg.0)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn fingerprint(gpg: &Gpg, user: &str) -> String {
    let listed = String::from_utf8(gpg.run(&["--with-colons", "--list-secret-keys", user], b"")).unwrap();
    let line = listed.lines().find(|line| line.starts_with("fpr:")).unwrap();
    line.split(':').nth(9).unwrap().to_owned()
}

fn signatures_in(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    found.sort();
    found
}

#[test]
fn what_is_pushed_is_signed_by_gnupgs_agent() {
    requires!(Need::Image("busybox"), Need::Tool("docker-registry"), Need::Tool("skopeo"), Need::Tool("gpg"));
    let umiak = Umiak::with_image("busybox");
    let registry = Registry::start(&umiak);
    let gpg = Gpg::new(&umiak);
    let (signatures, _) = lookaside(&umiak, "");
    let users = [
        ("Ann <ann@example.com>", "rsa3072"),
        ("Ben <ben@example.com>", "ed25519"),
        ("Cy <cy@example.com>", "nistp256"),
    ];
    for (user, kind) in users {
        let key = gpg.key(user, &[], kind, "never");
        let print = fingerprint(&gpg, user);
        let name = format!("{}/signed/{kind}:1", registry.address);
        // By its name and by its fingerprint: two signatures, one behind the other.
        for by in [user, &print] {
            let push = ["push", "-q", "--tls-verify=false", "--sign-by", by, "busybox", &name];
            with(&umiak, &gpg, &push).ok();
        }
        let dir = of_repository(&signatures, &format!("signed/{kind}"));
        let files = signatures_in(&dir);
        assert_eq!(files, [dir.join("signature-1"), dir.join("signature-2")]);
        for file in &files {
            let text = gpg.run(&["--decrypt", file.to_str().unwrap()], b"");
            assert!(String::from_utf8(text).unwrap().contains(&name), "{kind}");
        }
        let digest = umiak.run(&["image", "inspect", "--format", "{{.Digest}}", "busybox"]).ok().stdout;
        assert!(
            dir.to_str().unwrap().ends_with(&digest.trim().replace("sha256:", "sha256=")),
            "{dir:?} {digest}"
        );
        // A store that lets in what Ann, Ben or Cy has signed, and nothing else.
        let other = Umiak::new();
        lookaside_of(&other, &signatures);
        pull(&other, &policy(&other, &signed_by(&key)), &name).ok();
    }
}

/// Another user with the same signatures.
fn lookaside_of(umiak: &Umiak, signatures: &Path) {
    let (_, dir) = lookaside(umiak, "");
    let text = format!("default-docker:\n    lookaside: file://{}\n", signatures.display());
    std::fs::write(dir.join("default.yaml"), text).unwrap();
}

#[test]
fn what_a_registry_has_is_signed() {
    requires!(Need::Image("busybox"), Need::Tool("docker-registry"), Need::Tool("skopeo"), Need::Tool("gpg"));
    let umiak = Umiak::with_image("busybox");
    let registry = Registry::start(&umiak);
    let gpg = Gpg::new(&umiak);
    lookaside(&umiak, "");
    // Its key has a passphrase, and a subkey that signs.
    gpg.run(
        &[
            "--pinentry-mode",
            "loopback",
            "--passphrase",
            "secret",
            "--quick-generate-key",
            "dora@example.com",
            "ed25519",
            "cert",
            "never",
        ],
        b"",
    );
    let print = fingerprint(&gpg, "dora@example.com");
    gpg.run(
        &[
            "--pinentry-mode",
            "loopback",
            "--passphrase",
            "secret",
            "--quick-add-key",
            &print,
            "rsa3072",
            "sign",
            "never",
        ],
        b"",
    );
    let key = umiak.dir.join("dora.pub");
    std::fs::write(&key, gpg.run(&["--export", "dora@example.com"], b"")).unwrap();
    let name = format!("{}/later/box:2", registry.address);
    umiak.run(&["push", "-q", "--tls-verify=false", "busybox", &name]).ok();
    let list = format!("{}/later/list:1", registry.address);
    umiak.run(&["manifest", "create", "several", "busybox"]).ok();
    umiak
        .run(&[
            "manifest",
            "push",
            "-q",
            "--all",
            "--tls-verify=false",
            "several",
            &format!("docker://{list}"),
        ])
        .ok();
    let passphrase = umiak.file("passphrase", "secret\n").display().to_string();
    let own = umiak.dir.join("own");
    let sign = |user: &str, file: &str, more: &[&str], name: &str| {
        let front = ["image", "sign", "--tls-verify=false", "--directory", own.to_str().unwrap()];
        let source = format!("docker://{name}");
        let args = [&front[..], more, &["--sign-by", user, "--sign-passphrase-file", file, &source]].concat();
        with(&umiak, &gpg, &args)
    };
    // The agent keeps a passphrase that it once had.
    let reload = || {
        let mut command = Command::new("gpg-connect-agent");
        command.arg("--homedir").arg(&gpg.0).args(["RELOADAGENT", "/bye"]);
        let status = command.stdout(Stdio::null()).status();
        assert!(status.unwrap().success());
    };
    reload();
    let wrong = umiak.file("wrong", "guess").display().to_string();
    sign("dora@example.com", &wrong, &[], &name).exits(125).tells("gpg-agent refuses: Bad passphrase");
    assert!(!own.exists());
    sign(&print, &passphrase, &[], &name).ok();
    let signature = of_repository(&own, "later/box").join("signature-1");
    let raw = umiak.dir.join("raw");
    let copied = Command::new(tool("skopeo").unwrap())
        .args(["inspect", "--raw", "--tls-verify=false", &format!("docker://{name}")])
        .env("HOME", &umiak.dir)
        .output()
        .unwrap();
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    std::fs::write(&raw, copied.stdout).unwrap();
    skopeo_verifies(&gpg, &raw, &name, &subkey(&gpg), &signature);
    // Each image of a list, and the list.
    sign("dora", &passphrase, &["--all"], &list).ok();
    let entries = std::fs::read_dir(own.join("later")).unwrap().flatten();
    let of_list = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("list@")).count();
    assert_eq!(of_list, 2);
    // What is signed there is let in.
    let other = Umiak::new();
    lookaside_of(&other, &own);
    let strict = policy(&other, &signed_by(&key));
    pull(&other, &strict, &name).ok();
    other.run(&["rmi", "-a", "-f"]).ok();
    let bare = format!("{}/later/bare:1", registry.address);
    umiak.run(&["push", "-q", "--tls-verify=false", "busybox", &bare]).ok();
    refused(&other, &strict, &bare, "which has none");
}

/// What skopeo calls the key that signed: the subkey's fingerprint.
fn subkey(gpg: &Gpg) -> String {
    let listed = String::from_utf8(gpg.run(&["--with-colons", "--list-secret-keys"], b"")).unwrap();
    let prints: Vec<&str> = listed.lines().filter(|line| line.starts_with("fpr:")).collect();
    prints.last().unwrap().split(':').nth(9).unwrap().to_owned()
}

#[test]
fn what_cannot_sign() {
    requires!(Need::Image("busybox"), Need::Tool("docker-registry"), Need::Tool("gpg"));
    let umiak = Umiak::with_image("busybox");
    let registry = Registry::start(&umiak);
    let gpg = Gpg::new(&umiak);
    let name = format!("{}/unsigned/box:1", registry.address);
    let push = |by: &str, more: &[&str], target: &str| {
        with(
            &umiak,
            &gpg,
            &[&["push", "-q", "--tls-verify=false", "--sign-by", by], more, &["busybox", target]].concat(),
        )
    };
    push("nobody@example.com", &[], &name)
        .exits(125)
        .tells("has no such key that may sign")
        .hints("list-secret-keys");
    gpg.key("eve@example.com", &[], "ed25519", "never");
    // An old key, and one that only certifies.
    gpg.run(
        &["--passphrase", "", "--quick-generate-key", "old@example.com", "ed25519", "cert", "never"],
        b"",
    );
    push("old@example.com", &[], &name).exits(125).tells("has no such key that may sign");
    push("eve@example.com", &[], "dir:copy").exits(125).tells("only what goes to a registry is signed");
    push("eve@example.com", &["--sign-passphrase-file", "no-such"], &name).exits(125).tells("no-such");
    umiak
        .run(&["push", "--sign-passphrase-file", "/dev/null", "busybox", &name])
        .exits(125)
        .tells("which key signs");
    // Where signatures go cannot be written to from here.
    let (signatures, dir) = lookaside(&umiak, "");
    std::fs::write(dir.join("default.yaml"), "default-docker:\n    lookaside: https://sig.example.com\n")
        .unwrap();
    push("eve@example.com", &[], &name).exits(125).tells("which is no directory").hints("lookaside-staging");
    let staging = format!(
        "default-docker:\n    lookaside: https://sig.example.com\n    lookaside-staging: file://{}\n",
        signatures.display()
    );
    std::fs::write(dir.join("default.yaml"), staging).unwrap();
    push("eve@example.com", &[], &name).ok();
    assert_eq!(signatures_in(&of_repository(&signatures, "unsigned/box")).len(), 1);
    umiak.run(&["image", "sign", &name]).exits(125).tells("--sign-by");
    with(&umiak, &gpg, &["image", "sign", "--sign-by", "eve", "oci:/x"])
        .exits(125)
        .tells("only images of a registry");
    // A keybox that is damaged, and an agent that is not there: at a home of their own.
    let home = umiak.dir.join("g2");
    std::fs::create_dir(&home).unwrap();
    std::fs::copy(gpg.0.join("pubring.kbx"), home.join("pubring.kbx")).unwrap();
    let lonely = Gpg(home.clone());
    let args = ["push", "-q", "--tls-verify=false", "--sign-by", "eve@example.com", "busybox", &name];
    with(&umiak, &lonely, &args)
        .exits(125)
        .tells("gpg-agent does not answer")
        .hints("gpgconf --launch gpg-agent");
    let whole = std::fs::read(home.join("pubring.kbx")).unwrap();
    std::fs::write(home.join("pubring.kbx"), &whole[..whole.len() - 7]).unwrap();
    with(&umiak, &lonely, &args).exits(125).tells("it is damaged");
}
