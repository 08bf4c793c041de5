//! What a configuration that is refused leaves behind: nothing.

use super::*;

/// What may be left of a container: processes, directories, mounts, control groups.
pub fn left(b: &Bundle) -> Vec<String> {
    let mut left = Vec::new();
    let id = b.id.as_bytes();
    let contains = |bytes: &[u8]| bytes.windows(id.len()).any(|window| window == id);
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let pid = entry.file_name().to_string_lossy().into_owned();
        if !pid.bytes().all(|c| c.is_ascii_digit()) {
            continue;
        }
        let cgroup = std::fs::read(entry.path().join("cgroup")).unwrap_or_default();
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let root = std::fs::read_link(entry.path().join("root")).unwrap_or_default();
        // What is dead waits for the machine's first process to reap it, which may take its time.
        if command.is_empty() {
            continue;
        }
        if contains(&cgroup) || contains(&command) || root.starts_with(b.rootfs()) {
            left.push(format!("process {pid}: {}", String::from_utf8_lossy(&command).replace('\0', " ")));
        }
    }
    if b.dir.join("state").join(&b.id).exists() {
        left.push("its state".to_owned());
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let dir = b.dir.to_str().unwrap();
    left.extend(mounts.lines().filter(|line| line.contains(dir)).map(|line| format!("mount {line}")));
    for root in ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"] {
        groups(Path::new(root), &b.id, 0, &mut left);
    }
    left
}

fn groups(at: &Path, id: &str, depth: u32, left: &mut Vec<String>) {
    for entry in std::fs::read_dir(at).into_iter().flatten().flatten() {
        let path = entry.path();
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) || depth > 4 {
            continue;
        }
        if path.to_string_lossy().contains(id) {
            left.push(format!("control group {}", path.display()));
        }
        groups(&path, id, depth + 1, left);
    }
}

pub fn assert_nothing_left(b: &Bundle, what: &str) {
    for _ in 0..100 {
        if left(b).is_empty() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("{what}: {:#?}", left(b));
}

#[test]
fn a_refused_configuration_leaves_nothing() {
    each(|b| {
        let good = b.config.clone();
        let cases = [
            // Found out by the planner.
            ("/ociVersion", json!("9")),
            ("/process/args", json!([])),
            ("/process/cwd", json!("x")),
            ("/root/path", json!("nosuch")),
            ("/mounts/0/destination", json!("/..")),
            ("/linux/namespaces", json!([])),
            ("/linux/seccomp/defaultAction", json!("X")),
            // By the init, when much has been made already.
            ("/process/user", json!({"uid": 0, "gid": 0, "umask": 4096})),
            ("/process/args", json!(["/nosuch"])),
            ("/mounts/0/type", json!("nosuchfs")),
            ("/mounts/1", json!({"destination": "/x", "type": "bind", "source": "/nosuch/source"})),
            ("/mounts/1/options", json!(["nosuchoption"])),
            ("/linux/devices", json!([{"path": "/proc/1/x", "type": "c", "major": 1, "minor": 3}])),
            ("/linux/sysctl", json!({"net.nosuch": "1"})),
            ("/hooks", json!({"createRuntime": [{"path": "/nosuch"}]})),
            ("/hooks", json!({"createContainer": [{"path": "/nosuch"}]})),
            ("/hooks", json!({"startContainer": [{"path": "/nosuch"}]})),
            ("/hooks", json!({"poststart": [{"path": "/nosuch"}]})),
            ("/linux/resources", json!({"unified": {"nosuch.limit": "1"}})),
            ("/linux/intelRdt", json!({"closID": "nosuch"})),
        ];
        for (pointer, value) in cases {
            b.config = good.clone();
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            match b.config.pointer_mut(parent).unwrap() {
                Value::Array(list) => list[key.parse::<usize>().unwrap()] = value,
                other => other[key] = value,
            }
            let (_, err, code) = b.run();
            let lines = err.lines().filter(|line| !line.starts_with("hint: ")).count();
            assert!(code == 1 && lines == 1 && err.starts_with("error: "), "{pointer}: {code} {err}");
            assert_nothing_left(b, pointer);
        }
        b.config = good;
    });
}
