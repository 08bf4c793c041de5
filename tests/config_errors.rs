//! Every field of a configuration, made wrong in every way: the planner must not panic, and what it
//! refuses it must name. Pure: nothing is forked or mounted.
#![allow(clippy::disallowed_methods, clippy::disallowed_macros)]

use serde_json::{Value, json};
use umiak::runtime::plan::{self, Inputs};
use umiak::runtime::{CreateRequest, Rootfs, config};

/// A configuration that has every field.
fn whole() -> Value {
    let hook = json!([{"path": "/bin/true", "args": ["true"], "env": ["A=b"], "timeout": 5}]);
    json!({
        "ociVersion": "1.3.0",
        "hostname": "h", "domainname": "d",
        "annotations": {"a": "b"},
        "root": {"path": "rootfs", "readonly": true},
        "process": {
            "terminal": false, "consoleSize": {"height": 24, "width": 80},
            "user": {"uid": 1, "gid": 2, "umask": 18, "additionalGids": [3]},
            "args": ["true"], "env": ["PATH=/bin"], "cwd": "/",
            "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"],
                "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"]},
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2}],
            "apparmorProfile": "p", "selinuxLabel": "l", "noNewPrivileges": true, "oomScoreAdj": 5,
            "scheduler": {"policy": "SCHED_FIFO", "priority": 5, "nice": 1, "flags": ["SCHED_FLAG_RESET_ON_FORK"]},
            "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4},
            "execCPUAffinity": {"initial": "0-1", "final": "0"},
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/v", "type": "bind", "source": "/v", "options": ["rbind", "rro", "rslave"],
                "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 5}],
                "gidMappings": [{"containerID": 0, "hostID": 1000, "size": 5}]},
        ],
        "hooks": {"prestart": hook, "createRuntime": hook, "createContainer": hook, "startContainer": hook,
            "poststart": hook, "poststop": hook},
        "linux": {
            "namespaces": [{"type": "mount"}, {"type": "pid", "path": "/proc/1/ns/pid"}, {"type": "uts"},
                {"type": "network"}, {"type": "user"}, {"type": "time"}, {"type": "ipc"}],
            "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}],
            "gidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}],
            "timeOffsets": {"boottime": {"secs": 5, "nanosecs": 6}},
            "devices": [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 438, "uid": 0, "gid": 0}],
            "netDevices": {"eth7": {"name": "eth0"}},
            "cgroupsPath": "/a",
            "resources": {"memory": {"limit": 1000000}, "pids": {"limit": 5}, "devices": [{"allow": false, "access": "rwm"}]},
            "rootfsPropagation": "rslave",
            "seccomp": {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "architectures": ["SCMP_ARCH_X86_64"],
                "flags": ["SECCOMP_FILTER_FLAG_LOG"], "listenerPath": "/l", "listenerMetadata": "m",
                "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW", "errnoRet": 1,
                    "args": [{"index": 0, "value": 1, "valueTwo": 2, "op": "SCMP_CMP_EQ"}]}]},
            "sysctl": {"net.ipv4.ip_forward": "1"},
            "maskedPaths": ["/proc/kcore"], "readonlyPaths": ["/proc/sys"],
            "mountLabel": "l",
            "intelRdt": {"closID": "c", "schemata": ["L3:0=f"], "enableMonitoring": true},
            "memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]},
            "personality": {"domain": "LINUX"},
        },
    })
}

/// What the planner says of a configuration.
fn outcome(config: &Value) -> Result<(), String> {
    let chain = |error: &dyn std::error::Error| umiak::base::report::chain(error);
    let spec = config::parse(config.to_string().as_bytes()).map_err(|e| chain(&e))?.value;
    if let Some(profile) = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref()) {
        umiak::seccomp::compile(profile).map_err(|e| chain(&e))?;
    }
    let request = CreateRequest::new("id".into(), spec, "/b".into(), Rootfs::Dir("rootfs".into()));
    for root in [true, false] {
        plan::plan(&request, Inputs { root, terminal: true, filter: None }).map_err(|e| chain(&e))?;
    }
    Ok(())
}

/// The pointers of all values in a configuration.
fn pointers(value: &Value, at: &str, into: &mut Vec<String>) {
    if !at.is_empty() {
        into.push(at.to_owned());
    }
    let escape = |key: &str| key.replace('~', "~0").replace('/', "~1");
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(key, value)| pointers(value, &format!("{at}/{}", escape(key)), into))
        }
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(i, value)| pointers(value, &format!("{at}/{i}"), into))
        }
        _ => {}
    }
}

