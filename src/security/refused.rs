//! Why the kernel refuses a user namespace: from its answer and what stands around, the cause and the cure. The
//! kernel has one error for several causes; which it was is told by switches and by where we are.

use std::path::Path;

use super::capability;

/// What is looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signs {
    /// `/proc/sys/user/max_user_namespaces`.
    pub most: Option<i64>,
    /// `/proc/sys/kernel/unprivileged_userns_clone`, which some distributions' kernels have.
    pub switch: Option<i64>,
    /// `/proc/sys/kernel/apparmor_restrict_unprivileged_userns`.
    pub apparmor: Option<i64>,
    /// The root directory is not that of the mount namespace.
    pub chroot: bool,
    /// A seccomp filter is in force for us.
    pub filtered: bool,
    /// Kinds of namespaces of which none may be made: `user.max_KIND_namespaces` is 0.
    pub forbidden: Vec<&'static str>,
    /// We are root without CAP_SETFCAP, who may not give his id to a user namespace (user_namespaces(7)).
    pub powerless_root: bool,
    /// What kind of container we are in, as far as it can be seen.
    pub container: Option<&'static str>,
}

/// The other kinds of namespaces that containers have.
const KINDS: [&str; 6] = ["mnt", "ipc", "uts", "cgroup", "net", "pid"];

/// When it was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It could not be made.
    Made,
    /// It was made, and gave no powers.
    Used,
}

/// What it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// A short name that does not change.
    pub id: &'static str,
    /// For people, with the evidence.
    pub text: String,
    /// What mends it.
    pub cure: String,
}

impl Signs {
    /// Of this process.
    pub fn gather() -> Self {
        let number = |name: &str| {
            let text = std::fs::read_to_string(format!("/proc/sys/{name}")).ok()?;
            text.trim().parse().ok()
        };
        Self {
            most: number("user/max_user_namespaces"),
            switch: number("kernel/unprivileged_userns_clone"),
            apparmor: number("kernel/apparmor_restrict_unprivileged_userns"),
            chroot: is_chroot(),
            filtered: status("Seccomp").is_some_and(|value| value != "0"),
            forbidden: KINDS
                .into_iter()
                .filter(|kind| number(&format!("user/max_{kind}_namespaces")) == Some(0))
                .collect(),
            powerless_root: rustix::process::geteuid().is_root() && !has("SETFCAP"),
            container: container(),
        }
    }

    /// The cause of a refusal with this error number.
    pub fn cause(&self, stage: Stage, errno: i32) -> Cause {
        let cause = |id, text: &str, cure: &str| Cause { id, text: text.to_owned(), cure: cure.to_owned() };
        match errno {
            libc::ENOSPC | libc::EUSERS if self.most == Some(0) => cause(
                "max-user-namespaces",
                "user.max_user_namespaces is 0: nobody may make user namespaces",
                "as root: sysctl user.max_user_namespaces=65536",
            ),
            libc::ENOSPC | libc::EUSERS if !self.forbidden.is_empty() => {
                let kind = self.forbidden[0];
                Cause {
                    id: "namespace-limit",
                    text: format!("user.max_{kind}_namespaces is 0: no {kind} namespace can be made"),
                    cure: format!("as root: sysctl user.max_{kind}_namespaces=65536"),
                }
            }
            libc::ENOSPC | libc::EUSERS => cause(
                "too-many-user-namespaces",
                "there are as many user namespaces as the kernel allows, or 32 within each other",
                "as root: sysctl user.max_user_namespaces=65536, where containers are not nested too deep",
            ),
            libc::EINVAL => cause(
                "no-user-namespaces",
                "the kernel was built without user namespaces (CONFIG_USER_NS)",
                "install a kernel that has them, or run umiak as root",
            ),
            libc::EAGAIN => cause(
                "too-many-processes",
                "the limit of processes is reached (ulimit -u)",
                "ulimit -u unlimited, or as root a higher \"nproc\" in /etc/security/limits.conf",
            ),
            _ if self.switch == Some(0) => cause(
                "unprivileged-userns-clone",
                "kernel.unprivileged_userns_clone is 0: only root may make user namespaces",
                "as root: sysctl kernel.unprivileged_userns_clone=1",
            ),
            _ if self.chroot && stage == Stage::Made => cause(
                "chroot",
                "this is a chroot, where the kernel makes no user namespaces",
                "use pivot_root(8) or a container instead of chroot, or run umiak outside",
            ),
            _ if self.powerless_root && stage == Stage::Used => cause(
                "root-without-setfcap",
                "root without CAP_SETFCAP may not give its id to a user namespace",
                "run umiak as another user than root, or start the container around with --cap-add SETFCAP",
            ),
            _ if self.filtered => self.filter(),
            _ if self.apparmor == Some(1) => cause(
                "apparmor-userns",
                "kernel.apparmor_restrict_unprivileged_userns is 1: user namespaces give no powers without a profile",
                &apparmor_cure(),
            ),
            _ => cause(
                "userns-forbidden",
                "the kernel refuses user namespaces, and no switch that is known says why: a security module, a \
                 chroot, or what surrounds us",
                "look into the kernel's log for denials (dmesg); or run umiak as root",
            ),
        }
    }

