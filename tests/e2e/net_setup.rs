//! What makes a container's network: devices, addresses, routes, rules, and that all of it goes.

use crate::requires;
use crate::support::net::{FAR, Internet, NEAR};
use crate::support::{Need, Umiak, eventually, finish, processes};
use std::process::{Command, Stdio};

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

#[test]
fn tcp_does_not_pace_on_the_way_to_the_router() {
    requires!(Need::Image("busybox"));
    const SETTING: &str = "/proc/sys/net/ipv4/tcp_congestion_control";
    let umiak = Umiak::with_busybox();
    let network = |name: &str, options: &[&str]| {
        let args =
            [&["run", "--rm", "--network", name], options, &["localhost/busybox", "cat", SETTING]].concat();
        umiak.run(&args).ok().stdout
    };
    assert_eq!(network("default", &[]), "reno\n");
    umiak.run(&["network", "create", "net"]).ok();
    assert_eq!(network("net", &[]), "reno\n");
    // Who names one has it, if users may.
    let allowed = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_allowed_congestion_control").unwrap();
    if let Some(other) = allowed.split_whitespace().find(|name| *name != "reno") {
        for name in ["default", "net"] {
            let chosen = format!("net.ipv4.tcp_congestion_control={other}");
            assert_eq!(network(name, &["--sysctl", &chosen]), format!("{other}\n"));
        }
    }
}

/// A container's network `name` with a server that says `word` to whoever comes.
fn server(umiak: &Umiak, name: &str, options: &[&str], word: &str) {
    let listen = format!("while true; do nc -l -p 80 -e echo {word}; done");
    let head = [&["--name", name][..], options, &["localhost/busybox", "sh", "-c", &listen]].concat();
    umiak.detached(&head);
    eventually("the server listens", || {
        umiak.run(&["exec", name, "netstat", "-ltn"]).stdout.contains(":80 ")
    });
}

/// What a container in `network` is told at `host` port 80; nothing if nobody answers in time.
fn asked(umiak: &Umiak, network: &str, host: &str) -> String {
    // The shell stays, for a first process cannot be ended by what ends others.
    let ask = format!("timeout 5 nc {host} 80; true");
    umiak.run(&["run", "--rm", "--network", network, "localhost/busybox", "sh", "-c", &ask]).stdout
}

fn address(umiak: &Umiak, name: &str) -> String {
    let output = umiak.run(&["exec", name, "ip", "-4", "address", "show", "dev", "eth0"]).ok().stdout;
    let word = output.split_whitespace().skip_while(|word| *word != "inet").nth(1).unwrap();
    word.split('/').next().unwrap().to_owned()
}

#[test]
fn containers_of_a_network_reach_each_other() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    for (network, options) in [("one", &[][..]), ("two", &[]), ("apart", &["--opt", "isolate=true"])] {
        umiak.run(&[&["network", "create"], options, &[network]].concat()).ok();
    }
    server(&umiak, "here", &["--network", "one"], "here");
    server(&umiak, "there", &["--network", "apart"], "there");
    let (here, there) = (address(&umiak, "here"), address(&umiak, "there"));
    assert_eq!(asked(&umiak, "one", "here"), "here\n");
    assert_eq!(asked(&umiak, "one", &here), "here\n");
    assert_eq!(asked(&umiak, "apart", "there"), "there\n");
    // Of another network: not by name; by address unless one of the two is isolated.
    assert_eq!(asked(&umiak, "two", "here"), "");
    assert_eq!(asked(&umiak, "two", &here), "here\n");
    assert_eq!(asked(&umiak, "two", &there), "");
    assert_eq!(asked(&umiak, "apart", &here), "");
    // And out of a private one neither.
    assert_eq!(asked(&umiak, "default", &here), "");
    umiak.run(&["rm", "--all", "--force", "--time", "0"]).ok();
    umiak.run(&["network", "rm", "one", "two", "apart"]).ok();
}

#[test]
fn others_addresses_cannot_be_used() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    umiak.run(&["network", "create", "--subnet", "10.77.0.0/24", "guarded"]).ok();
    server(&umiak, "here", &["--network", "guarded", "--ip", "10.77.0.9"], "here");
    let attempt = |change: &str| {
        let script = format!("{change} && timeout 4 nc 10.77.0.9 80; true");
        let args = ["--network", "guarded", "--ip", "10.77.0.7", "localhost/busybox", "sh", "-c", &script];
        umiak.run(&[&["run", "--rm", "--cap-add", "NET_ADMIN"][..], &args].concat()).ok().stdout
    };
    assert_eq!(attempt("true"), "here\n");
    let other = "ip address del 10.77.0.7/24 dev eth0 && ip address add 10.77.0.8/24 dev eth0";
    assert_eq!(attempt(other), "", "another address of IP");
    let mac = "ifconfig eth0 down && ifconfig eth0 hw ether 02:00:00:00:00:99 && ifconfig eth0 up";
    assert_eq!(attempt(mac), "", "another address of the link");
    umiak.run(&["rm", "--all", "--force", "--time", "0"]).ok();
    umiak.run(&["network", "rm", "guarded"]).ok();
}

