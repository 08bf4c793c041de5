//! Networks as commands and flags: made, shown, changed, removed; what is wrong with them is told.

use crate::requires;
use crate::support::{Need, Umiak};

#[test]
fn networks_are_made_shown_and_removed() {
    let umiak = Umiak::new();
    umiak.run(&["network", "ls", "-q"]).ok().says("podman");
    umiak.run(&["network", "create"]).ok().says("podman1");
    let web =
        ["network", "create", "--subnet", "10.77.0.0/24", "--subnet", "fd77::/64", "--label", "a=b", "web"];
    umiak.run(&web).ok().says("web");
    umiak.run(&["network", "create", "web"]).exits(125).tells("already").hints("--ignore");
    umiak.run(&["network", "create", "--ignore", "web"]).ok().says("web");
    umiak.run(&["network", "ls"]).ok().has("NETWORK ID").has("web").has("bridge");
    umiak.run(&["network", "ls", "-q", "--filter", "label=a=b"]).ok().says("web");
    let format = "{{.Name}} {{.Labels}}";
    umiak.run(&["network", "ls", "--filter", "name=web", "--format", format]).ok().says("web a=b");
    umiak.run(&["network", "ls", "-q", "--filter", "name=^podman$"]).ok().says("podman");
    let format = "{{.Name}} {{.NetworkInterface}} {{.IPv6Enabled}} {{.DNSEnabled}}";
    umiak.run(&["network", "inspect", "-f", format, "web"]).ok().says("web podman2 true true");
    let output = umiak.run(&["network", "inspect", "web", "podman"]).ok();
    let all: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(all[0]["subnets"][0]["gateway"], "10.77.0.1");
    assert_eq!(all[0]["labels"]["a"], "b");
    assert_eq!(all[1]["id"], "2f259bab93aaaaa2542ba43ef33eb990d0999ee1b9924b557b7be53c0b7a1bb9");
    let id = all[0]["id"].as_str().unwrap();
    umiak.run(&["network", "inspect", "-f", "{{.Name}}", &id[..12]]).ok().says("web");
    umiak.run(&["network", "update", "--dns-add", "9.9.9.9,1.1.1.1", "web"]).ok();
    umiak.run(&["network", "update", "--dns-drop", "9.9.9.9", "web"]).ok();
    umiak
        .run(&["network", "inspect", "-f", "{{.NetworkDNSServers}}", "web"])
        .ok()
        .has("1.1.1.1")
        .lacks("9.9.9.9");
    umiak
        .run(&["network", "update", "--dns-drop", "9.9.9.9", "web"])
        .exits(125)
        .tells("no name server 9.9.9.9");
    umiak.run(&["network", "exists", "web"]).ok();
    umiak.run(&["network", "exists", "none-such"]).exits(1);
    umiak.run(&["network", "rm", "web"]).ok().says("web");
    umiak.run(&["network", "rm", "web"]).exits(1).tells("there is no network \"web\"");
    umiak.run(&["network", "rm", "-f", "web"]).ok();
    umiak.run(&["network", "rm", "podman"]).exits(125).tells("always there");
    umiak.run(&["network", "prune", "-f", "--filter", "label=a"]).ok().says("");
    umiak.run(&["network", "prune", "-f"]).ok().says("podman1");
    umiak.run(&["network", "create", "idle"]).ok();
    umiak.run(&["system", "prune", "-f"]).ok().has("Deleted Networks\nidle\n");
    umiak.run(&["network", "ls", "-q"]).ok().says("podman");
}

