//! What commands show: columns, fields and filters, as other programs know them.

use serde_json::Value;

use crate::requires;
use crate::support::{Need, Umiak};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn ps_with_sizes_namespaces_and_pods() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    umiak.detached(&["--name", "live", "--network", "none", "--label", "a=b", "busybox", "sleep", "1000"]);
    umiak.run(&["create", "--name", "still", "--network", "none", "busybox", "true"]).ok();
    umiak.file("big", &"x".repeat(100_000));
    umiak.run(&["cp", "big", "live:/big"]).ok();
    let table = umiak.run(&["ps", "-a", "--size"]).ok().stdout;
    let heading = table.lines().next().unwrap();
    assert!(heading.ends_with("SIZE") && heading.contains("NAMES"), "{table}");
    assert!(table.contains("(virtual "), "{table}");
    let rows = json(&umiak.run(&["ps", "-a", "-s", "--format", "json"]).ok().stdout);
    let live = rows.as_array().unwrap().iter().find(|row| row["Names"][0] == "live").unwrap();
    let written = live["Size"]["rwSize"].as_u64().unwrap();
    assert!((100_000..300_000).contains(&written), "{written}");
    assert!(live["Size"]["rootFsSize"].as_u64().unwrap() > written);
    umiak.run(&["ps", "-a", "--sort", "size", "--format", "{{.Names}}"]).ok().says("still\nlive");
    assert_eq!(json(&umiak.run(&["ps", "--format", "json"]).ok().stdout)[0]["Size"], Value::Null);
    let table = umiak.run(&["ps", "--ns"]).ok().stdout;
    let names: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(names[2..], ["NAMES", "PID", "CGROUPNS", "IPC", "MNT", "NET", "PIDNS", "USERNS", "UTS"]);
    let pid = umiak.inspect("live", "{{.State.Pid}}");
    let own = std::fs::read_link(format!("/proc/{pid}/ns/mnt")).unwrap().display().to_string();
    umiak.run(&["ps", "--format", "mnt:[{{.MNT}}]"]).ok().says(&own);
    assert_eq!(live["Namespaces"]["MNT"], *own.trim_start_matches("mnt:[").trim_end_matches(']'));
    assert!(umiak.run(&["ps", "-p"]).ok().stdout.lines().next().unwrap().ends_with("PODNAME"));
    for (filter, told) in [
        ("label!=a", "still"),
        ("label!=a=c", "live\nstill"),
        ("command=sleep", "live"),
        ("label=a=b", "live"),
    ] {
        let output = umiak.run(&["ps", "-a", "--filter", filter, "--format", "{{.Names}}"]).ok();
        let mut names: Vec<&str> = output.stdout.lines().collect();
        names.sort_unstable();
        assert_eq!(names.join("\n"), told, "{filter}");
    }
    umiak.run(&["ps", "--sync", "--external", "-q"]).ok();
    umiak.run(&["ps", "--ns", "--size"]).exits(125);
    umiak.run(&["ps", "-w", "0"]).exits(125).tells("watch");
    umiak.run(&["ps", "--filter", "pod=x"]).exits(125).tells("not supported yet");
    let mut child = umiak.spawn(&["ps", "-w", "1", "--format", "{{.Names}}"]);
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap());
    for _ in 0..2 {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut lines, &mut line).unwrap();
        assert_eq!(line, "live\n");
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn inspected() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    umiak.run(&["create", "--name", "old", "--network", "none", "-v", "vol:/vol", "busybox", "true"]).ok();
    umiak.run(&["create", "--name", "new", "--network", "none", "busybox", "true"]).ok();
    umiak.run(&["inspect", "-l", "-f", "{{.Name}}"]).ok().says("new");
    umiak.run(&["container", "inspect", "--latest", "-f", "{{.Name}}"]).ok().says("new");
    let one = json(&umiak.run(&["inspect", "--size", "old"]).ok().stdout);
    assert!(one[0]["SizeRw"].is_u64() && one[0]["SizeRootFs"].as_u64() > one[0]["SizeRw"].as_u64());
    assert!(json(&umiak.run(&["inspect", "old"]).ok().stdout)[0]["SizeRw"].is_null());
    // A name of several kinds is a container first, then an image, then a volume.
    umiak.run(&["inspect", "-f", "{{.Driver}}", "vol"]).ok().says("local");
    umiak.run(&["inspect", "-t", "volume", "-f", "{{.Name}}", "vol"]).ok().says("vol");
    umiak.run(&["network", "create", "net"]).ok();
    umiak.run(&["inspect", "-f", "{{.Name}} {{.Driver}}", "net"]).ok().says("net bridge");
    let network = umiak.run(&["inspect", "-t", "network", "net"]).ok().stdout;
    assert_eq!(network, umiak.run(&["network", "inspect", "net"]).ok().stdout);
    umiak.run(&["inspect", "-t", "network", "vol"]).exits(125).tells("no such network");
    umiak.run(&["network", "rm", "net"]).ok();
    umiak.run(&["inspect", "-t", "container", "vol"]).exits(125).tells("no such container");
    umiak.run(&["inspect", "-t", "volume", "old"]).exits(125).tells("no such volume");
    umiak.run(&["inspect", "-t", "pod", "old"]).exits(125).tells("not supported yet");
    umiak.run(&["inspect", "-t", "thing", "old"]).exits(125).tells("no such type");
    umiak.run(&["inspect", "-l", "old"]).exits(125);
    umiak.run(&["inspect", "-l", "-t", "image"]).exits(125).tells("--latest");
    umiak.run(&["inspect"]).exits(125);
    let host = &one[0]["HostConfig"];
    for key in
        ["BlkioWeight", "CpuPeriod", "CpuQuota", "CpusetCpus", "MemorySwap", "OomKillDisable", "PidsLimit"]
    {
        assert!(!host[key].is_null(), "{key}");
    }
}