#[test]
fn who_is_in_two_networks_answers_at_both_addresses() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    for (name, subnet) in [("left", "10.78.0.0/24"), ("right", "10.79.0.0/24")] {
        umiak.run(&["network", "create", "--subnet", subnet, name]).ok();
    }
    umiak.run(&["network", "create", "--subnet", "10.80.0.0/24", "--internal", "closed"]).ok();
    let both = ["--network", "left:ip=10.78.0.9", "--network", "right:ip=10.79.0.9", "--network", "closed"];
    server(&umiak, "both", &both, "both");
    umiak.detached(&["--name", "one", "--network", "right", "localhost/busybox", "sleep", "1000"]);
    for address in ["10.78.0.9", "10.79.0.9"] {
        let asked = umiak.run(&["exec", "one", "timeout", "5", "nc", address, "80"]);
        assert_eq!(asked.stdout, "both\n", "{address}");
    }
    // An address of another network is no way out of one without any.
    umiak.detached(
        &[
            &["--name", "shut", "--cap-add", "NET_ADMIN", "--network", "closed:ip=10.80.0.7"][..],
            &["--network", "left:ip=10.78.0.7", "localhost/busybox", "sleep", "1000"],
        ]
        .concat(),
    );
    let script = "dev=$(ip -o -4 address | awk '/10.80.0.7/ {print $2}'); ip route replace 10.79.0.0/24 via 10.80.0.1 dev $dev src 10.78.0.7 \
                  && timeout 3 nc 10.79.0.9 80";
    let asked = umiak.run(&["exec", "--privileged", "shut", "sh", "-c", script]);
    assert_eq!(asked.stdout, "", "{}", asked.stderr);
    umiak.run(&["rm", "--all", "--force", "--time", "0"]).ok();
    umiak.run(&["network", "rm", "left", "right", "closed"]).ok();
}

#[test]
fn many_begin_at_once_in_one_network() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    umiak.run(&["network", "create", "busy"]).ok();
    let args =
        |number| ["run", "-d", "--network", "busy", "--name", number, "localhost/busybox", "sleep", "1000"];
    let names = ["c0", "c1", "c2", "c3", "c4", "c5"];
    let begun: Vec<_> = names.iter().map(|name| umiak.spawn(&args(name))).collect();
    for child in begun {
        finish(child, b"", "run".into()).ok();
    }
    let mut addresses: Vec<_> = names.iter().map(|name| address(&umiak, name)).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), names.len(), "each has its own: {addresses:?}");
    // The first one's end is no matter to the others.
    umiak.run(&["rm", "--force", "--time", "0", "c0", "c1"]).ok();
    server(&umiak, "late", &["--network", "busy"], "late");
    let told = umiak.run(&["exec", "c5", "timeout", "5", "nc", "late", "80"]).stdout;
    assert_eq!(told, "late\n");
    umiak.run(&["rm", "--all", "--force", "--time", "0"]).ok();
    umiak.run(&["network", "rm", "busy"]).ok();
}

/// The relay's process of the only container of this test.
fn relay(umiak: &Umiak) -> i32 {
    let threads =
        |pid: &i32| std::fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|list| list.count() > 1);
    let found: Vec<i32> = processes(&umiak.dir).into_iter().filter(threads).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0]
}

#[test]
fn a_relay_that_dies_takes_the_network_and_a_restart_brings_it_back() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    umiak.detached(&["--name", "c", "--network", "default", "localhost/busybox", "sleep", "1000"]);
    let devices = || umiak.run(&["exec", "c", "ls", "/sys/class/net"]).ok().stdout;
    assert!(devices().contains("eth0"));
    kill(relay(&umiak));
    eventually("the device is gone", || !devices().contains("eth0"));
    assert_eq!(umiak.status("c"), "running");
    umiak.run(&["restart", "--time", "0", "c"]).ok();
    assert!(devices().contains("eth0"));
}