fn wrong_values() -> Vec<Value> {
    vec![
        Value::Null,
        json!(true),
        json!(0),
        json!(-1),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(1e300),
        json!(0.5),
        json!(""),
        json!("odd"),
        json!("a\u{0}b"),
        json!("../.."),
        json!("/../.."),
        json!("0-99999999999"),
        json!("x".repeat(70_000)),
        json!([]),
        json!([null]),
        json!([""]),
        json!(["a", "a"]),
        json!([[]]),
        json!({}),
        json!({"": ""}),
        json!({"x": {"x": 1}}),
    ]
}

/// Whether an error names the field at a pointer, or the list or object that it is in.
fn names(error: &str, pointer: &str) -> bool {
    let keys = pointer.split('/').skip(1).filter(|key| key.parse::<usize>().is_err());
    let keys: Vec<String> = keys.map(|key| key.replace("~1", "/").replace("~0", "~")).collect();
    keys.iter().rev().take(2).any(|key| error.contains(key.as_str()))
}

/// What a field may contradict, if not itself: a change of the first shows in the second.
const CONTRADICT: [(&str, &str); 6] = [
    // Without the namespaces nothing that needs one can be.
    ("/linux/namespaces", "linux."),
    ("/linux/namespaces", "hostname"),
    ("/linux/namespaces", "mounts"),
    ("/linux", "hostname"),
    // Ids that are not mapped.
    ("/linux/uidMappings", "linux.devices"),
    ("/linux/gidMappings", "linux.devices"),
];

fn explained(error: &str, pointer: &str) -> bool {
    names(error, pointer)
        || CONTRADICT.iter().any(|(changed, shown)| pointer.starts_with(changed) && error.contains(shown))
}

#[test]
fn the_whole_configuration_is_right() {
    assert_eq!(outcome(&whole()), Ok(()));
}

#[test]
fn whatever_is_wrong_is_named() {
    let whole = whole();
    let mut all = Vec::new();
    pointers(&whole, "", &mut all);
    let (mut refused, mut unnamed) = (0, Vec::new());
    let mut check = |config: &Value, pointer: &str, what: &str| {
        if let Err(error) = outcome(config) {
            refused += 1;
            assert!(!error.contains('\n') && !error.contains('\0'), "{pointer}: {error}");
            if !explained(&error, pointer) {
                unnamed.push(format!("{pointer} {what}: {}", error.chars().take(200).collect::<String>()));
            }
        }
    };
    for pointer in &all {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let key = key.replace("~1", "/").replace("~0", "~");
        let mut without = whole.clone();
        match without.pointer_mut(parent).unwrap() {
            Value::Object(map) => drop(map.remove(&key)),
            Value::Array(list) => drop(list.remove(key.parse().unwrap())),
            other => panic!("{other}"),
        }
        check(&without, pointer, "left out");
        for value in wrong_values() {
            let mut changed = whole.clone();
            *changed.pointer_mut(pointer).unwrap() = value.clone();
            check(&changed, pointer, &value.to_string().chars().take(40).collect::<String>());
        }
        // Twice, where there is a list.
        if let Value::Array(list) = whole.pointer(pointer).unwrap() {
            let mut changed = whole.clone();
            *changed.pointer_mut(pointer).unwrap() = list.iter().chain(list).cloned().collect();
            check(&changed, pointer, "doubled");
        }
    }
    assert!(unnamed.is_empty(), "{} of {refused}:\n{}", unnamed.len(), unnamed.join("\n"));
    assert!(refused > 2000, "{refused}");
}

#[test]
fn text_that_is_no_configuration_is_refused() {
    let text = whole().to_string();
    for bad in ["", "{", "null", "[]", "\"x\"", "7", "{}", "\u{feff}{}", "{\"ociVersion\":\"1.0.0\"}x"] {
        assert!(outcome_of_text(bad).is_err(), "{bad}");
    }
    // Cut off anywhere.
    for end in (0..text.len()).step_by(7) {
        assert!(outcome_of_text(&text[..end]).is_err());
    }
}

fn outcome_of_text(text: &str) -> Result<(), String> {
    let spec = config::parse(text.as_bytes()).map_err(|error| error.to_string())?.value;
    let request = CreateRequest::new("id".into(), spec, "/b".into(), Rootfs::Dir("rootfs".into()));
    plan::plan(&request, Inputs::default()).map(drop).map_err(|error| error.to_string())
}

