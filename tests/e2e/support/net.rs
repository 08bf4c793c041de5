//! An internet of a test's own: a network namespace in which the umiak under test runs, and a far one with
//! servers, joined by a cable. Nothing of it touches the machine's network, and it goes with the test.

use std::net::IpAddr;
use std::process::{Child, Command, Output, Stdio};

use super::eventually;

/// The near end's addresses: what servers on the far side see of a container that dials out.
pub const NEAR: [&str; 2] = ["198.18.0.1", "2001:db8:0:1::1"];
/// The far end's addresses.
pub const FAR: [&str; 2] = ["198.18.0.2", "2001:db8:0:1::2"];
/// Further addresses of the far end, where nobody filters and nobody answers for others.
pub const FURTHER: [&str; 2] = ["203.0.113.7", "2001:db8:0:2::7"];

/// The two namespaces. An ordinary user has them in a user namespace of his own.
pub struct Internet {
    near: Child,
    far: Child,
    servers: Vec<Child>,
}

impl Internet {
    /// Makes both, with routes to each other; the near one has default routes.
    pub fn new() -> Self {
        let root = rustix::process::geteuid().is_root();
        let mut maker = Command::new("unshare");
        if !root {
            // Root of a user namespace with this one id.
            maker.args(["--user", "--map-root-user"]);
        }
        let near = hold(maker.args(["--net", "sleep", "infinity"]));
        let mut inner = enter(&near);
        let far = hold(inner.args(["unshare", "--net", "sleep", "infinity"]));
        let internet = Self { near, far, servers: Vec::new() };
        internet.lay_cable();
        internet
    }

    fn lay_cable(&self) {
        let far = self.far.id().to_string();
        done(
            self.privileged(&[
                "ip", "link", "add", "wan", "type", "veth", "peer", "name", "wan", "netns", &far,
            ]),
        );
        for (side, address, peer) in [(&self.near, NEAR, FAR), (&self.far, FAR, NEAR)] {
            let run = |args: &[&str]| {
                let mut command = enter(side);
                command.arg("ip").args(args);
                done(command);
            };
            run(&["link", "set", "lo", "up"]);
            run(&["address", "add", &format!("{}/24", address[0]), "dev", "wan"]);
            run(&["address", "add", &format!("{}/64", address[1]), "dev", "wan", "nodad"]);
            run(&["link", "set", "wan", "up"]);
            run(&["route", "add", "default", "via", peer[0]]);
            run(&["-6", "route", "add", "default", "via", peer[1]]);
        }
        for address in FURTHER {
            let mut command = enter(&self.far);
            command.args(["ip", "address", "add", address, "dev", "lo"]);
            done(command);
        }
    }

    /// A command in the near namespace with all powers over it.
    pub fn privileged(&self, args: &[&str]) -> Command {
        let mut command = enter(&self.near);
        command.args(args);
        command
    }

    /// Puts a command that is ready to be started (`Umiak::command`) into the near namespace, with the powers
    /// that its user has on the machine: none, unless it is root.
    pub fn near(&self, command: &Command) -> Command {
        let mut wrapped = enter(&self.near);
        if !rustix::process::geteuid().is_root() {
            // An ordinary user again, in a user namespace below: without powers over the near one.
            let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
            wrapped.args(["unshare", "--user"]);
            wrapped.args([format!("--map-user={user}"), format!("--map-group={group}"), "--".into()]);
        }
        wrapped.arg(command.get_program()).args(command.get_args());
        wrapped.env_clear();
        for (name, value) in command.get_envs() {
            wrapped.env(name, value.unwrap_or_default());
        }
        if let Some(dir) = command.get_current_dir() {
            wrapped.current_dir(dir);
        }
        wrapped.stdin(Stdio::null());
        wrapped
    }

    /// A command on the far side.
    pub fn far(&self, args: &[&str]) -> Command {
        let mut command = enter(&self.far);
        command.args(args);
        command
    }

    /// Starts a server on the far side, a program in Python, and waits until it listens (TCP or UDP).
    pub fn serve(&mut self, program: &str, address: &str, port: u16) {
        let mut command = self.far(&["python3", "-c", program]);
        self.servers.push(command.stdin(Stdio::null()).spawn().unwrap());
        let address: IpAddr = address.parse().unwrap();
        eventually(&format!("a server listens at {address} port {port}"), || {
            let mut list = self.far(&["ss", "-Hlntu", "sport", "=", &format!(":{port}")]);
            String::from_utf8_lossy(&list.output().unwrap().stdout).contains(&format!(":{port}"))
        });
    }
}

impl Drop for Internet {
    fn drop(&mut self) {
        for child in self.servers.iter_mut().chain([&mut self.far, &mut self.near]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Starts what holds a namespace, and waits until it is in there.
fn hold(command: &mut Command) -> Child {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let name = format!("/proc/{}/comm", child.id());
    eventually("a namespace is held", || std::fs::read_to_string(&name).is_ok_and(|text| text == "sleep\n"));
    child
}

/// A command in the namespaces of a process.
fn enter(holder: &Child) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["--target", &holder.id().to_string(), "--net"]);
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--preserve-credentials"]);
    }
    command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    command
}

fn done(mut command: Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}
