//! Which devices a container may use: `linux.resources.devices`, carried out by a BPF program at its
//! group (`BPF_PROG_TYPE_CGROUP_DEVICE`), since cgroup v2 has no files for it.
//!
//! The kernel asks the program at each mknod(2) and each open of a device. The last rule that names
//! the device and an access decides about that access; what no rule names is denied.

mod assemble;
#[cfg(test)]
mod interpret;

use std::io;
use std::os::fd::AsFd;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use super::Error;
use crate::sys::bpf;

/// mknod(2).
const MKNOD: u32 = 1;
/// Reading.
const READ: u32 = 2;
/// Writing.
const WRITE: u32 = 4;
const ALL: u32 = MKNOD | READ | WRITE;

/// What kind of device a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Block,
    Char,
    Any,
}

/// One rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rule {
    pub allow: bool,
    pub kind: Kind,
    /// `None`: every one.
    pub major: Option<u32>,
    pub minor: Option<u32>,
    /// Of [`MKNOD`], [`READ`], [`WRITE`].
    pub access: u32,
}

impl Rule {
    const fn char(major: u32, minor: Option<u32>) -> Self {
        Self { allow: true, kind: Kind::Char, major: Some(major), minor, access: ALL }
    }

    const fn nodes(kind: Kind) -> Self {
        Self { allow: true, kind, major: None, minor: None, access: MKNOD }
    }

    /// Whether it is about everything, so that no rule before it matters.
    fn is_whole(&self) -> bool {
        self.kind == Kind::Any && self.major.is_none() && self.minor.is_none() && self.access == ALL
    }
}

/// What every container may have, after the configuration's own rules, as in runc: any node (opening
/// it is another matter), null, zero, full, random, urandom, tty, terminals, and tun.
const DEFAULTS: [Rule; 11] = [
    Rule::nodes(Kind::Char),
    Rule::nodes(Kind::Block),
    Rule::char(1, Some(3)),
    Rule::char(1, Some(5)),
    Rule::char(1, Some(7)),
    Rule::char(1, Some(8)),
    Rule::char(1, Some(9)),
    Rule::char(5, Some(0)),
    Rule::char(5, Some(2)),
    Rule::char(136, None),
    Rule::char(10, Some(200)),
];

fn invalid(reason: &str) -> Error {
    Error::Invalid { resource: "linux.resources.devices".to_owned(), reason: reason.to_owned() }
}

/// The configuration's rules and the defaults, without what can have no effect.
pub(super) fn rules(configured: &[LinuxDeviceCgroup]) -> Result<Vec<Rule>, Error> {
    let mut rules = configured.iter().map(rule).collect::<Result<Vec<_>, _>>()?;
    rules.extend(DEFAULTS);
    let start = rules.iter().rposition(Rule::is_whole).unwrap_or(0);
    let rules = rules.split_off(start);
    // All that follows a permission of everything only repeats it, unless it takes something back.
    Ok(if rules.iter().all(|rule| rule.allow) && rules[0].is_whole() { vec![rules[0]] } else { rules })
}

fn rule(rule: &LinuxDeviceCgroup) -> Result<Rule, Error> {
    let kind = match rule.typ() {
        None | Some(LinuxDeviceType::A) => Kind::Any,
        Some(LinuxDeviceType::B) => Kind::Block,
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => Kind::Char,
        Some(LinuxDeviceType::P) => return Err(invalid("a pipe is no device")),
    };
    let number = |value: Option<i64>| match value {
        None | Some(-1) => Ok(None),
        Some(value) => u32::try_from(value).map(Some).map_err(|_| invalid("a number is out of range")),
    };
    let access = rule.access().as_deref().unwrap_or("rwm");
    let mut bits = 0;
    for letter in access.chars() {
        bits |= match letter {
            'r' => READ,
            'w' => WRITE,
            'm' => MKNOD,
            _ => return Err(invalid("an access is none of \"r\", \"w\" and \"m\"")),
        };
    }
    let access = if bits == 0 { ALL } else { bits };
    Ok(Rule { allow: rule.allow(), kind, major: number(rule.major())?, minor: number(rule.minor())?, access })
}

