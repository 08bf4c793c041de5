//! Registries: certificates, credentials, `registries.conf`, what a terminal shows of a pull.

use crate::requires;
use crate::support::{Need, Registry, Terminal, Umiak, skip};

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

#[test]
fn certificates_and_registries_conf_of_the_system() {
    requires!(
        Need::Root,
        Need::Image("busybox"),
        Need::Tool("docker-registry"),
        Need::Tool("skopeo"),
        Need::Tool("openssl"),
        Need::Tool("unshare")
    );
    if !std::path::Path::new("/etc/containers").is_dir() {
        return skip("needs the directory /etc/containers, which the package of podman makes", false);
    }
    let umiak = Umiak::new();
    let (registry, trusted) = Registry::start_self_signed(&umiak, "IP:127.0.0.1", false);
    registry.push("busybox");
    // In a mount namespace of its own with an empty /etc/containers.
    let script = format!(
        "mount -t tmpfs tmpfs /etc/containers && cd /etc/containers && \
         U=\"$UMIAK --root {dir}/store --runroot {dir}/run/umiak\" && \
         if $U pull -q {address}/test/busybox; then exit 3; fi; \
         mkdir -p certs.d/{address} registries.conf.d && cp {trusted}/server.crt certs.d/{address} && \
         $U pull -q {address}/test/busybox && \
         echo \"[aliases]\" > registries.conf && echo \"box='{address}/test/busybox'\" >> registries.conf && \
         $U pull -q box && printf '[[registry]]\\nlocation=\"{address}\"\\nblocked=true\\n' > registries.conf.d/no.conf && \
         if $U pull -q box; then exit 4; fi",
        dir = umiak.dir.display(),
        address = registry.address,
        trusted = trusted.display(),
    );
    let output = std::process::Command::new("unshare")
        .args(["--mount", "sh", "-c", &script])
        .env("UMIAK", Umiak::binary())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("nobody who is trusted") && text.contains("is blocked"), "{text}");
}

/// `AUTH` is base64 of `user:pass:word`.
const AUTH: &str = "dXNlcjpwYXNzOndvcmQ=";

#[test]
fn a_registry_with_a_password() {
    requires!(Need::Image("busybox"), Need::Tool("docker-registry"), Need::Tool("skopeo"));
    let mut umiak = Umiak::new();
    let registry = Registry::start_with_password(&umiak);
    let name = registry.push("busybox");
    let pull = |umiak: &Umiak, more: &[&str]| {
        let args = [&["pull", "-q", "--tls-verify=false"], more, &[&name]].concat();
        umiak.run(&args)
    };
    pull(&umiak, &[]).exits(125).tells("user and password are needed").hints("--creds");
    let wrong =
        pull(&umiak, &["--creds", "user:wrongword"]).exits(125).tells("denies access").hints("--creds");
    assert!(!wrong.stderr.contains("wrongword"), "{}", wrong.stderr);
    pull(&umiak, &["--creds", "user:pass:word"]).ok();

    let entry = format!("{{\"auths\":{{\"{}\":{{\"auth\":\"{AUTH}\"}}}}}}", registry.address);
    let file = umiak.file("auth.json", &entry);
    pull(&umiak, &["--authfile", file.to_str().unwrap()]).ok();
    pull(&umiak, &["--authfile", "/no/such/file"]).exits(125).tells("/no/such/file").hints("--creds");
    let torn = umiak.file("torn.json", &entry[..30]);
    pull(&umiak, &["--authfile", torn.to_str().unwrap()]).exits(125).tells("torn.json");

    // Wherever the files may be; one after the other, each taken away again.
    for place in ["run/containers/auth.json", "home/.config/containers/auth.json", "home/.docker/config.json"]
    {
        let path = umiak.dir.join(place);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &entry).unwrap();
        pull(&umiak, &[]).ok();
        std::fs::remove_file(&path).unwrap();
        pull(&umiak, &[]).exits(125);
    }
    umiak.set_env("REGISTRY_AUTH_FILE", file.to_str().unwrap());
    pull(&umiak, &[]).ok();
}

