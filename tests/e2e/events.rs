//! The event log: every change is in it, as Podman tells it.

use std::io::{BufRead, BufReader};

use crate::requires;
use crate::support::{Need, Umiak, eventually, finish};

/// `TYPE STATUS NAME` of all events so far, for these filters.
fn told(umiak: &Umiak, filters: &[&str]) -> Vec<String> {
    let mut words = vec!["events", "--stream=false", "--format", "{{.Type}} {{.Status}} {{.Name}}"];
    filters.iter().for_each(|filter| words.extend(["--filter", filter]));
    umiak.run(&words).ok().stdout.lines().map(str::to_owned).collect()
}

#[test]
fn the_life_of_a_container() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let words = ["run", "--rm", "--name", "box", "--label", "a=b", "--network", "none", "busybox"];
    umiak.run(&[&words[..], &["sh", "-c", "exit 3"]].concat()).exits(3);
    let life = ["create", "init", "start", "died", "remove"];
    let expected: Vec<String> = life.iter().map(|status| format!("container {status} box")).collect();
    assert_eq!(told(&umiak, &["type=container"]), expected);
    assert_eq!(told(&umiak, &["container=box", "event=died", "event=start"]), [&*expected[2], &expected[3]]);
    assert_eq!(told(&umiak, &["label=a=b", "event=died"]), [&*expected[3]]);
    assert_eq!(told(&umiak, &["label=a=c"]), [""; 0]);
    assert_eq!(told(&umiak, &["image=busybox", "type=container"]).len(), 5);
    let json = umiak.run(&["events", "--stream=false", "--format", "json", "-f", "event=died"]).ok().stdout;
    let event: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&event["Name"], &event["Type"], &event["Status"], &event["ContainerExitCode"]),
        (&"box".into(), &"container".into(), &"died".into(), &3.into())
    );
    assert_eq!(
        (&event["Image"], &event["Attributes"]["a"]),
        (&"localhost/busybox:latest".into(), &"b".into())
    );
    let id = event["ID"].as_str().unwrap();
    let line = umiak.run(&["events", "--stream=false", "--filter", "event=died"]).ok().stdout;
    let end = format!(" container died {id} (image=localhost/busybox:latest, name=box, a=b)\n");
    assert!(line.ends_with(&end), "{line}");
    let line = umiak.run(&["events", "--stream=false", "--no-trunc=false", "-f", "event=died"]).ok();
    line.has(&format!("died {} (", &id[..12]));
}

#[test]
fn every_change_is_told() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    umiak.detached(&["--name", "box", "--network", "none", "-v", "data:/data", "busybox", "sleep", "1000"]);
    umiak.run(&["exec", "box", "false"]).exits(1);
    umiak.run(&["rename", "box", "other"]).ok();
    umiak.run(&["kill", "-s", "CONT", "other"]).ok();
    umiak.run(&["stop", "-t", "0", "other"]).ok();
    umiak.run(&["commit", "-q", "other", "new"]).ok();
    umiak.run(&["rm", "other"]).ok();
    umiak.run(&["tag", "new", "newer"]).ok();
    umiak.run(&["untag", "new", "newer"]).ok();
    umiak.run(&["rmi", "new"]).ok();
    umiak.run(&["volume", "rm", "data"]).ok();
    let all = told(&umiak, &[]).join("\n");
    for event in [
        "image pull ",
        "volume create data",
        "container create box",
        "container exec box",
        "container exec_died box",
        "container rename other",
        "container kill other",
        "container stop other",
        "container died ",
        "container commit other",
        "container remove other",
        "image tag localhost/newer:latest",
        "image untag localhost/newer:latest",
        "image remove ",
        "volume remove data",
    ] {
        assert!(all.lines().any(|line| line.starts_with(event)), "no \"{event}\" in:\n{all}");
    }
    assert_eq!(told(&umiak, &["volume=data"]), ["volume create data", "volume remove data"]);
}

#[test]
fn restarts_and_health_are_told() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let words =
        ["run", "--restart", "on-failure:1", "--name", "box", "--network", "none", "busybox", "false"];
    umiak.run(&words).exits(1);
    let life = told(&umiak, &["container=box"]).iter().filter(|line| line.contains("restart")).count();
    assert_eq!(life, 1);
    let flags = ["--health-cmd", "true", "--health-interval", "disable"];
    umiak.detached(
        &[&["--name", "ill"], &flags[..], &["--network", "none", "busybox", "sleep", "9"]].concat(),
    );
    umiak.run(&["healthcheck", "run", "ill"]).ok();
    let line = ["events", "--stream=false", "-f", "event=health_status", "--format", "{{.HealthStatus}}"];
    umiak.run(&line).ok().says("healthy");
}

#[test]
fn events_are_followed_and_end_in_time() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    umiak.run(&["volume", "create", "before"]).ok();
    let words = ["events", "--filter", "type=volume", "--format", "{{.Status}} {{.Name}}"];
    let mut follow = umiak.spawn(&words);
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    // Until it listens there is nobody to hear.
    let mut number = 0;
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        while let Some(Ok(line)) = lines.next() {
            let _ = sender.send(line);
        }
    });
    let mut first = String::new();
    eventually("it tells of a new volume", || {
        number += 1;
        umiak.run(&["volume", "create", &format!("new{number}")]).ok();
        receiver.recv_timeout(std::time::Duration::from_millis(200)).map(|line| first = line).is_ok()
    });
    assert!(first.starts_with("create new"), "{first}");
    follow.kill().unwrap();
    follow.wait().unwrap();
    let run = umiak.spawn(&["events", "--since", "1h", "--until", "-1s", "--filter", "volume=before"]);
    finish(run, b"", "events".to_owned()).ok().has("volume create before");
    let line = ["events", "--since", "1h", "--until", "30m", "--filter", "volume=before"];
    umiak.run(&line).ok().says("");
}

#[test]
fn nonsense() {
    let umiak = Umiak::new();
    umiak.run(&["events", "--stream=false"]).ok().says("");
    umiak.run(&["events", "--since", "yesterday"]).exits(125).tells("yesterday");
    umiak.run(&["events", "--until", "never"]).exits(125).tells("never");
    umiak.run(&["events", "--filter", "colour=red"]).exits(125).tells("colour");
    umiak.run(&["events", "--filter", "event"]).exits(125).tells("KEY=VALUE");
    umiak.run(&["events", "--filter", "pod=x"]).exits(125).tells("not supported yet");
    umiak.run(&["events", "--format", "{{.Nothing"]).exits(125).tells("format");
    umiak.run(&["volume", "create", "x"]).ok();
    umiak.run(&["events", "--stream=false", "--format", "{{.Nothing}}"]).exits(125).tells("Nothing");
    umiak.run(&["system", "events", "--stream=false"]).ok().has("volume create x");
}