#[test]
fn mistakes_in_networks_are_told_and_leave_nothing() {
    let umiak = Umiak::new();
    for (args, part) in [
        (&["--subnet", "10.0.0.0"][..], "ADDRESS/BITS"),
        (&["--subnet", "10.88.5.0/24"], "overlaps 10.88.0.0/16"),
        (&["--subnet", "127.0.0.0/24"], "one machine"),
        (&["--subnet", "10.5.0.0/24", "--gateway", "10.6.0.1"], "in none"),
        (&["--ip-range", "10.5.0.0/25"], "in none"),
        (&["--driver", "macvlan"], "not supported yet"),
        (&["--ipam-driver", "dhcp"], "not supported yet"),
        (&["--opt", "vlan=3"], "not supported yet"),
        (&["--opt", "mtu=1"], "no MTU"),
        (&["--route", "10.0.0.0/8,10.5.0.1"], "not supported yet"),
    ] {
        let words = [&["network", "create"], args, &["web"]].concat();
        umiak.run(&words).exits(125).tells(part);
    }
    for name in ["host", "none", "container", "../x", ""] {
        umiak.run(&["network", "create", name]).exits(125).tells("name");
    }
    umiak.run(&["network", "ls", "-q"]).ok().says("podman");
    umiak
        .run(&["network", "inspect", "none-such"])
        .exits(125)
        .tells("there is no network")
        .hints("network create");
    umiak.run(&["network", "inspect", "../../etc/passwd"]).exits(125).tells("there is no network");
    umiak.run(&["network", "ls", "--filter", "x=y"]).exits(125).tells("no such filter");
}

#[test]
fn containers_use_networks() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    umiak.run(&["network", "create", "--subnet", "10.77.0.0/24", "web"]).ok();
    umiak.run(&["network", "create", "other"]).ok();
    let create = |args: &[&str]| umiak.run(&[&["create"], args, &["busybox", "true"]].concat());
    create(&["--network", "none-such"]).exits(125).tells("there is no network \"none-such\"");
    create(&["--network", "web:ip=10.78.0.5"]).exits(125).tells("not in its subnets");
    create(&["--network", "web", "--ip", "10.77.0.1"]).exits(125).tells("router");
    create(&["--network", "web", "--network", "web"]).exits(125).tells("twice");
    create(&["--network", "web", "--network", "host"]).exits(125).tells("more than once");
    create(&["--name", "box", "--network", "web:ip=10.77.0.5,alias=db"]).ok();
    umiak.run(&["network", "rm", "web"]).exits(2).tells("is used by container \"box\"").hints("umiak rm box");
    umiak
        .run(&["network", "connect", "--ip", "10.1.1.1", "other", "box"])
        .exits(125)
        .tells("not in its subnets");
    umiak.run(&["network", "connect", "--alias", "b", "other", "box"]).ok();
    umiak.run(&["network", "connect", "other", "box"]).exits(125).tells("already");
    umiak.run(&["network", "disconnect", "web", "box"]).ok();
    umiak.run(&["network", "disconnect", "web", "box"]).exits(125).tells("not in there");
    umiak.run(&["network", "disconnect", "-f", "web", "box"]).ok();
    umiak.run(&["network", "rm", "web"]).ok().says("web");
    umiak.run(&["network", "prune", "-f"]).ok().says("");
    create(&["--name", "lone", "--network", "none"]).ok();
    umiak.run(&["network", "connect", "other", "lone"]).exits(125).tells("in no network");
    umiak.run(&["network", "rm", "-f", "other"]).ok().says("other");
    umiak.run(&["container", "exists", "box"]).exits(1);
}