/// Makes a program `docker-credential-NAME` for the world and puts it on its PATH.
fn helper(umiak: &mut Umiak, name: &str, script: &str) {
    use std::os::unix::fs::PermissionsExt;
    let path = umiak.file(&format!("docker-credential-{name}"), &format!("#!/bin/sh\n{script}\n"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", umiak.dir.display());
    umiak.set_env("PATH", &path);
}

#[test]
fn credential_helpers() {
    requires!(Need::Image("busybox"), Need::Tool("docker-registry"), Need::Tool("skopeo"));
    let mut umiak = Umiak::new();
    let registry = Registry::start_with_password(&umiak);
    let name = registry.push("busybox");
    let host = registry.address.clone();
    let log = umiak.dir.join("asked");
    let good = format!(
        "[ \"$1\" = get ] || exit 9; read -r host; echo \"$host $(id -u)\" >> {}; [ \"$host\" = {host} ] || \
         {{ echo 'credentials not found in native keychain'; exit 1; }}; \
         printf '{{\"ServerURL\":\"%s\",\"Username\":\"user\",\"Secret\":\"pass:word\"}}' \"$host\"",
        log.display()
    );
    helper(&mut umiak, "good", &good);
    helper(&mut umiak, "locked", "echo 'the keyring is locked'; exit 1");
    helper(&mut umiak, "odd", "echo password");
    let config = |umiak: &Umiak, text: &str| {
        let dir = umiak.dir.join("home/.docker");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("config.json"), text).unwrap();
    };
    let pull = |umiak: &Umiak| umiak.run(&["pull", "-q", "--tls-verify=false", &name]);
    config(&umiak, &format!("{{\"credHelpers\":{{\"{host}\":\"good\"}}}}"));
    pull(&umiak).ok();
    // As the user, not as root of a user namespace.
    let own = rustix::process::getuid().as_raw();
    assert_eq!(std::fs::read_to_string(&log).unwrap(), format!("{host} {own}\n"));
    config(&umiak, "{\"credHelpers\":{\"other.example\":\"good\"}}");
    pull(&umiak).exits(125).tells("user and password are needed");
    assert_eq!(std::fs::read_to_string(&log).unwrap().lines().count(), 1, "a helper of another registry ran");
    config(&umiak, "{\"credsStore\":\"good\"}");
    pull(&umiak).ok();
    umiak.run(&["pull", "-q", "--tls-verify=false", &name.replace("127.0.0.1", "localhost")]).exits(125);
    assert!(std::fs::read_to_string(&log).unwrap().contains("localhost:"));
    config(&umiak, "{\"credsStore\":\"locked\"}");
    pull(&umiak).exits(125).tells("the keyring is locked");
    config(&umiak, "{\"credsStore\":\"odd\"}");
    let odd = pull(&umiak).exits(125).tells("not understood");
    assert!(!odd.stderr.contains("password"), "{}", odd.stderr);
    config(&umiak, "{\"credsStore\":\"absent\"}");
    pull(&umiak).exits(125).tells("docker-credential-absent").hints("credsStore");
    config(&umiak, "{\"credsStore\":\"../../bin/sh\"}");
    pull(&umiak).exits(125).tells("not the name of a credential helper");
    // By registries.conf, before the files.
    let conf = umiak.file("registries.conf", "credential-helpers = [\"good\", \"containers-auth.json\"]\n");
    umiak.set_env("CONTAINERS_REGISTRIES_CONF", conf.to_str().unwrap());
    pull(&umiak).ok();
}

#[test]
fn what_registries_conf_says() {
    requires!(Need::Image("busybox"), Need::Tool("docker-registry"), Need::Tool("skopeo"));
    let mut umiak = Umiak::new();
    let registry = Registry::start(&umiak);
    registry.push("busybox");
    let address = registry.address.clone();
    // Bound and dropped: nobody listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let dead = format!("127.0.0.1:{port}");
    let conf = umiak.file("registries.conf", "");
    umiak.set_env("CONTAINERS_REGISTRIES_CONF", conf.to_str().unwrap());
    let say = |text: &str| std::fs::write(&conf, text).unwrap();
    let names = |umiak: &Umiak| umiak.run(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).ok().stdout;

    // Insecure without an option; the option on the command line goes before it.
    say(&format!("[[registry]]\nlocation = '{address}'\ninsecure = true\n"));
    let name = format!("{address}/test/busybox");
    umiak.run(&["pull", "-q", "--tls-verify=true", &name]).exits(125);
    umiak.run(&["pull", "-q", &name]).ok();
    umiak.run(&["rmi", &name]).ok();
    // A mirror that is down, one that works: the image has the name that was asked for.
    say(&format!(
        "[[registry]]\nprefix = '*.example.com'\n[[registry.mirror]]\nlocation = '{dead}'\n\
         [[registry.mirror]]\nlocation = '{address}'\ninsecure = true\n"
    ));
    umiak.run(&["pull", "-q", "www.example.com/test/busybox"]).ok();
    assert_eq!(names(&umiak), "www.example.com/test/busybox:latest\n");
    umiak.run(&["run", "--rm", "--network", "none", "www.example.com/test/busybox", "true"]).ok();
    umiak.run(&["rmi", "www.example.com/test/busybox"]).ok();
    // The mirrors fail: the registry itself serves.
    say(&format!(
        "[[registry]]\nlocation = '{address}'\ninsecure = true\nmirror = [{{location = '{dead}/m', insecure = true}}]\n"
    ));
    umiak.run(&["pull", "-q", &name]).ok();
    umiak.run(&["rmi", &name]).ok();
    // A short name by an alias and by the list, each from a location of another name.
    say(&format!(
        "unqualified-search-registries = ['{dead}', 'search.example.com']\n[aliases]\nbox = 'a.example.com/x/busybox'\n\
         [[registry]]\nprefix = 'a.example.com/x'\nlocation = '{address}/test'\ninsecure = true\n\
         [[registry]]\nprefix = 'search.example.com'\nlocation = '{address}'\ninsecure = true\n"
    ));
    umiak.run(&["pull", "-q", "box"]).ok();
    assert_eq!(names(&umiak), "a.example.com/x/busybox:latest\n");
    umiak.run(&["pull", "-q", "test/busybox"]).ok();
    assert!(names(&umiak).contains("search.example.com/test/busybox:latest"), "{}", names(&umiak));
    // What Podman has asked a person once, for an ordinary user.
    if !rustix::process::geteuid().is_root() {
        let cache = umiak.dir.join("home/.cache/containers");
        std::fs::create_dir_all(&cache).unwrap();
        let chosen = format!("[aliases]\n\"chosen\" = \"{address}/test/busybox\"\n");
        std::fs::write(cache.join("short-name-aliases.conf"), chosen).unwrap();
        umiak.run(&["pull", "-q", "--tls-verify=false", "chosen"]).ok();
        assert!(names(&umiak).contains(&format!("{address}/test/busybox:latest")), "{}", names(&umiak));
        umiak.run(&["untag", &format!("{address}/test/busybox"), &format!("{address}/test/busybox")]).ok();
    }
    // By name of what is here.
    let id = umiak.run(&["pull", "-q", "containers-storage:a.example.com/x/busybox"]).ok().stdout;
    umiak.run(&["pull", "-q", &format!("containers-storage:@{}", id.trim())]).ok().says(id.trim());
    umiak.run(&["pull", "containers-storage:nothing"]).exits(125).tells("no image \"nothing\"");
    umiak.run(&["pull", "containers-storage:[overlay@/x]a"]).exits(125).tells("not supported yet");
    // What is forbidden, what is ambiguous, what is wrong.
    say(&format!("[[registry]]\nlocation = '{address}'\nblocked = true\n"));
    umiak.run(&["pull", &name]).exits(125).tells("is blocked").tells(&address);
    umiak.run(&["run", "--rm", &name, "true"]).exits(125).tells("is blocked");
    say(
        "short-name-mode = 'enforcing'\nunqualified-search-registries = ['a.example.com', 'b.example.com']\n",
    );
    umiak
        .run(&["pull", "one/two"])
        .exits(125)
        .tells("a.example.com/one/two or b.example.com/one/two")
        .hints("full name");
    say("[[registry]\n");
    umiak.run(&["pull", &name]).exits(125).tells("registries.conf").tells("line 1");
    // It is read for pulls alone.
    umiak.run(&["run", "--rm", "--network", "none", "a.example.com/x/busybox", "true"]).ok();
}

#[test]
fn progress_on_a_terminal_and_elsewhere() {
    requires!(Need::Image("busybox"), Need::Tool("docker-registry"), Need::Tool("skopeo"));
    let umiak = Umiak::new();
    let registry = Registry::start(&umiak);
    let name = registry.push("busybox");
    let pull = ["pull", "--tls-verify=false", &name];
    let (code, shown) = Terminal::start(&umiak, &pull).wait();
    assert_eq!(code, Some(0), "{shown:?}");
    let id = umiak.run(&["images", "-q", "--no-trunc"]).ok().stdout;
    let id = id.trim().trim_start_matches("sha256:");
    // A bar that came to its end, and at the end the id on a line of its own, the cursor visible.
    assert!(shown.contains("\u{1b}[") && shown.contains('█') && shown.contains("MB"), "{shown:?}");
    assert!(shown.ends_with(&format!("\n{id}\r\n")), "{shown:?}");
    assert!(shown.rfind("\u{1b}[?25l") <= shown.rfind("\u{1b}[?25h"), "the cursor stays hidden: {shown:?}");
    let (code, shown) = Terminal::start(&umiak, &["pull", "-q", "--tls-verify=false", &name]).wait();
    assert_eq!((code, shown), (Some(0), format!("{id}\r\n")));

    umiak.run(&["rmi", &name]).ok();
    let output = umiak.run(&pull).ok().says(id);
    assert!(output.stderr.contains("Copying blob") && !output.stderr.contains('\u{1b}'), "{}", output.stderr);
    umiak.run(&["rmi", &name]).ok();
    umiak.run(&["pull", "-q", "--tls-verify=false", &name]).ok().says(id).quiet();
    // A failure leaves one line, on a terminal too.
    let missing = name.replace("busybox", "nothing");
    let (code, shown) = Terminal::start(&umiak, &["pull", "--tls-verify=false", &missing]).wait();
    assert_eq!(code, Some(125));
    assert_eq!(shown.matches("error:").count(), 1, "{shown:?}");
}

#[test]
fn a_registry_that_wants_to_know_its_clients() {
    requires!(
        Need::Image("busybox"),
        Need::Tool("docker-registry"),
        Need::Tool("skopeo"),
        Need::Tool("openssl")
    );
    let umiak = Umiak::new();
    let (registry, trusted) = Registry::start_with_client_certificates(&umiak);
    let name = format!("{}/test/busybox:latest", registry.address);
    let source =
        format!("oci:{}:localhost/busybox:latest", crate::support::images().join("busybox").display());
    let pushed = std::process::Command::new(crate::support::tool("skopeo").unwrap())
        .args(["--insecure-policy", "copy", "-q", "--dest-cert-dir"])
        .arg(&trusted)
        .args([&source, &format!("docker://{name}")])
        .env("XDG_RUNTIME_DIR", &umiak.dir)
        .output()
        .unwrap();
    assert!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));
    umiak.run(&["pull", "-q", "--cert-dir", trusted.to_str().unwrap(), &name]).ok();
    umiak.run(&["rmi", &name]).ok();
    // In the directory of the user's own.
    let own = umiak.dir.join("home/.config/containers/certs.d").join(&registry.address);
    std::fs::create_dir_all(&own).unwrap();
    for file in ["ca.crt", "client.cert", "client.key"] {
        std::fs::copy(trusted.join(file), own.join(file)).unwrap();
    }
    umiak.run(&["pull", "-q", &name]).ok();
    // Half of the pair, none of it, nonsense.
    std::fs::remove_file(own.join("client.cert")).unwrap();
    umiak.run(&["pull", "-q", &name]).exits(125).tells("without its *.cert");
    std::fs::remove_file(own.join("client.key")).unwrap();
    umiak.run(&["pull", "-q", &name]).exits(125).tells("certificate");
    std::fs::write(own.join("client.key"), "nonsense").unwrap();
    umiak.run(&["pull", "-q", &name]).exits(125).tells("client.key").tells("not a private key");
}

