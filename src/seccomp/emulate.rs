//! Ownership where there is one id only: calls that would need another one are answered with success, and nothing
//! is done. Package managers and Dockerfiles give files to users that this container does not have; what they
//! would gain by it, they would gain against nobody, for all processes of the container are of one user.
//!
//! Only what a profile lets through is touched, so that nothing that it refuses is answered otherwise; and only
//! with ids that do not exist here: `chown` to the one that does is the kernel's, with all its errors.

use super::assemble::{Assembler, Test, To};

/// The ids that a container has, as seen inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Emulation {
    /// Its only user.
    pub uid: u32,
    /// Its only group.
    pub gid: u32,
}

/// Which uses of a call are the kernel's; the others are answered otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// None.
    Never,
    /// Those of which each of these arguments is the id that there is, or none (-1).
    Ids {
        /// Argument and id.
        arguments: Vec<(u32, u32)>,
        /// On 32-bit architectures the call is the old one, whose ids have 16 bits.
        narrow: bool,
    },
    /// Those that make no device. A whiteout, character device 0:0, is none: everybody may make one. The argument
    /// is the mode; the device's number follows it.
    NoDevice(u32),
    /// Those in which this argument is zero, of which all 64 bits count.
    Zero(u32),
    /// Those in which this argument, its lower half, is none of these.
    Unless {
        /// The argument.
        index: u32,
        /// What it may be.
        values: [u32; 3],
    },
    /// Those in which these bits of the argument, of its lower half, are set so.
    Bits {
        /// The argument.
        index: u32,
        /// Which bits.
        mask: u32,
        /// What they are.
        value: u32,
    },
}

const ARGUMENTS: u32 = 16;
/// `SECCOMP_RET_ERRNO` without an error: the call is not made, and returns 0.
pub(super) const SUCCESS: u32 = 0x0005_0000;

impl Emulation {
    /// The calls that are answered, with the uses that are not.
    pub(super) fn calls(self) -> Vec<(&'static str, Kernel)> {
        let Self { uid, gid } = self;
        let ids = |arguments: &[(u32, u32)], narrow| Kernel::Ids { arguments: arguments.to_vec(), narrow };
        let mut calls = vec![
            // setgroups(2) is denied altogether where a user maps his own id.
            ("setgroups", Kernel::Never),
            ("setgroups32", Kernel::Never),
            ("fchownat", ids(&[(2, uid), (3, gid)], false)),
            ("mknod", Kernel::NoDevice(1)),
            ("mknodat", Kernel::NoDevice(2)),
        ];
        let of_files = [("chown", "chown32"), ("fchown", "fchown32"), ("lchown", "lchown32")];
        let pairs = of_files.map(|names| (names, vec![(1, uid), (2, gid)]));
        let of_processes = [
            (("setuid", "setuid32"), vec![(0, uid)]),
            (("setgid", "setgid32"), vec![(0, gid)]),
            (("setreuid", "setreuid32"), vec![(0, uid), (1, uid)]),
            (("setregid", "setregid32"), vec![(0, gid), (1, gid)]),
            (("setresuid", "setresuid32"), vec![(0, uid), (1, uid), (2, uid)]),
            (("setresgid", "setresgid32"), vec![(0, gid), (1, gid), (2, gid)]),
        ];
        for ((old, new), arguments) in pairs.into_iter().chain(of_processes) {
            calls.push((old, ids(&arguments, true)));
            calls.push((new, ids(&arguments, false)));
        }
        calls
    }
}

