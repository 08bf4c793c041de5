//! Containers that join and leave networks while they run.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::requires;
use crate::support::net::{FAR, Internet};
use crate::support::{Need, Output, Umiak, eventually, finish, processes};

fn inside(umiak: &Umiak, name: &str, script: &str) -> Output {
    umiak.run(&["exec", name, "sh", "-c", script])
}

fn devices(umiak: &Umiak, name: &str) -> String {
    inside(umiak, name, "ls /sys/class/net").ok().stdout.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn web(umiak: &Umiak, name: &str, options: &[&str]) {
    umiak.detached(&[&["--name", name][..], options, &["busybox", "httpd", "-f", "-h", "/etc"]].concat());
}

#[test]
fn a_running_container_joins_and_leaves_networks() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    umiak.run(&["network", "create", "--subnet", "10.71.0.0/24", "one"]).ok();
    umiak.run(&["network", "create", "--subnet", "10.72.0.0/24", "--ipv6", "two"]).ok();
    web(&umiak, "db", &["--network", "two"]);
    let id = umiak.detached(&["--name", "c", "--network", "one", "busybox", "httpd", "-f", "-h", "/etc"]);
    let from = |name: &str, url: &str| inside(&umiak, name, &format!("timeout 5 wget -q -O- {url}/hostname"));
    assert_ne!(from("c", "http://db").code, Some(0));
    // It writes itself into the file: that stays.
    inside(&umiak, "c", "echo 10.9.9.9 mine >> /etc/hosts").ok();

    umiak.run(&["network", "connect", "--ip", "10.72.0.9", "--alias", "other", "two", "c"]).ok();
    assert_eq!(devices(&umiak, "c"), "eth0 eth1 lo");
    from("c", "http://db").ok();
    from("db", "http://c").ok().says(&id[..12]);
    from("db", "http://other").ok().says(&id[..12]);
    inside(&umiak, "c", "cat /etc/hosts").ok().has("10.72.0.9").has("10.71.0.2").has("mine");
    inside(&umiak, "c", "cat /etc/resolv.conf").ok().has("nameserver 10.71.0.1").has("nameserver 10.72.0.1");
    let v6 = "ip -6 address show dev eth1 scope global";
    inside(&umiak, "c", v6).ok().has("inet6 fd");
    let mac = umiak.inspect("c", "{{.NetworkSettings.Networks.two.MacAddress}}");
    inside(&umiak, "c", "cat /sys/class/net/eth1/address").ok().says(&mac);
    assert_eq!(umiak.inspect("c", "{{.NetworkSettings.Networks.two.IPAddress}}"), "10.72.0.9");
    umiak.run(&["ps", "-q", "--filter", "network=two", "--filter", "name=^c$"]).ok().says(&id[..12]);
    umiak.run(&["network", "inspect", "two"]).ok().has("10.72.0.9/24").has("eth1");
    umiak.run(&["events", "--stream=false", "--filter", "event=connect"]).ok().has("two");
    umiak.run(&["network", "connect", "two", "c"]).exits(125).tells("already");
    umiak.run(&["network", "rm", "two"]).exits(2);

    // The way out goes by the one that is left, and the device keeps its name.
    umiak.run(&["network", "disconnect", "one", "c"]).ok();
    assert_eq!(devices(&umiak, "c"), "eth1 lo");
    inside(&umiak, "c", "ip route").ok().has("default via 10.72.0.1 dev eth1").lacks("10.71");
    inside(&umiak, "c", "cat /etc/hosts").ok().has("10.72.0.9").lacks("10.71").has("mine");
    inside(&umiak, "c", "cat /etc/resolv.conf").ok().lacks("10.71");
    from("c", "http://db").ok();
    // What it had there is free, and gone from what is told of it.
    umiak.run(&["run", "--rm", "--network", "one:ip=10.71.0.2", "busybox", "true"]).ok();
    umiak.run(&["network", "inspect", "one"]).ok().lacks("10.71.0.2");
    assert_eq!(umiak.inspect("c", "{{len .NetworkSettings.Networks}}"), "1");
    umiak.run(&["network", "disconnect", "one", "c"]).exits(125).tells("not in there");

    // None at all, and one again; it is the same after a restart.
    umiak.run(&["network", "disconnect", "two", "c"]).ok();
    assert_eq!(devices(&umiak, "c"), "lo");
    assert_ne!(from("db", "http://10.72.0.9").code, Some(0));
    umiak.run(&["network", "connect", "two", "c"]).ok();
    assert_eq!(devices(&umiak, "c"), "eth0 lo");
    umiak.run(&["network", "connect", "one", "c"]).ok();
    umiak.run(&["restart", "-t", "0", "c"]).ok();
    assert_eq!(devices(&umiak, "c"), "eth0 eth1 lo");
    from("db", "http://c").ok();
    umiak.run(&["rm", "-f", "-t", "0", "c", "db"]).ok();
    umiak.run(&["network", "rm", "one", "two"]).ok();
}

