//! What makes a container's network: devices, addresses, routes, rules, and that all of it goes.

use crate::requires;
use crate::support::net::{FAR, Internet, NEAR};
use crate::support::{Need, Umiak, finish};
use std::process::Stdio;

/// Tells each that comes who he is, and what was dialled.
const WHO: &str = "
import socket, sys, threading
def serve(family, host):
    s = socket.socket(family, socket.SOCK_STREAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((host, 4000)); s.listen(64)
    while True:
        c, peer = s.accept()
        c.sendall(('from %s to %s\\n' % (peer[0], c.getsockname()[0])).encode()); c.close()
threading.Thread(target=serve, args=(socket.AF_INET6, '2001:db8:0:1::2'), daemon=True).start()
serve(socket.AF_INET, '198.18.0.2')
";

fn ran(internet: &Internet, umiak: &Umiak, args: &[&str]) -> crate::support::Output {
    let mut command = internet.near(&umiak.command(args));
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    finish(child, b"", args.join(" "))
}

#[test]
fn a_container_dials_out() {
    requires!(Need::Image("busybox"), Need::Tool("ip"), Need::Tool("python3"));
    let umiak = Umiak::with_busybox();
    let mut internet = Internet::new();
    internet.serve(WHO, FAR[0], 4000);
    for family in 0..2 {
        let dial = format!("nc {} 4000", FAR[family]);
        let args = ["run", "--rm", "--network", "default", "localhost/busybox", "sh", "-c", &dial];
        let output = ran(&internet, &umiak, &args).ok();
        assert_eq!(output.stdout, format!("from {} to {}\n", NEAR[family], FAR[family]));
    }
}

#[test]
fn a_private_network_has_its_devices_and_routes() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let show = "ip route; ip address show dev eth0";
    let output =
        umiak.run(&["run", "--rm", "--network", "default", "localhost/busybox", "sh", "-c", show]).ok();
    for expected in [
        "default via 10.0.2.2 dev eth0",
        "10.0.2.0/24 dev eth0",
        "unreachable 224.0.0.0/4",
        "inet 10.0.2.100/24",
    ] {
        assert!(output.stdout.contains(expected), "{expected}: {}", output.stdout);
    }
}