#[test]
fn mistakes_in_flags_are_told() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    for (args, part) in [
        (&["-p", "x"][..], "no port"),
        (&["-p", "x", "--network", "host"], "no port"),
        (&["-p", "[::1]:8080"], "after an address"),
        (&["-p", "0"], "no port"),
        (&["-p", "8000-8001:80"], "cannot lead"),
        (&["-p", "1.2.3:80:80"], "no IP address"),
        (&["-p", "::1:80:80"], "in brackets"),
        (&["-p", "80/sctp"], "not supported yet"),
        (&["--network", "default", "-p", "8080:80", "-p", "8080:81"], "published twice"),
        (&["--expose", "x"], "no port"),
        (&["--network", "default", "--ip", "10.0.2.5"], "--network NAME"),
        (&["--network", "bridge", "--mac-address", "01:00:00:00:00:00"], "many receivers"),
        (&["--network", "bridge", "--network-alias", "a b"], "no name"),
        (&["--dns", "x"], "no IP address"),
        (&["--dns-search", "a b"], "one word"),
        (&["--egress", "allow=a.org", "--network", "none"], "--network default"),
        (&["--network", "default", "--egress", "a.org"], "allow=LIST"),
        (&["--network", "default", "--egress", "allow=10.0.0.0/99"], "32 bits"),
        (&["--network", "default:nonsense"], "no option"),
        (&["--network", "fast:speed=9"], "no option"),
        (&["--network", "ns:here"], "absolute"),
        (&["--network", "container:nobody"], "nobody"),
        (&["--add-host", "x:host-gateway", "--network", "none"], "host-gateway"),
    ] {
        umiak.run(&[&["run", "--rm"], args, &["busybox", "true"]].concat()).exits(125).tells(part);
    }
    // As with Podman, and so that a file of settings serves for all networks.
    for mode in ["host", "none"] {
        let output =
            umiak.run(&["run", "--rm", "-P", "-p", "80:80", "--network", mode, "busybox", "true"]).ok();
        assert!(output.stderr.contains("warning: --publish does nothing here"), "{}", output.stderr);
        umiak.run(&["run", "--rm", "-P", "--network", mode, "busybox", "true"]).ok().quiet();
    }
    if rustix::process::geteuid().as_raw() != 0 {
        let low = ["run", "--network", "default", "-p", "80:80", "busybox", "true"];
        umiak.run(&low).exits(125).tells("root alone").hints("ip_unprivileged_port_start=80");
    }
    umiak.run(&["ps", "-aq"]).ok().says("");
}

#[test]
fn a_network_is_shared_with_a_container() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    umiak.detached(&[
        "--name",
        "one",
        "--network",
        "none",
        "--add-host",
        "x:10.1.1.1",
        "busybox",
        "sleep",
        "1000",
    ]);
    let inside = |script: &str| {
        umiak.run(&["run", "--rm", "--network", "container:one", "busybox", "sh", "-c", script]).ok().stdout
    };
    let own = umiak.run(&["exec", "one", "readlink", "/proc/self/ns/net"]).ok().stdout;
    assert_eq!(inside("readlink /proc/self/ns/net"), own);
    assert!(inside("cat /etc/hosts").contains("10.1.1.1\tx"));
    assert!(inside("ls /sys/class/net").contains("lo"));
    let output = umiak.run(&["run", "--network", "container:one", "-p", "80", "busybox", "true"]).ok();
    assert!(output.stderr.contains("warning: --publish does nothing here"), "{}", output.stderr);
    for (flag, value) in [("--add-host", "y:10.1.1.2"), ("--dns", "10.1.1.2")] {
        umiak
            .run(&["run", "--network", "container:one", flag, value, "busybox", "true"])
            .exits(125)
            .tells("the files of the one whose network it shares");
    }
    umiak.run(&["stop", "-t", "0", "one"]).ok();
    umiak
        .run(&["run", "--rm", "--network", "container:one", "busybox", "true"])
        .exits(125)
        .tells("not running");
}