/// Fields that make no sense together, though each does alone; and what the error names.
fn contradictions() -> Vec<(Vec<(&'static str, Value)>, &'static str)> {
    let mapping = json!([{"containerID": 0, "hostID": 1000, "size": 10}]);
    vec![
        (vec![("/linux/namespaces", json!([{"type": "pid"}]))], "linux.namespaces"),
        (
            vec![("/linux/namespaces", json!([{"type": "mount"}, {"type": "mount"}]))],
            "linux.namespaces[1].type",
        ),
        (vec![("/linux/gidMappings", json!([]))], "linux.gidMappings"),
        (
            vec![(
                "/linux/namespaces",
                json!([{"type": "mount"}, {"type": "uts"}, {"type": "network"}, {"type": "time"}]),
            )],
            "linux.uidMappings",
        ),
        (
            vec![
                ("/linux/uidMappings", json!([mapping[0], mapping[0]])),
                ("/linux/gidMappings", mapping.clone()),
            ],
            "linux.uidMappings[1]",
        ),
        (vec![("/mounts/1/gidMappings", json!([]))], "mounts[1].uidMappings"),
        (vec![("/mounts/1/source", Value::Null)], "mounts[1].source"),
        (vec![("/mounts/1/options", json!(["rbind", "nr_inodes=1"]))], "mounts[1].options"),
        (vec![("/mounts/0/options", json!(["idmap"]))], "mounts[0].options"),
        (vec![("/process/scheduler", json!({"policy": "SCHED_FIFO"}))], "process.scheduler"),
        (vec![("/process/scheduler", json!({"policy": "SCHED_OTHER", "priority": 5}))], "process.scheduler"),
        (
            vec![("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_NOTIFY", "syscalls": []}))],
            "linux.seccomp",
        ),
        (
            vec![("/linux/intelRdt", json!({"schemata": ["L3:0=f"], "l3CacheSchema": "L3:0=f"}))],
            "linux.intelRdt",
        ),
        (vec![("/linux/netDevices", json!({"a": {"name": "x"}, "b": {"name": "x"}}))], "linux.netDevices"),
        (vec![("/linux/memoryPolicy", json!({"mode": "MPOL_BIND"}))], "linux.memoryPolicy"),
        (vec![("/hostname", json!("x".repeat(65)))], "hostname"),
        (vec![("/process/terminal", json!(true)), ("/process/cwd", json!("."))], "process.cwd"),
    ]
}

#[test]
fn what_contradicts_itself_is_refused() {
    for (changes, named) in contradictions() {
        let mut config = whole();
        for (pointer, value) in &changes {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            match (config.pointer_mut(parent).unwrap(), value) {
                (Value::Object(map), Value::Null) => drop(map.remove(key)),
                (parent, value) => parent[key] = value.clone(),
            }
        }
        let error = outcome(&config).expect_err(&format!("{changes:?}"));
        assert!(error.contains(named), "{changes:?}: {error}");
    }
}

#[test]
fn unknown_fields_are_passed_over_and_unknown_words_are_not() {
    let mut all = Vec::new();
    pointers(&whole(), "", &mut all);
    all.push(String::new());
    for pointer in all {
        let mut config = whole();
        // In maps of free keys any key means something.
        let free = ["/annotations", "/linux/sysctl", "/linux/netDevices", "/linux/timeOffsets"];
        if let Value::Object(map) = config.pointer_mut(&pointer).unwrap()
            && !free.iter().any(|map| *map == pointer)
        {
            map.insert("a field of the future".into(), json!({"x": [1]}));
            assert_eq!(outcome(&config), Ok(()), "{pointer}");
        }
    }
    for (pointer, named) in [
        ("/linux/namespaces/0/type", "linux.namespaces[0].type"),
        ("/linux/seccomp/defaultAction", "linux.seccomp.defaultAction"),
        ("/linux/seccomp/syscalls/0/args/0/op", "linux.seccomp.syscalls[0].args[0].op"),
        ("/process/rlimits/0/type", "process.rlimits[0].type"),
        ("/process/ioPriority/class", "process.ioPriority.class"),
        ("/process/scheduler/policy", "process.scheduler.policy"),
        ("/linux/memoryPolicy/mode", "linux.memoryPolicy.mode"),
        ("/linux/rootfsPropagation", "linux.rootfsPropagation"),
        ("/linux/devices/0/type", "linux.devices[0].type"),
    ] {
        let mut config = whole();
        *config.pointer_mut(pointer).unwrap() = json!("of the future");
        let error = outcome(&config).expect_err(pointer);
        assert!(error.contains(named), "{pointer}: {error}");
    }
}

/// Numbers that are the same each time (xorshift64*).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound.max(1)
    }
}