#[test]
fn others_addresses_cannot_be_used_after_a_change_either() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    umiak.run(&["network", "create", "--subnet", "10.73.0.0/24", "one"]).ok();
    umiak.run(&["network", "create", "--subnet", "10.74.0.0/24", "two"]).ok();
    web(&umiak, "there", &["--network", "two:ip=10.74.0.9"]);
    let start = ["--name", "c", "--network", "one", "--cap-add", "NET_ADMIN", "busybox", "sleep", "1000"];
    umiak.detached(&start);
    umiak.run(&["network", "connect", "--ip", "10.74.0.5", "two", "c"]).ok();
    let ask = "timeout 4 wget -q -O- http://10.74.0.9/hostname";
    inside(&umiak, "c", ask).ok();
    let other = "ip address del 10.74.0.5/24 dev eth1 && ip address add 10.74.0.6/24 dev eth1";
    assert_ne!(inside(&umiak, "c", &format!("{other} && {ask}")).code, Some(0));
    umiak.run(&["rm", "-f", "-t", "0", "c", "there"]).ok();
}

#[test]
fn a_change_that_fails_leaves_all_as_it_was() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    umiak.run(&["network", "create", "--subnet", "10.75.0.0/24", "one"]).ok();
    umiak.run(&["network", "create", "--subnet", "10.76.0.0/24", "two"]).ok();
    web(&umiak, "there", &["--network", "two:ip=10.76.0.9"]);
    umiak.detached(&["--name", "c", "--network", "one", "busybox", "sleep", "1000"]);
    let hosts = inside(&umiak, "c", "cat /etc/hosts /etc/resolv.conf").ok().stdout;
    let connect = |more: &[&str]| umiak.run(&[&["network", "connect"], more, &["two", "c"]].concat());
    connect(&["--ip", "10.76.0.9"]).exits(125).tells("in use by container \"there\"");
    // The container has a device of that name already, which only its relay finds out.
    umiak.run(&["exec", "--privileged", "c", "ip", "link", "add", "eth1", "type", "bridge"]).ok();
    connect(&[]).exits(125).tells("eth1");
    umiak.run(&["exec", "--privileged", "c", "ip", "link", "del", "eth1"]).ok();
    assert_eq!(devices(&umiak, "c"), "eth0 lo");
    assert_eq!(inside(&umiak, "c", "cat /etc/hosts /etc/resolv.conf").ok().stdout, hosts);
    assert_eq!(umiak.inspect("c", "{{len .NetworkSettings.Networks}}"), "1");
    umiak.run(&["network", "inspect", "two"]).ok().lacks("10.76.0.2");
    inside(&umiak, "there", "nslookup c.dns.podman").exits(1);
    connect(&[]).ok();
    inside(&umiak, "c", "wget -q -O- http://there/hostname").ok();
    umiak.run(&["rm", "-f", "-t", "0", "c", "there"]).ok();
}

/// The step that fails here comes when devices are in already, and the old one's turn to go is next.
#[test]
fn a_change_that_fails_late_leaves_all_as_it_was() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    umiak.run(&["network", "create", "--subnet", "10.71.0.0/24", "one"]).ok();
    umiak.run(&["network", "create", "--subnet", "10.72.0.0/24", "two"]).ok();
    web(&umiak, "db", &["--network", "one"]);
    web(&umiak, "c", &["--network", "one", "--network", "two", "--cap-add", "NET_ADMIN"]);
    // Then no route can lead by it.
    inside(&umiak, "c", "ip link set eth1 down").ok();
    umiak.run(&["network", "disconnect", "one", "c"]).exits(125).tells("adding the route by 10.72.0.1");
    assert_eq!(devices(&umiak, "c"), "eth0 eth1 lo");
    inside(&umiak, "c", "ip route").ok().has("default via 10.71.0.1 dev eth0");
    inside(&umiak, "c", "timeout 5 wget -q -O- http://db/hostname").ok();
    inside(&umiak, "c", "cat /etc/hosts").ok().has("10.71.0.");
    assert_eq!(umiak.inspect("c", "{{len .NetworkSettings.Networks}}"), "2");
    // And what failed can be done when nothing stands against it any more.
    inside(&umiak, "c", "ip link set eth1 up").ok();
    umiak.run(&["network", "disconnect", "one", "c"]).ok();
    inside(&umiak, "c", "ip route").ok().has("default via 10.72.0.1 dev eth1");
    umiak.run(&["rm", "-f", "-t", "0", "c", "db"]).ok();
}

#[test]
fn connections_outlive_a_change_of_other_networks() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    umiak.run(&["network", "create", "one"]).ok();
    umiak.run(&["network", "create", "two"]).ok();
    let listen = "nc -l -p 80 -e cat; sleep 1000";
    umiak.detached(&[
        "--name",
        "c",
        "--network",
        "one",
        "-p",
        "127.0.0.1::80",
        "busybox",
        "sh",
        "-c",
        listen,
    ]);
    let address = umiak.run(&["port", "c", "80"]).ok().stdout.trim().to_owned();
    eventually("it listens", || inside(&umiak, "c", "netstat -ltn").stdout.contains(":80 "));
    let mut stream = TcpStream::connect(address).unwrap();
    let mut said = |text: &[u8]| {
        stream.write_all(text).unwrap();
        let mut back = vec![0; text.len()];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(back, text);
    };
    said(b"before");
    umiak.run(&["network", "connect", "two", "c"]).ok();
    said(b"between");
    umiak.run(&["network", "disconnect", "two", "c"]).ok();
    umiak.run(&["network", "reload", "c"]).ok();
    said(b"behind");
    // It goes with its own network.
    umiak.run(&["network", "disconnect", "one", "c"]).ok();
    assert!(matches!(stream.read(&mut [0; 8]), Ok(0) | Err(_)));
    umiak.run(&["rm", "-f", "-t", "0", "c"]).ok();
}