impl Kernel {
    /// Ends with `answer` if the kernel is to see the call, else with `otherwise`. `short`: the architecture has
    /// calls with ids of 16 bits.
    pub(super) fn assemble(&self, assembler: &mut Assembler, (answer, otherwise): (u32, u32), short: bool) {
        let emulate = assembler.label();
        match self {
            Self::Never => {}
            Self::Ids { arguments, narrow } => {
                for (index, own) in arguments {
                    let next = assembler.label();
                    // Ids have 32 bits: what stands above them in a register is not looked at.
                    assembler.load(ARGUMENTS + 8 * index);
                    assembler.branch(Test::Equal, *own, To::Label(next), To::Next);
                    if *narrow && short {
                        assembler.branch(Test::Equal, 0xffff, To::Label(next), To::Next);
                    }
                    assembler.branch(Test::Equal, u32::MAX, To::Next, To::Label(emulate));
                    assembler.place(next);
                }
                assembler.answer(answer);
            }
            Self::NoDevice(mode) => {
                let pass = assembler.label();
                assembler.load(ARGUMENTS + 8 * mode);
                assembler.and(libc::S_IFMT);
                assembler.branch(Test::Equal, libc::S_IFBLK, To::Label(emulate), To::Next);
                assembler.branch(Test::Equal, libc::S_IFCHR, To::Next, To::Label(pass));
                assembler.load(ARGUMENTS + 8 * (mode + 1));
                assembler.branch(Test::Equal, 0, To::Next, To::Label(emulate));
                assembler.place(pass);
                assembler.answer(answer);
            }
            Self::Zero(index) => {
                for half in [0, 4] {
                    assembler.load(ARGUMENTS + 8 * index + half);
                    assembler.branch(Test::Equal, 0, To::Next, To::Label(emulate));
                }
                assembler.answer(answer);
            }
            Self::Unless { index, values } => {
                assembler.load(ARGUMENTS + 8 * index);
                for value in values {
                    assembler.branch(Test::Equal, *value, To::Label(emulate), To::Next);
                }
                assembler.answer(answer);
            }
            Self::Bits { index, mask, value } => {
                assembler.load(ARGUMENTS + 8 * index);
                assembler.and(*mask);
                assembler.branch(Test::Equal, *value, To::Next, To::Label(emulate));
                assembler.answer(answer);
            }
        }
        assembler.place(emulate);
        assembler.answer(otherwise);
    }
}

#[cfg(test)]
mod tests {
    use super::super::interpret::{Call, run};
    use super::super::numbers::Architecture;
    use super::super::{Changes, compile, compile_with, default_profile};
    use super::*;
    use crate::sys::seccomp::Filter;
    use oci_spec::runtime::LinuxSeccomp;
    use serde_json::json;

    fn emulating(emulation: Emulation) -> Changes {
        Changes { emulation: Some(emulation), ..Changes::default() }
    }

    const NATIVE: Architecture = Architecture::NATIVE;
    const ALLOW: u32 = 0x7fff_0000;
    const ROOT: Emulation = Emulation { uid: 0, gid: 0 };
    const NONE: u64 = u64::MAX;
    /// -1 as a program passes it that keeps ids in 32 bits.
    const SHORT_NONE: u64 = u32::MAX as u64;

    fn ask(filter: &Filter, architecture: Architecture, name: &str, arguments: &[u64]) -> u32 {
        let mut call =
            Call { number: architecture.number(name), architecture: architecture.audit(), ..Call::default() };
        call.arguments[..arguments.len()].copy_from_slice(arguments);
        run(&filter.program, &call).0
    }