    fn filter(&self) -> Cause {
        let (place, cure) = match self.container {
            Some("kubernetes") => (
                " of this Kubernetes pod",
                "in the pod's securityContext: seccompProfile: {type: Unconfined}, procMount: Unmasked",
            ),
            Some("docker") => (
                " of this Docker container",
                "start it with --security-opt seccomp=unconfined --security-opt systempaths=unconfined",
            ),
            Some(_) => (
                " of this container",
                "start it with --security-opt seccomp=unconfined --security-opt unmask=ALL",
            ),
            None => ("", "allow clone and unshare with CLONE_NEWUSER, and mount, where the filter is set"),
        };
        Cause {
            id: "seccomp-filter",
            text: format!("the seccomp filter{place} forbids user namespaces or mounts in them"),
            cure: cure.to_owned(),
        }
    }
}

/// A profile that gives this program, and no other, what it needs.
fn apparmor_cure() -> String {
    let path = std::fs::read_link("/proc/self/exe").unwrap_or_else(|_| "/usr/bin/umiak".into());
    format!(
        "as root: printf 'abi <abi/4.0>,\\nprofile umiak {} flags=(unconfined) {{ userns, }}\\n' > /etc/apparmor.d/umiak && \
         apparmor_parser -r /etc/apparmor.d/umiak",
        path.display()
    )
}

/// Whether we have a capability, by its name.
pub fn has(name: &str) -> bool {
    let may = crate::sys::capability::permitted().unwrap_or(0);
    capability::number(name).is_some_and(|bit| may & 1 << bit != 0)
}

/// A line of `/proc/self/status`.
pub fn status(name: &str) -> Option<String> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

/// The root of a mount namespace is the root of a mount; that of most chroots is not. The kernel forbids user
/// namespaces only to the latter (`current_chrooted`), and to those whose root is a mount further in.
fn is_chroot() -> bool {
    let flags = rustix::fs::AtFlags::empty();
    let root = rustix::fs::statx(rustix::fs::CWD, "/", flags, rustix::fs::StatxFlags::BASIC_STATS);
    let mount_root = |stat: rustix::fs::Statx| {
        stat.stx_attributes_mask
            .contains(rustix::fs::StatxAttributes::MOUNT_ROOT)
            .then(|| stat.stx_attributes.contains(rustix::fs::StatxAttributes::MOUNT_ROOT))
    };
    match root.ok().and_then(mount_root) {
        Some(false) => true,
        // A mount that is not the topmost is told by what is mounted on "/" as we see it: nothing.
        _ => std::fs::read("/proc/self/mountinfo").is_ok_and(|text| {
            !text.is_empty()
                && !text.split(|b| *b == b'\n').any(|line| line.split(|b| *b == b' ').nth(4) == Some(b"/"))
        }),
    }
}

/// The marks that engines leave.
fn container() -> Option<&'static str> {
    if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
        return Some("kubernetes");
    }
    let marks = [
        ("/.dockerenv", "docker"),
        ("/run/.containerenv", "podman"),
        ("/run/systemd/container", "container"),
    ];
    marks.into_iter().find(|(path, _)| Path::new(path).exists()).map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_its_signs() {
        let plain = Signs { most: Some(1000), ..Signs::default() };
        let id = |signs: &Signs, stage, errno| signs.cause(stage, errno).id;
        assert_eq!(
            id(&Signs { most: Some(0), ..plain.clone() }, Stage::Made, libc::ENOSPC),
            "max-user-namespaces"
        );
        assert_eq!(id(&plain, Stage::Made, libc::ENOSPC), "too-many-user-namespaces");
        assert_eq!(id(&plain, Stage::Made, libc::EINVAL), "no-user-namespaces");
        assert_eq!(id(&plain, Stage::Made, libc::EAGAIN), "too-many-processes");
        assert_eq!(id(&plain, Stage::Made, libc::EPERM), "userns-forbidden");
        let switch = Signs { switch: Some(0), filtered: true, ..plain.clone() };
        assert_eq!(id(&switch, Stage::Made, libc::EPERM), "unprivileged-userns-clone");
        let root = Signs { powerless_root: true, filtered: true, ..plain.clone() };
        assert_eq!(id(&root, Stage::Used, libc::EPERM), "root-without-setfcap");
        assert_eq!(id(&root, Stage::Made, libc::EPERM), "seccomp-filter");
        let chroot = Signs { chroot: true, ..plain.clone() };
        assert_eq!(id(&chroot, Stage::Made, libc::EPERM), "chroot");
        assert_eq!(
            id(&Signs { apparmor: Some(1), ..plain.clone() }, Stage::Used, libc::EPERM),
            "apparmor-userns"
        );
        let docker = Signs { filtered: true, container: Some("docker"), ..plain.clone() };
        assert!(docker.cause(Stage::Made, libc::EPERM).cure.contains("systempaths=unconfined"));
        let pod = Signs { filtered: true, container: Some("kubernetes"), ..plain };
        assert!(pod.cause(Stage::Used, libc::EPERM).cure.contains("procMount"));
    }
}