#[test]
fn a_container_that_was_prepared_joins_a_network() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    umiak.run(&["network", "create", "one"]).ok();
    umiak.run(&["network", "create", "two"]).ok();
    umiak.run(&["create", "--name", "c", "--network", "one", "busybox", "sleep", "1000"]).ok();
    umiak.run(&["init", "c"]).ok();
    umiak.run(&["network", "connect", "two", "c"]).ok();
    umiak.run(&["start", "c"]).ok();
    assert_eq!(devices(&umiak, "c"), "eth0 eth1 lo");
    umiak.run(&["rm", "-f", "-t", "0", "c"]).ok();
}

/// Answers every question with 192.0.2.77.
const NAMES: &str = "
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('198.18.0.2', 53))
while True:
    q, who = s.recvfrom(4096)
    a = b'' if q[-3] != 1 else b'\\xc0\\x0c\\0\\x01\\0\\x01\\0\\0\\0\\x05\\0\\x04\\xc0\\0\\x02\\x4d'
    s.sendto(q[:2] + b'\\x81\\x80\\0\\x01' + (b'\\0\\x01' if a else b'\\0\\0') + b'\\0\\0\\0\\0' + q[12:] + a, who)
";

#[test]
fn name_servers_change_at_once() {
    requires!(Need::Image("busybox"), Need::Tool("ip"), Need::Tool("python3"));
    let umiak = Umiak::with_busybox();
    let mut internet = Internet::new();
    internet.serve(NAMES, FAR[0], 53);
    umiak.run(&["network", "create", "--dns", "203.0.113.99", "web"]).ok();
    let args = ["run", "-d", "--name", "c", "--network", "web", "busybox", "sleep", "1000"];
    let mut start = internet.near(&umiak.command(&args));
    assert!(start.stdout(std::process::Stdio::null()).status().unwrap().success());
    umiak.run(&["network", "update", "--dns-add", FAR[0], "--dns-drop", "203.0.113.99", "web"]).ok();
    inside(&umiak, "c", "nslookup -type=a far.example").ok().has("192.0.2.77");
    umiak.run(&["network", "reload", "--all"]).ok();
    inside(&umiak, "c", "nslookup -type=a far.example").ok().has("192.0.2.77");
    umiak.run(&["stop", "-t", "0", "c"]).ok();
    umiak.run(&["network", "reload", "c"]).exits(125).tells("not running");
    umiak.run(&["rm", "c"]).ok();
}

#[test]
fn a_monitor_that_is_killed_while_networks_change_leaves_nothing() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    umiak.run(&["network", "create", "one"]).ok();
    umiak.run(&["network", "create", "two"]).ok();
    web(&umiak, "there", &["--network", "two"]);
    let before = processes(&umiak.dir);
    for moment in 0..8 {
        umiak.detached(&["--name", "c", "--network", "one", "busybox", "sleep", "1000"]);
        let connecting = umiak.spawn(&["network", "connect", "two", "c"]);
        std::thread::sleep(std::time::Duration::from_millis(moment * 3));
        // The monitor is the relay's parent.
        let new = processes(&umiak.dir).into_iter().filter(|pid| !before.contains(pid));
        let stat = |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent =
            |pid| stat(pid).rsplit_once(") ").map(|(_, rest)| rest.split(' ').nth(1).map(str::to_owned));
        let monitor = new
            .filter(|pid| std::fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|list| list.count() > 1))
            .find_map(|relay| parent(relay)??.parse::<i32>().ok());
        let monitor = rustix::process::Pid::from_raw(monitor.unwrap()).unwrap();
        rustix::process::kill_process(monitor, rustix::process::Signal::KILL).unwrap();
        // It may have been in time, or is told.
        let _ = finish(connecting, b"", "network connect".into());
        umiak.run(&["rm", "-f", "-t", "0", "c"]).ok();
        umiak.run(&["network", "inspect", "two"]).ok().lacks("\"c\"");
    }
    // Whoever comes next finds the addresses and the places of the killed free.
    umiak.detached(&["--name", "c", "--network", "one", "busybox", "sleep", "1000"]);
    umiak.run(&["network", "connect", "two", "c"]).ok();
    inside(&umiak, "c", "wget -q -O- http://there/hostname").ok();
    umiak.run(&["rm", "-f", "-t", "0", "c", "there"]).ok();
    umiak.run(&["network", "rm", "one", "two"]).ok();
}
