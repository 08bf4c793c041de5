//! Debian's docker-registry on a free loopback port.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{Umiak, eventually, images, tool};

/// A registry; dropping it ends it.
pub struct Registry {
    child: Child,
    dir: PathBuf,
    /// `127.0.0.1:PORT`
    pub address: String,
}

impl Registry {
    /// Starts an empty registry (plain HTTP) that keeps its files beside `umiak`'s.
    pub fn start(umiak: &Umiak) -> Self {
        Self::serve(place(umiak), "")
    }

    /// Starts one that demands the user `user` with the password `pass:word`.
    pub fn start_with_password(umiak: &Umiak) -> Self {
        let dir = place(umiak);
        let line = "user:$2y$05$abcdefghijklmnopqrstuuDIEddBSuRWBBEY6g5zv60IAP5bSSfki\n";
        std::fs::write(dir.join("htpasswd"), line).unwrap();
        let auth = format!("auth:\n  htpasswd:\n    realm: test\n    path: {}/htpasswd\n", dir.display());
        Self::serve(dir, &auth)
    }

    /// Starts one that speaks HTTPS with a certificate of an authority made for it; the second value
    /// is a directory with the authority's certificate, as `--cert-dir` takes it.
    pub fn start_with_tls(umiak: &Umiak) -> (Self, PathBuf) {
        let dir = place(umiak);
        let trusted = dir.join("trusted");
        std::fs::create_dir(&trusted).unwrap();
        std::fs::write(dir.join("names"), "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
            .unwrap();
        openssl(
            &dir,
            "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out trusted/ca.crt -days 2 -subj /CN=authority",
        );
        openssl(&dir, "req -newkey rsa:2048 -nodes -keyout server.key -out server.req -subj /CN=registry");
        openssl(
            &dir,
            "x509 -req -in server.req -CA trusted/ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.crt",
        );
        let tls = tls(&dir);
        (Self::serve(dir, &tls), trusted)
    }

    /// Starts one with a certificate that it signed itself, which `openssl req -x509` marks as an
    /// authority's, for the subject alternative name `name`; the second value is a directory with it.
    pub fn start_self_signed(umiak: &Umiak, name: &str, expired: bool) -> (Self, PathBuf) {
        let dir = place(umiak);
        let trusted = dir.join("trusted");
        std::fs::create_dir(&trusted).unwrap();
        if expired {
            let config = format!(
                "[ca]\ndefault_ca=c\n[c]\ndatabase=index\nnew_certs_dir=.\nserial=serial\nprivate_key=server.key\n\
                 default_md=sha256\npolicy=p\nx509_extensions=e\n[p]\ncommonName=supplied\n\
                 [e]\nbasicConstraints=CA:TRUE\nsubjectAltName={name}\n"
            );
            std::fs::write(dir.join("ca.conf"), config).unwrap();
            std::fs::write(dir.join("index"), "").unwrap();
            std::fs::write(dir.join("serial"), "01\n").unwrap();
            openssl(
                &dir,
                "req -newkey rsa:2048 -nodes -keyout server.key -out server.req -subj /CN=registry",
            );
            openssl(
                &dir,
                "ca -config ca.conf -selfsign -batch -notext -in server.req -out server.crt -startdate 20200101000000Z -enddate 20200102000000Z",
            );
        } else {
            let words = "req -x509 -newkey rsa:2048 -nodes -keyout server.key -out server.crt -days 2 -subj /CN=registry -addext";
            openssl(&dir, &format!("{words} subjectAltName={name}"));
        }
        std::fs::copy(dir.join("server.crt"), trusted.join("server.crt")).unwrap();
        let tls = tls(&dir);
        (Self::serve(dir, &tls), trusted)
    }

    /// As [`Registry::start_with_tls`], but it wants a certificate of the authority's from its clients too;
    /// the directory holds one.
    pub fn start_with_client_certificates(umiak: &Umiak) -> (Self, PathBuf) {
        let dir = place(umiak);
        let trusted = dir.join("trusted");
        std::fs::create_dir(&trusted).unwrap();
        std::fs::write(dir.join("names"), "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
            .unwrap();
        openssl(
            &dir,
            "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out trusted/ca.crt -days 2 -subj /CN=authority",
        );
        for (key, certificate) in
            [("server.key", "server.crt"), ("trusted/client.key", "trusted/client.cert")]
        {
            openssl(
                &dir,
                &format!("req -newkey rsa:2048 -nodes -keyout {key} -out {certificate}.req -subj /CN=one"),
            );
            openssl(
                &dir,
                &format!(
                    "x509 -req -in {certificate}.req -CA trusted/ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names -out {certificate}"
                ),
            );
        }
        std::fs::remove_file(trusted.join("client.cert.req")).unwrap();
        let tls = format!("{}    clientcas:\n      - {}\n", tls(&dir), trusted.join("ca.crt").display());
        (Self::serve(dir, &tls), trusted)
    }

    /// `more`: lines of the configuration; those of `http` may go on.
    fn serve(dir: PathBuf, more: &str) -> Self {
        // The port is free again when the listener goes; nobody else asks for this one.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let config = dir.join("config.yml");
        let text = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n{more}",
            dir.join("data").display()
        );
        std::fs::write(&config, text).unwrap();
        let child = Command::new(tool("docker-registry").unwrap())
            .arg("serve")
            .arg(&config)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let registry = Self { child, dir, address };
        eventually("the registry answers", || TcpStream::connect(&registry.address).is_ok());
        registry
    }

    /// Puts a test image into the registry and returns its name there.
    pub fn push(&self, image: &str) -> String {
        self.push_as(image, &format!("oci:{}:localhost/{image}:latest", images().join(image).display()))
    }

    /// Puts an image from a source of skopeo's into the registry as `test/NAME:latest`.
    pub fn push_as(&self, name: &str, source: &str) -> String {
        let name = format!("{}/test/{name}:latest", self.address);
        let output = Command::new(tool("skopeo").unwrap())
            .args([
                "--insecure-policy",
                "copy",
                "--quiet",
                "--dest-tls-verify=false",
                "--dest-creds=user:pass:word",
            ])
            .arg(source)
            .arg(format!("docker://{name}"))
            .env("TMPDIR", &self.dir)
            // Where it looks for passwords.
            .env("XDG_RUNTIME_DIR", &self.dir)
            .output()
            .unwrap();
        assert!(output.status.success(), "{source}: {}", String::from_utf8_lossy(&output.stderr));
        name
    }

    /// Where the registry keeps its blobs.
    pub fn blobs(&self) -> PathBuf {
        self.dir.join("data/docker/registry/v2/blobs/sha256")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A directory for one more registry of a test.
fn place(umiak: &Umiak) -> PathBuf {
    let free = (0..).map(|number| umiak.dir.join(format!("registry-{number}"))).find(|dir| !dir.exists());
    let dir = free.unwrap();
    std::fs::create_dir(&dir).unwrap();
    dir
}

fn openssl(dir: &Path, words: &str) {
    let output =
        Command::new(tool("openssl").unwrap()).args(words.split(' ')).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn tls(dir: &Path) -> String {
    format!("  tls:\n    certificate: {0}/server.crt\n    key: {0}/server.key\n", dir.display())
}