#[test]
fn a_relay_goes_with_its_monitor() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    umiak.detached(&["--name", "c", "--network", "default", "localhost/busybox", "sleep", "1000"]);
    let relay = relay(&umiak);
    let stat = std::fs::read_to_string(format!("/proc/{relay}/stat")).unwrap();
    let monitor: i32 = stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap().parse().unwrap();
    kill(monitor);
    eventually("the relay is gone", || !std::path::Path::new(&format!("/proc/{relay}")).exists());
    umiak.run(&["rm", "--force", "--time", "0", "c"]).ok();
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn the_rules_are_what_nft_reads_out_of_them() {
    requires!(Need::Root, Need::Image("busybox"), Need::Tool("nft"));
    let umiak = Umiak::with_busybox();
    umiak.detached(&["--name", "c", "--network", "default", "localhost/busybox", "sleep", "1000"]);
    let tasks = format!("/proc/{}/task", relay(&umiak));
    let inner = std::fs::read_dir(tasks)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|task| std::fs::read_to_string(task.join("comm")).unwrap() == "inner\n");
    let net = format!("--net={}", inner.unwrap().join("ns/net").display());
    let output = Command::new("nsenter").args([&net, "nft", "list", "ruleset"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    for expected in [
        "type filter hook prerouting priority mangle; policy accept;",
        "meta mark & 0x000000f0 == 0x00000010 return",
        "meta mark & 0x000000f0 == 0x00000020 reject with tcp reset",
        "meta mark & 0x000000f0 == 0x00000030 reject with icmpx host-unreachable",
        "meta mark & 0x000000f0 == 0x00000040 reject with icmpx no-route",
        "meta mark & 0x000000f0 == 0x00000050 reject with icmpx admin-prohibited",
        "icmpv6 type 133-137 accept",
        "tcp flags syn / fin,syn,rst,ack jump syn",
        "meta l4proto tcp tproxy to :1 accept",
        "meta l4proto udp tproxy to :1 accept",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    // Of the kernel's queues one or the other.
    assert!(text.contains("queue num 1") || text.contains("queue to 1"), "{text}");
}

/// Ordinary users of the machine, which scripts/test makes.
const USERS: [&str; 2] = ["umiak-test", "umiak-solo"];

#[test]
fn two_users_have_the_same_network_at_once() {
    requires!(Need::Root, Need::Image("busybox"), Need::Tool("setpriv"));
    let known = std::fs::read_to_string("/etc/passwd").unwrap();
    if !USERS.iter().all(|user| known.lines().any(|line| line.starts_with(&format!("{user}:")))) {
        return crate::support::skip("needs the users of scripts/test", true);
    }
    let umiak = Umiak::new();
    let image = format!("oci:{}:localhost/busybox:latest", umiak.readable_image("busybox").display());
    let run = |user: &str, args: &[&str]| {
        let dir = umiak.dir.join(user);
        let at = |part: &str| dir.join(part).display().to_string();
        let mut command = Command::new("setpriv");
        command.args(["--reuid", user, "--regid", user, "--init-groups"]).arg(Umiak::binary());
        command.args(["--root", &at("store"), "--runroot", &at("run/umiak")]).args(args);
        command.env("HOME", &dir).env("XDG_RUNTIME_DIR", at("run")).current_dir(&dir);
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        finish(child, b"", format!("{user}: {}", args.join(" ")))
    };
    let mut ids = Vec::new();
    for user in USERS {
        let dir = umiak.dir.join(user);
        std::fs::create_dir_all(dir.join("run")).unwrap();
        std::fs::set_permissions(dir.join("run"), std::os::unix::fs::PermissionsExt::from_mode(0o700))
            .unwrap();
        let given = Command::new("chown").args(["-R", &format!("{user}:")]).arg(&dir).status().unwrap();
        assert!(given.success());
        run(user, &["pull", "-q", &image]).ok();
        run(user, &["network", "create", "--subnet", "10.99.0.0/24", "same"]).ok();
        let args = ["run", "-d", "--name", "web", "--network", "same", "-p", "127.0.0.1::80"];
        let id = run(user, &[&args[..], &["busybox", "httpd", "-f", "-h", "/etc"]].concat()).ok().stdout;
        ids.push(id.trim()[..12].to_owned());
    }
    for (user, id) in USERS.iter().zip(&ids) {
        eventually("the server listens", || {
            run(user, &["exec", "web", "netstat", "-ltn"]).stdout.contains(":80 ")
        });
        let ask = "wget -q -O- http://web/hostname; wget -q -O- http://10.99.0.2/hostname";
        let told = run(user, &["run", "--rm", "--network", "same", "busybox", "sh", "-c", ask]).ok();
        assert_eq!(told.stdout, format!("{id}\n{id}\n"), "{user} reaches his own");
        let address = run(user, &["port", "web", "80"]).ok().stdout;
        let mut stream = std::net::TcpStream::connect(address.trim()).unwrap();
        std::io::Write::write_all(&mut stream, b"GET /hostname HTTP/1.0\r\n\r\n").unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut stream, &mut text).unwrap();
        assert!(text.contains(id.as_str()), "{text}");
    }
    for user in USERS {
        run(user, &["rm", "-f", "-t", "0", "web"]).ok();
    }
}