#[test]
fn templates_find_what_is_empty() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    umiak.run(&["create", "--name", "box", "--network", "none", "-v", "vol:/vol", "busybox", "true"]).ok();
    let asked = |what: &str, format: &str, told: &str| {
        umiak.run(&["inspect", "-f", format, what]).ok().says(told);
    };
    asked("busybox", "{{.Config.Entrypoint}} {{.Config.Volumes}} {{.Config.User}}.", "[] map[] .");
    asked(
        "busybox",
        "{{with .Config}}{{.ExposedPorts}}{{.ArgsEscaped}}{{end}}{{.Labels}}",
        "map[]falsemap[]",
    );
    asked("busybox", "{{json .Labels}}", "null");
    asked("box", "{{.HostConfig.Init}} {{.HostConfig.Links}} {{.Config.Timezone}}.", "false [] .");
    asked("box", "{{if .Config.Healthcheck}}checked{{else}}unchecked{{end}}", "unchecked");
    asked("vol", "{{.Status}} {{.MountCount}} {{.Timeout}}", "map[] 0 0");
    umiak.run(&["inspect", "-f", "{{.Config.Shiny}}", "busybox"]).exits(125).tells("Shiny");
    umiak.run(&["version", "-f", "{{eq .Client.Version .Server.Version}}"]).ok().says("true");
    assert!(json(&umiak.run(&["version", "-f", "json"]).ok().stdout)["Server"].is_null());
    // A format says what is shown.
    umiak.run(&["ps", "-aq", "--format", "{{.Names}}"]).ok().says("box");
}

#[test]
fn info_has_what_others_ask_for() {
    let umiak = Umiak::new();
    let info = json(&umiak.run(&["info", "-f", "json"]).ok().stdout);
    for path in [
        "/host/distribution/codename",
        "/host/eventLogger",
        "/host/serviceIsRemote",
        "/host/swapTotal",
        "/host/uptime",
        "/plugins/volume",
        "/plugins/log",
        "/registries",
        "/store/graphRootAllocated",
        "/store/graphRootUsed",
        "/store/graphOptions",
        "/version/OsArch",
    ] {
        assert!(info.pointer(path).is_some_and(|value| !value.is_null()), "{path}");
    }
    assert!(info["store"]["graphRootAllocated"].as_u64() > info["store"]["graphRootUsed"].as_u64());
    umiak.run(&["info", "-f", "{{eq .Host.CgroupsVersion .Host.CgroupVersion}}"]).ok().says("true");
    umiak.run(&["info", "-f", "{{.Host.FreeLocks}} {{.Store.TransientStore}}"]).ok().says("0 false");
    umiak.run(&["info", "-f", "{{.Nothing}}"]).exits(125).tells("Nothing");
}

#[test]
fn volumes_are_filtered() {
    let umiak = Umiak::new();
    umiak.run(&["volume", "create", "--label", "a=b", "one"]).ok();
    umiak.run(&["volume", "create", "two"]).ok();
    umiak.run(&["volume", "create", "-o", "type=tmpfs", "-o", "o=size=1m", "small"]).ok();
    umiak.run(&["volume", "ls", "-q", "--filter", "opt=type"]).ok().says("small");
    umiak.run(&["volume", "ls", "-q", "--filter", "opt=o=size=1m"]).ok().says("small");
    umiak.run(&["volume", "ls", "-q", "--filter", "opt=type=nfs"]).ok().says("");
    umiak.run(&["volume", "rm", "small"]).ok();
    for (filter, told) in [
        ("label=a", "one"),
        ("label!=a", "two"),
        ("label!=a=c", "one\ntwo"),
        ("scope=local", "one\ntwo"),
        ("scope=global", ""),
        ("since=one", "two"),
        ("after=two", ""),
        ("until=1h", ""),
        ("until=0s", "one\ntwo"),
    ] {
        umiak.run(&["volume", "ls", "-q", "--filter", filter]).ok().says(told);
    }
    umiak.run(&["volume", "ls", "--filter", "since=strange"]).exits(125).tells("strange");
    umiak.run(&["volume", "ls", "--filter", "until=never"]).exits(125).tells("until=never");
    umiak.run(&["volume", "prune", "--dry-run", "--filter", "label=a"]).ok().says("one");
    umiak.run(&["volume", "exists", "one"]).ok();
    umiak.run(&["volume", "prune", "-a", "-f", "--filter", "label!=a"]).ok().says("two");
    umiak.run(&["volume", "ls", "-q"]).ok().says("one");
}

#[test]
fn removed_with_what_needs_it() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    umiak.detached(&["--name", "base", "--network", "none", "busybox", "sleep", "1000"]);
    umiak
        .run(&["create", "--name", "upon", "--requires", "base", "--network", "none", "busybox", "true"])
        .ok();
    umiak
        .run(&["create", "--name", "third", "--requires", "upon", "--network", "none", "busybox", "true"])
        .ok();
    umiak.run(&["create", "--name", "other", "--network", "none", "busybox", "true"]).ok();
    umiak.run(&["rm", "-f", "-t", "0", "--depend", "base"]).ok();
    umiak.run(&["ps", "-a", "--format", "{{.Names}}"]).ok().says("other");
}