/// Puts the rules into force at the group, in place of those that we put there before.
///
/// In a user namespace, and without root's rights, the kernel takes no such programs. There they are
/// not needed either: nodes cannot be made, and what the host's own nodes allow is what the user may
/// do anyway. So there, as in runc, nothing is done; neither is it where everything is allowed.
pub(super) fn apply(group: &impl AsFd, rules: &[Rule]) -> io::Result<()> {
    if !super::is_real_root() {
        return Ok(());
    }
    let program = assemble::assemble(rules);
    match bpf::attach_device_filter(group, &program) {
        // A kernel without it, or an outer sandbox that forbids it, denies nothing: as is asked for.
        Err(_) if matches!(rules, [rule] if rule.allow && rule.is_whole()) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use interpret::interpret;

    fn of(json: &str) -> Vec<Rule> {
        let configured: Vec<LinuxDeviceCgroup> = serde_json::from_str(json).unwrap();
        rules(&configured).unwrap()
    }

    /// `"c 1:3 rw"`.
    fn asks(rules: &[Rule], question: &str) -> bool {
        let program = assemble::assemble(rules);
        interpret::verify(&program);
        let parts: Vec<&str> = question.split([' ', ':']).collect();
        let kind = if parts[0] == "b" { 1 } else { 2 };
        let access = parts[3].chars().map(|c| match c {
            'm' => MKNOD,
            'r' => READ,
            _ => WRITE,
        });
        let access: u32 = access.fold(0, |all, bit| all | bit);
        interpret(&program, [access << 16 | kind, parts[1].parse().unwrap(), parts[2].parse().unwrap()]) != 0
    }

    #[test]
    fn the_defaults_allow_what_a_container_needs() {
        let rules = of(r#"[{"allow":false,"access":"rwm"}]"#);
        for yes in ["c 1:3 rw", "c 1:3 m", "c 136:7 rw", "c 5:2 rw", "c 8:0 m", "b 8:0 m", "c 10:200 rw"] {
            assert!(asks(&rules, yes), "{yes}");
        }
        for no in ["c 1:1 r", "b 8:0 r", "b 8:0 rm", "c 5:1 w", "c 10:229 rw", "b 1:3 r"] {
            assert!(!asks(&rules, no), "{no}");
        }
    }

    #[test]
    fn the_last_word_counts_for_each_access() {
        let rules = of(
            r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":10,"access":"rw"},
            {"allow":false,"type":"c","major":10,"minor":229,"access":"w"},{"allow":true,"type":"b","major":7,"access":"r"}]"#,
        );
        for yes in ["c 10:1 rw", "c 10:229 r", "b 7:0 r", "b 7:9 rm"] {
            assert!(asks(&rules, yes), "{yes}");
        }
        for no in ["c 10:229 w", "c 10:229 rw", "b 7:0 rw", "c 11:0 r"] {
            assert!(!asks(&rules, no), "{no}");
        }
    }

    #[test]
    fn two_rules_together_allow_what_neither_does() {
        let rules = of(r#"[{"allow":true,"type":"c","major":4,"minor":1,"access":"r"},
            {"allow":true,"type":"c","major":4,"minor":1,"access":"w"}]"#);
        assert!(asks(&rules, "c 4:1 rw"));
        assert!(!asks(&rules, "c 4:2 r"));
    }

    #[test]
    fn everything_allowed_is_one_rule() {
        let rules =
            of(r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"a","major":-1,"access":"rwm"}]"#);
        assert_eq!(rules.len(), 1);
        assert!(asks(&rules, "b 8:0 rw"));
        let rules = of(r#"[{"allow":true},{"allow":false,"type":"b","major":8}]"#);
        assert!(!asks(&rules, "b 8:0 r") && asks(&rules, "b 9:0 r"));
    }

    #[test]
    fn nonsense_is_refused() {
        for json in
            [r#"[{"allow":true,"access":"x"}]"#, r#"[{"allow":true,"major":-2}]"#, r#"[{"type":"p"}]"#]
        {
            let configured: Vec<LinuxDeviceCgroup> = serde_json::from_str(json).unwrap();
            assert!(rules(&configured).is_err(), "{json}");
        }
    }
}
