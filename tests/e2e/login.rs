//! `login` and `logout`: who is asked, what is written, what is told.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::requires;
use crate::support::{Need, Registry, Terminal, Umiak};

fn auths(path: &Path) -> serde_json::Value {
    let value: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    value["auths"].clone()
}

#[test]
fn in_and_out() {
    requires!(Need::Image("busybox"), Need::Tool("docker-registry"), Need::Tool("skopeo"));
    let umiak = Umiak::with_busybox();
    let registry = Registry::start_with_password(&umiak);
    let host = registry.address.as_str();
    let file = umiak.dir.join("run/containers/auth.json");
    let login = |more: &[&str], input: &str| {
        umiak.run_with_input(&[&["login", "--tls-verify=false"], more, &[host]].concat(), input.as_bytes())
    };
    umiak.run(&["login", "--get-login", host]).exits(125).tells("not logged in");
    let wrong = login(&["-u", "user", "-p", "wrongword"], "").exits(125).tells("denies access");
    assert!(!wrong.stderr.contains("wrongword") && !file.exists(), "{}", wrong.stderr);
    login(&["-u", "user"], "").exits(125).tells("terminal").hints("--password-stdin");
    login(&["--password-stdin"], "pass:word\n").exits(125).tells("--username");
    login(&["-u", "user", "--password-stdin", "-p", "x"], "x").exits(125);
    login(&["-u", "user", "--password-stdin"], "pass:word\n").ok().says("Login Succeeded!").quiet();
    assert_eq!(auths(&file), serde_json::json!({ host: { "auth": "dXNlcjpwYXNzOndvcmQ=" } }));
    assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(std::fs::read_dir(file.parent().unwrap()).unwrap().count(), 1);
    umiak.run(&["login", "--get-login", host]).ok().says("user");
    // It is good for pulls and pushes, ours and others'.
    let name = format!("{host}/a/busybox");
    umiak.run(&["push", "-q", "--tls-verify=false", "busybox", &name]).ok();
    let skopeo = std::process::Command::new("skopeo")
        .args(["inspect", "--tls-verify=false", &format!("docker://{name}"), "--authfile"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(skopeo.status.success(), "{}", String::from_utf8_lossy(&skopeo.stderr));
    login(&[], "").ok().has("Existing credentials are valid. Already logged in to");
    umiak.run(&["logout", host]).ok().says(&format!("Removed login credentials for {host}"));
    assert_eq!(auths(&file), serde_json::json!({}));
    umiak.run(&["logout", host]).exits(125).tells("not logged in");
    umiak.run(&["push", "-q", "--tls-verify=false", "busybox", &name]).exits(125);

    // Files of other names and forms.
    let other = umiak.dir.join("other.json");
    login(&["-v", "-u", "user", "-p", "pass:word", "--authfile", other.to_str().unwrap()], "")
        .ok()
        .has("other.json");
    let docker = umiak.dir.join("config.json");
    let compat = ["--compat-auth-file", docker.to_str().unwrap()];
    login(&[&["-u", "user", "-p", "pass:word"], &compat[..]].concat(), "").ok();
    assert!(auths(&other)[host].is_object() && auths(&docker)[host].is_object());
    umiak.run(&[&["logout"], &compat[..], &[host]].concat()).ok();
    umiak.run(&["logout", "--all", "--authfile", other.to_str().unwrap()]).ok().has("all registries");
    assert_eq!((auths(&other), auths(&docker)), (serde_json::json!({}), serde_json::json!({})));
    // A part of a registry.
    let team = format!("{host}/team");
    umiak.run(&["login", "--tls-verify=false", "-u", "user", "-p", "pass:word", &team]).ok();
    umiak.run(&["push", "-q", "--tls-verify=false", "busybox", &format!("{team}/x")]).ok();
    umiak.run(&["push", "-q", "--tls-verify=false", "busybox", &format!("{host}/else/x")]).exits(125);
    umiak.run(&["login", "-u", "a", "-p", "b", "127.0.0.1:1"]).exits(125).tells("connection refused");
    umiak.run(&["login", "-u", "a", "-p", "b", "not a host"]).exits(125).tells("not the name of a registry");
    // What cannot be understood is not overwritten.
    std::fs::write(&other, "{ torn").unwrap();
    login(&["-u", "user", "-p", "pass:word", "--authfile", other.to_str().unwrap()], "")
        .exits(125)
        .tells("other.json");
    assert_eq!(std::fs::read_to_string(&other).unwrap(), "{ torn");
}

#[test]
fn asked_on_a_terminal() {
    requires!(Need::Tool("docker-registry"));
    let umiak = Umiak::new();
    let registry = Registry::start_with_password(&umiak);
    let mut terminal = Terminal::start(&umiak, &["login", "--tls-verify=false", &registry.address]);
    terminal.expect("Username: ");
    terminal.send(b"user\n");
    terminal.expect("Password: ");
    // Shown only if it is typed before it is hidden.
    std::thread::sleep(std::time::Duration::from_millis(200));
    terminal.send(b"pass:word\n");
    terminal.expect("Login Succeeded!");
    let (code, shown) = terminal.wait();
    assert_eq!(code, Some(0));
    assert!(!shown.contains("pass:word"), "{shown:?}");
}

#[test]
fn helpers_keep_what_they_are_configured_for() {
    use std::os::unix::fs::PermissionsExt;
    requires!(Need::Tool("docker-registry"));
    let mut umiak = Umiak::new();
    let registry = Registry::start_with_password(&umiak);
    let host = registry.address.clone();
    let kept = umiak.dir.join("kept");
    let script = format!(
        "#!/bin/sh\ncase $1 in\nstore) cat > {kept};;\nget) [ -e {kept} ] && cat {kept} || {{ echo credentials not found; exit 1; }};;\n\
         erase) rm {kept};;\nesac\n",
        kept = kept.display()
    );
    let program = umiak.file("docker-credential-box", &script);
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    umiak.set_env("PATH", &format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", umiak.dir.display()));
    let file = umiak.dir.join("run/containers/auth.json");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, format!("{{\"credHelpers\":{{\"{host}\":\"box\"}}}}")).unwrap();
    umiak.run(&["login", "--tls-verify=false", "-u", "user", "-p", "pass:word", &host]).ok();
    let text = std::fs::read_to_string(&kept).unwrap();
    assert!(text.contains("pass:word") && text.contains(&host), "{text}");
    assert!(!std::fs::read_to_string(&file).unwrap().contains("auths"));
    umiak.run(&["login", "--get-login", &host]).ok().says("user");
    umiak.run(&["logout", &host]).ok();
    assert!(!kept.exists());
    umiak.run(&["logout", &host]).exits(125).tells("not logged in");
    umiak.run(&["login", "--get-login", &host]).exits(125).tells("not logged in");
}
