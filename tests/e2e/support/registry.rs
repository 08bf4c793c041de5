//! Debian's docker-registry on a free loopback port.

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
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
        let dir = umiak.dir.join("registry");
        std::fs::create_dir(&dir).unwrap();
        Self::serve(dir, "")
    }

    /// Starts one that speaks HTTPS with a certificate of an authority made for it; the second value
    /// is a directory with the authority's certificate, as `--cert-dir` takes it.
    pub fn start_with_tls(umiak: &Umiak) -> (Self, PathBuf) {
        let dir = umiak.dir.join("registry");
        let trusted = dir.join("trusted");
        std::fs::create_dir_all(&trusted).unwrap();
        let openssl = |words: &str| {
            let output = Command::new(tool("openssl").unwrap())
                .args(words.split(' '))
                .current_dir(&dir)
                .output()
                .unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        std::fs::write(dir.join("names"), "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
            .unwrap();
        openssl(
            "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out trusted/ca.crt -days 2 -subj /CN=authority",
        );
        openssl("req -newkey rsa:2048 -nodes -keyout server.key -out server.req -subj /CN=registry");
        openssl(
            "x509 -req -in server.req -CA trusted/ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.crt",
        );
        let tls =
            format!("  tls:\n    certificate: {0}/server.crt\n    key: {0}/server.key\n", dir.display());
        (Self::serve(dir, &tls), trusted)
    }

    fn serve(dir: PathBuf, tls: &str) -> Self {
        // The port is free again when the listener goes; nobody else asks for this one.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let config = dir.join("config.yml");
        let text = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n{tls}",
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
        let name = format!("{}/test/{image}:latest", self.address);
        let source = format!("oci:{}:localhost/{image}:latest", images().join(image).display());
        let output = Command::new(tool("skopeo").unwrap())
            .args(["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", &source])
            .arg(format!("docker://{name}"))
            .env("TMPDIR", &self.dir)
            // Where it looks for passwords.
            .env("XDG_RUNTIME_DIR", &self.dir)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
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