/// A proxy that leads every name to one address, and notes what it was asked.
fn proxy(to: &str) -> (String, std::sync::Arc<std::sync::Mutex<Vec<String>>>) {
    use std::io::{BufRead, BufReader, Write, copy};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (to, seen) = (to.to_owned(), std::sync::Arc::new(std::sync::Mutex::new(Vec::new())));
    let log = seen.clone();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let (to, log) = (to.clone(), log.clone());
            std::thread::spawn(move || {
                let mut reader = BufReader::new(client.try_clone().unwrap());
                loop {
                    let mut line = String::new();
                    reader.read_line(&mut line).unwrap();
                    if line.trim().is_empty() {
                        break;
                    }
                    log.lock().unwrap().push(line.trim().to_owned());
                }
                let server = std::net::TcpStream::connect(&to).unwrap();
                (&client).write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
                let (mut up, mut from) = (server.try_clone().unwrap(), server);
                std::thread::spawn(move || {
                    let _ = copy(&mut reader, &mut up);
                    let _ = up.shutdown(std::net::Shutdown::Write);
                });
                let _ = copy(&mut from, &mut &client);
                let _ = client.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    (address, seen)
}

#[test]
fn behind_a_proxy() {
    requires!(
        Need::Image("busybox"),
        Need::Tool("docker-registry"),
        Need::Tool("skopeo"),
        Need::Tool("openssl")
    );
    let mut umiak = Umiak::new();
    let (registry, trusted) = Registry::start_self_signed(&umiak, "DNS:registry.test", false);
    registry.push("busybox");
    let (address, seen) = proxy(&registry.address);
    let (dir, name) = (trusted.to_str().unwrap().to_owned(), "registry.test/test/busybox");
    let pull = |umiak: &Umiak| umiak.run(&["pull", "-q", "--retry=0", "--cert-dir", &dir, name]);
    pull(&umiak).exits(125).tells("registry.test");
    for variable in ["HTTPS_PROXY", "https_proxy"] {
        umiak.set_env(variable, &format!("http://us%65r:pass%40@{address}"));
        pull(&umiak).ok();
        umiak.run(&["rmi", "-a"]).ok();
        umiak.set_env(variable, "");
    }
    {
        let mut seen = seen.lock().unwrap();
        assert!(seen.iter().any(|line| line == "CONNECT registry.test:443 HTTP/1.1"), "{seen:?}");
        // user:pass@
        assert!(seen.iter().any(|line| line == "Proxy-Authorization: Basic dXNlcjpwYXNzQA=="), "{seen:?}");
        seen.clear();
    }
    umiak.set_env("HTTPS_PROXY", &format!("http://{address}"));
    for exempt in ["registry.test", ".test", "*", "other, test:443"] {
        umiak.set_env("NO_PROXY", exempt);
        pull(&umiak).exits(125);
    }
    // This machine itself is behind none.
    umiak.set_env("NO_PROXY", "");
    let own = registry.address.clone() + "/test/busybox";
    umiak.run(&["pull", "-q", "--tls-verify=false", &own]).ok();
    assert!(seen.lock().unwrap().is_empty(), "{seen:?}");
    // Plain HTTP has a variable of its own.
    umiak.set_env("HTTPS_PROXY", "http://secret@:bad");
    let wrong = pull(&umiak).exits(125).tells("$HTTPS_PROXY is not the address of a proxy");
    assert!(!wrong.stderr.contains("secret"), "{}", wrong.stderr);
    let plain = Registry::start(&umiak);
    plain.push("busybox");
    let (address, seen) = proxy(&plain.address);
    // HTTPS is tried first there too.
    umiak.set_env("HTTPS_PROXY", &format!("http://{address}"));
    umiak.set_env("http_proxy", &format!("http://{address}"));
    umiak.run(&["pull", "-q", "--tls-verify=false", "--retry=0", "plain.test:5000/test/busybox"]).ok();
    assert!(seen.lock().unwrap().contains(&"CONNECT plain.test:5000 HTTP/1.1".to_owned()), "{seen:?}");
}