/// Changes a random value of a configuration; tells which.
fn mutate(config: &mut Value, dice: &mut Dice, donors: &[Value]) -> String {
    let mut all = Vec::new();
    pointers(config, "", &mut all);
    if all.is_empty() {
        *config = whole();
        return String::new();
    }
    let pointer = all.swap_remove(dice.below(all.len()));
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let key = key.replace("~1", "/").replace("~0", "~");
    match dice.below(5) {
        0 => match config.pointer_mut(parent).unwrap() {
            Value::Object(map) => drop(map.remove(&key)),
            Value::Array(list) => drop(list.remove(key.parse().unwrap())),
            other => panic!("{other}"),
        },
        // A value from elsewhere, which may even be of the right type.
        1 => *config.pointer_mut(&pointer).unwrap() = donors[dice.below(donors.len())].clone(),
        2 => match config.pointer_mut(&pointer).unwrap() {
            Value::Number(number) => {
                let old = number.as_i64().unwrap_or(0);
                let near =
                    [old.wrapping_add(1), old.wrapping_neg(), old.wrapping_mul(1 << 20), i64::MAX, 4096];
                *number = near[dice.below(near.len())].into();
            }
            Value::String(text) => {
                let at = dice.below(text.len() + 1);
                if text.is_char_boundary(at) {
                    text.insert_str(at, ["/", "..", "\0", ":", " ", "ä", "-", "9999999999"][dice.below(8)]);
                }
            }
            Value::Array(list) => list.reverse(),
            Value::Bool(value) => *value = !*value,
            other => *other = json!([other.clone()]),
        },
        3 => {
            let value = wrong_values();
            *config.pointer_mut(&pointer).unwrap() = value[dice.below(value.len())].clone();
        }
        _ => match config.pointer_mut(&pointer).unwrap() {
            Value::Array(list) if !list.is_empty() => list.push(list[dice.below(list.len())].clone()),
            Value::Object(map) => drop(map.insert(["path", "type", "x"][dice.below(3)].into(), json!("x"))),
            other => *other = json!(other.to_string()),
        },
    }
    pointer
}

#[test]
fn thousands_of_mutants_are_understood_or_refused_by_name() {
    let seed = std::env::var("UMIAK_FUZZ_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let count = std::env::var("UMIAK_FUZZ_COUNT").ok().and_then(|count| count.parse().ok()).unwrap_or(2500);
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15 ^ seed);
    let whole = whole();
    let mut all = Vec::new();
    pointers(&whole, "", &mut all);
    let donors: Vec<Value> = all.iter().map(|pointer| whole.pointer(pointer).unwrap().clone()).collect();
    let (mut refused, mut unnamed) = (0, Vec::new());
    for case in 0..count {
        let mut config = whole.clone();
        let changed: Vec<String> =
            (0..=dice.below(3)).map(|_| mutate(&mut config, &mut dice, &donors)).collect();
        let Err(error) = outcome(&config) else { continue };
        refused += 1;
        assert!(!error.chars().any(char::is_control), "seed {seed}, case {case}: {error}");
        let known =
            changed.iter().any(|pointer| explained(&error, pointer) || error.contains("the configuration"));
        if !known {
            unnamed.push(format!("case {case} {changed:?}: {error}"));
        }
    }
    assert!(unnamed.is_empty(), "seed {seed}, {} of {refused}:\n{}", unnamed.len(), unnamed.join("\n"));
    assert!(refused > count / 3, "{refused} of {count}");
}

#[test]
fn mutants_of_the_text_do_no_harm() {
    let seed: u64 = std::env::var("UMIAK_FUZZ_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let mut dice = Dice(0x1234_5678_9abc_def1 ^ seed);
    let text = whole().to_string().into_bytes();
    let mut refused = 0;
    for case in 0..3000 {
        let mut bytes = text.clone();
        for _ in 0..=dice.below(4) {
            let at = dice.below(bytes.len());
            let end = (at + dice.below(20)).min(bytes.len());
            match dice.below(4) {
                0 => bytes[at] = dice.below(256) as u8,
                1 => drop(bytes.drain(at..end)),
                2 => {
                    let piece = bytes[at..end].to_vec();
                    let to = dice.below(bytes.len());
                    bytes.splice(to..to, piece);
                }
                _ => bytes.insert(at, b"{}[]\",:0-\\"[dice.below(10)]),
            }
        }
        // What cannot be sent as text is read as bytes all the same.
        match config::parse(&bytes) {
            Err(error) => {
                refused += 1;
                let error = umiak::base::report::chain(&error);
                assert!(!error.chars().any(char::is_control), "seed {seed}, case {case}: {error}");
            }
            Ok(config) => {
                let request =
                    CreateRequest::new("id".into(), config.value, "/b".into(), Rootfs::Dir("rootfs".into()));
                let _ = plan::plan(&request, Inputs::default());
            }
        }
    }
    assert!(refused > 1500, "{refused}");
}
