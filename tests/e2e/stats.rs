//! `stats` and `port`.

use crate::requires;
use crate::support::{Need, Umiak, eventually};

#[test]
fn what_containers_use() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let busy = "while :; do :; done";
    let id = umiak.detached(&["--name", "busy", "--network", "none", "busybox", "sh", "-c", busy]);
    umiak.run(&["create", "--name", "still", "--network", "none", "busybox", "true"]).ok();
    let look = |args: &[&str]| {
        let args: Vec<&str> = ["stats", "--no-stream"].iter().chain(args).copied().collect();
        umiak.run(&args)
    };
    let table = look(&[]).ok().stdout;
    assert!(
        table.starts_with("ID ") && table.contains("MEM USAGE / LIMIT") && table.contains("AVG CPU %"),
        "{table}"
    );
    assert!(table.contains(&id[..12]) && table.contains("busy") && !table.contains("still"), "{table}");
    eventually("it has used some time", || {
        let cpu = look(&["--format", "{{.CPUNano}}", "busy"]).ok().stdout;
        cpu.trim().parse::<u64>().unwrap() > 100_000_000
    });
    let json: serde_json::Value =
        serde_json::from_str(&look(&["--format", "json", "busy"]).ok().stdout).unwrap();
    let one = &json[0];
    for key in [
        "id",
        "name",
        "cpu_time",
        "cpu_percent",
        "avg_cpu",
        "mem_usage",
        "mem_percent",
        "net_io",
        "block_io",
        "pids",
    ] {
        assert!(one[key].is_string(), "{key}: {one}");
    }
    assert_eq!((one["name"].as_str(), one["pids"].as_str()), (Some("busy"), Some("1")));
    let memory = look(&["--format", "{{.MemUsageBytes}}", "busy"]).ok().stdout;
    assert!(memory.contains("iB / ") && !memory.contains("--"), "{memory}");
    // Of what does not run nothing is known.
    look(&["--format", "{{.Name}} {{.CPUPerc}} {{.MemUsage}} {{.PIDS}}", "still"])
        .ok()
        .says("still -- -- / -- --");
    assert_eq!(look(&["-a", "--format", "{{.Name}}"]).ok().stdout.lines().count(), 2);
    look(&["--no-trunc", "--format", "{{.ID}}", "busy"]).ok().says(&id);
    look(&["-l", "--format", "{{.Name}}"]).ok();
    look(&["--format", "{{.Nothing}}"]).exits(125).tells("Nothing");
    look(&["strange"]).exits(125).tells("strange");
    look(&["-a", "busy"]).exits(125).tells("together");
    look(&["-i", "0"]).exits(125).tells("interval");
    // It goes on until it is ended.
    let mut child = umiak.spawn(&["stats", "-i", "1", "--format", "{{.Name}}", "busy"]);
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap());
    for _ in 0..2 {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut lines, &mut line).unwrap();
        assert_eq!(line, "busy\n");
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn ports() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    umiak.detached(&["--name", "box", "--network", "none", "busybox", "sleep", "1000"]);
    umiak.run(&["port", "box"]).ok().says("");
    umiak.run(&["port", "-a"]).ok().says("");
    umiak.run(&["container", "port", "-l"]).ok().says("");
    umiak.run(&["port", "box", "80"]).exits(125).tells("80/tcp");
    umiak.run(&["port", "-l", "53/udp"]).exits(125).tells("53/udp");
    for bad in ["x", "0", "70000", "80/x", ""] {
        umiak.run(&["port", "box", bad]).exits(125).tells("is no port");
    }
    umiak.run(&["port", "strange"]).exits(125).tells("strange");
    umiak.run(&["port"]).exits(125).tells("name a container");
    umiak.run(&["port", "-a", "box"]).exits(125).tells("--all");
}