    #[test]
    fn ids_that_there_are_not_are_answered_and_the_others_are_the_kernels() {
        let filter = compile_with(Some(&default_profile(&Default::default())), &emulating(ROOT)).unwrap();
        let cases: &[(&str, &[u64], u32)] = &[
            ("chown", &[9, 0, 0], ALLOW),
            ("chown", &[9, NONE, SHORT_NONE], ALLOW),
            ("chown", &[9, 33, 0], SUCCESS),
            ("lchown", &[9, 0, 33], SUCCESS),
            ("fchown", &[3, NONE, 42], SUCCESS),
            // 65,535 is an id like others but in old calls of 32-bit programs.
            ("fchown", &[3, 0xffff, 0], SUCCESS),
            ("fchownat", &[3, 9, 0, 0, 0], ALLOW),
            ("fchownat", &[3, 9, 0, 5, 0], SUCCESS),
            ("fchownat", &[33, 33, NONE, 0, 33], ALLOW),
            ("setuid", &[0], ALLOW),
            ("setuid", &[1000], SUCCESS),
            ("setresuid", &[NONE, 0, NONE], ALLOW),
            ("setresuid", &[0, 0, 1], SUCCESS),
            ("setresgid", &[42, 42, 42], SUCCESS),
            ("setregid", &[0, 0], ALLOW),
            ("setreuid", &[0, 7], SUCCESS),
            ("setgroups", &[0, 0], SUCCESS),
            ("mknod", &[9, 0o20666, 0x103], SUCCESS),
            ("mknod", &[9, 0o60600, 0x800], SUCCESS),
            ("mknod", &[9, 0o20000, 0], ALLOW),
            ("mknod", &[9, 0o10644, 0], ALLOW),
            ("mknodat", &[3, 9, 0o140644, 0x103], ALLOW),
            ("mknodat", &[3, 9, 0o20644, 0x103], SUCCESS),
        ];
        for (name, arguments, expected) in cases {
            assert_eq!(ask(&filter, NATIVE, name, arguments), *expected, "{name}{arguments:?}");
        }
        let kept = Emulation { uid: 1000, gid: 100 };
        let filter = compile_with(Some(&default_profile(&Default::default())), &emulating(kept)).unwrap();
        assert_eq!(ask(&filter, NATIVE, "chown", &[9, 1000, 100]), ALLOW);
        assert_eq!(ask(&filter, NATIVE, "chown", &[9, 0, 100]), SUCCESS);
        assert_eq!(ask(&filter, NATIVE, "chown", &[9, 100, 1000]), SUCCESS);
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn old_calls_have_short_ids() {
        let filter = compile_with(Some(&default_profile(&Default::default())), &emulating(ROOT)).unwrap();
        assert_eq!(ask(&filter, Architecture::X86, "chown", &[9, 0xffff, 0]), ALLOW);
        assert_eq!(ask(&filter, Architecture::X86, "chown32", &[9, 0xffff, 0]), SUCCESS);
        assert_eq!(ask(&filter, Architecture::X86, "chown32", &[9, SHORT_NONE, 0]), ALLOW);
        assert_eq!(ask(&filter, Architecture::X86, "setgroups32", &[0, 0]), SUCCESS);
    }

    /// Over all calls, and many arguments: what a profile does not let through, it still does not.
    #[test]
    fn nothing_that_is_refused_is_answered() {
        let strict = json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_ARM"],
        "syscalls": [
            {"names": ["read", "chown", "setuid"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["fchown"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 3, "op": "SCMP_CMP_EQ"}]},
            {"names": ["fchownat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13,
                "args": [{"index": 4, "value": 0x1000, "valueTwo": 0x1000, "op": "SCMP_CMP_MASKED_EQ"}]},
            {"names": ["fchownat"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 4, "value": 0, "op": "SCMP_CMP_EQ"}]},
            {"names": ["setgid"], "action": "SCMP_ACT_KILL_PROCESS"},
            {"names": ["setgroups"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
            {"names": ["mknod"], "action": "SCMP_ACT_TRAP"},
        ]});
        let strict: LinuxSeccomp = serde_json::from_value(strict).unwrap();
        let open: LinuxSeccomp = serde_json::from_value(json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["lchown"], "action": "SCMP_ACT_KILL_PROCESS"}]}))
        .unwrap();
        let calls = ROOT.calls();
        let mut answered = 0;
        for profile in [strict, open, default_profile(&Default::default())] {
            let (plain, emulating) =
                (compile(&profile).unwrap(), compile_with(Some(&profile), &emulating(ROOT)).unwrap());
            for architecture in [Some(NATIVE), Architecture::COMPATIBLE].into_iter().flatten() {
                for (name, _) in architecture.calls() {
                    for value in [0, 1, 3, 33, 0xffff, 0x1000, 0o20644, 0o60644, SHORT_NONE, NONE] {
                        for other in [0, 5, 0o20644, NONE] {
                            let arguments = [value, other, value, other, value, other];
                            let (before, after) = (
                                ask(&plain, architecture, name, &arguments),
                                ask(&emulating, architecture, name, &arguments),
                            );
                            if before != after {
                                assert_eq!((before, after), (ALLOW, SUCCESS), "{name}{arguments:?}");
                                assert!(calls.iter().any(|(known, _)| *known == name), "{name}");
                                answered += 1;
                            }
                        }
                    }
                }
            }
        }
        assert!(answered > 500, "{answered}");
    }

    #[test]
    fn without_a_profile_all_else_is_let_through() {
        let filter = compile_with(None, &emulating(ROOT)).unwrap();
        for name in ["mount", "keyctl", "read", "unshare"] {
            assert_eq!(ask(&filter, NATIVE, name, &[7, 7, 7]), ALLOW, "{name}");
        }
        assert_eq!(ask(&filter, NATIVE, "chown", &[9, 33, 33]), SUCCESS);
        assert!(filter.program.len() < 400, "{}", filter.program.len());
    }
}