#[test]
fn containers_of_a_network_know_each_other_by_name() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    umiak.run(&["network", "create", "--subnet", "10.77.0.0/24", "--ipv6", "web"]).ok();
    let start = |name: &str, network: &str| {
        umiak.detached(&["--name", name, "--network", network, "busybox", "httpd", "-f", "-h", "/etc"])
    };
    let id = start("db", "web:ip=10.77.0.9,alias=data");
    start("other", "web:alias=data");
    let inside =
        |script: &str| umiak.run(&["run", "--rm", "--network", "web", "busybox", "sh", "-c", script]);
    for name in ["db", "DB", "data", "db.dns.podman", &id[..12]] {
        inside(&format!("nslookup {name}")).ok().has("10.77.0.");
    }
    inside("wget -q -O- http://db/hostname").ok().says(&id[..12]);
    inside("nslookup 10.77.0.9").ok().has("name = db");
    inside("cat /etc/resolv.conf").ok().has("nameserver 10.77.0.1").has("search dns.podman");
    let data = inside("nslookup -type=a data").ok().stdout;
    assert!(data.contains("10.77.0.9") && data.contains("10.77.0.2"), "{data}");
    let format = "{{.NetworkSettings.Networks.web.IPAddress}} {{.NetworkSettings.Networks.web.Gateway}}";
    assert_eq!(umiak.inspect("db", format), "10.77.0.9 10.77.0.1");
    let mac = umiak.inspect("db", "{{.NetworkSettings.Networks.web.MacAddress}}");
    umiak.run(&["network", "inspect", "web"]).ok().has(&format!("\"mac_address\": \"{mac}\""));
    umiak.run(&["ps", "-q", "--filter", "network=web", "--filter", "name=db"]).ok().says(&id[..12]);
    // Taken by one that runs; free as soon as that has ended.
    umiak
        .run(&["run", "--rm", "--network", "web:ip=10.77.0.9", "busybox", "true"])
        .exits(125)
        .tells("in use by container \"db\"");
    umiak.run(&["stop", "-t", "0", "db"]).ok();
    inside("nslookup db.dns.podman").exits(1);
    umiak.run(&["run", "--rm", "--network", "web:ip=10.77.0.9", "busybox", "true"]).ok();
    umiak.run(&["run", "--rm", "--network", "web:ip=10.77.0.9", "busybox", "true"]).ok();
    umiak.run(&["rm", "-f", "-t", "0", "db", "other"]).ok();
    umiak.run(&["network", "rm", "web"]).ok();
}

#[test]
fn ports_are_published_and_shown() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    umiak.detached(&[
        "--name",
        "web",
        "-p",
        "127.0.0.1::80",
        "-p",
        "53/udp",
        "--expose",
        "99",
        "busybox",
        "httpd",
        "-f",
        "-h",
        "/etc",
    ]);
    // What is said twice counts once.
    let twice = ["create", "--name", "twice", "-p", "8000-8001:80-81", "-p", "8001:81", "busybox"];
    umiak.run(&twice).ok();
    umiak.run(&["port", "twice"]).ok().says("80/tcp -> 0.0.0.0:8000\n81/tcp -> 0.0.0.0:8001");
    umiak.run(&["rm", "twice"]).ok();
    let line = umiak.run(&["port", "web", "80"]).ok().stdout;
    let address: std::net::SocketAddr = line.trim().parse().unwrap();
    assert!(address.ip().is_loopback());
    umiak.run(&["port", "web"]).ok().has(&format!("80/tcp -> {address}")).has("53/udp -> 0.0.0.0:");
    umiak.run(&["port", "web", "99"]).exits(125).tells("99/tcp is not published");
    umiak.run(&["ps"]).ok().has(&format!("{address}->80/tcp")).has("99/tcp");
    let bound = umiak.inspect("web", "{{(index .NetworkSettings.Ports \"80/tcp\")}}");
    assert!(bound.contains(&address.port().to_string()), "{bound}");
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    std::io::Write::write_all(&mut stream, b"GET /hostname HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut stream, &mut text).unwrap();
    assert!(text.contains("200 OK"), "{text}");
    // Told before the second one starts; nothing of it stays.
    let taken = format!("127.0.0.1:{}:80", address.port());
    umiak
        .run(&["run", "--rm", "-p", &taken, "busybox", "echo", "begun"])
        .exits(125)
        .tells("address already in use")
        .says("");
    umiak.run(&["ps", "-aq"]).ok();
    umiak.run(&["rm", "-f", "-t", "0", "web"]).ok();
}
