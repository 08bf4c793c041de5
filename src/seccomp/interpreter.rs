//! The kernel's cBPF machine for tests, and tests of the compiler against what profiles mean.

use std::collections::HashSet;

use oci_spec::runtime::{Capability, LinuxSeccomp};

use super::arch::{Table, X32_BIT};
use super::{Error, compile, default_profile};
use crate::sys::seccomp::{Filter, Instruction};

const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;
const KILL_PROCESS: u32 = 0x8000_0000;

/// Runs a filter; panics where the kernel's checker would refuse it.
fn run(filter: &Filter, audit: u32, number: u32, arguments: [u64; 6]) -> u32 {
    let mut data = Vec::new();
    data.extend(number.to_le_bytes());
    data.extend(audit.to_le_bytes());
    data.extend(0_u64.to_le_bytes());
    arguments.iter().for_each(|a| data.extend(a.to_le_bytes()));
    let (mut at, mut a) = (0_usize, 0_u32);
    loop {
        let Instruction { code, jt, jf, k } = filter.program[at];
        let branch = |yes: bool| usize::from(if yes { jt } else { jf });
        at += 1 + match code {
            0x20 => {
                assert_eq!(k % 4, 0);
                a = u32::from_le_bytes(data[k as usize..k as usize + 4].try_into().unwrap());
                0
            }
            0x54 => {
                a &= k;
                0
            }
            0x05 => k as usize,
            0x15 => branch(a == k),
            0x25 => branch(a > k),
            0x35 => branch(a >= k),
            0x06 => return k,
            other => panic!("instruction {other:#x}"),
        };
    }
}

fn profile(json: &str) -> LinuxSeccomp {
    serde_json::from_str(json).unwrap()
}

fn native(filter: &Filter, name: &str, arguments: [u64; 6]) -> u32 {
    run(filter, Table::native().audit(), Table::native().number(name).unwrap(), arguments)
}

#[test]
fn every_number_gets_its_outcome() {
    let caps = HashSet::new();
    let profile = default_profile(&caps);
    let filter = compile(&profile).unwrap().unwrap();
    assert!(filter.program.len() < 800, "{}", filter.program.len());
    for table in [Table::X86_64, Table::X86] {
        if Table::native() != Table::X86_64 {
            return;
        }
        for number in 0..600 {
            let got = run(&filter, table.audit(), number, [0; 6]);
            // What the rules say, found the slow way: all arguments are zero.
            let rule = profile.syscalls().as_ref().unwrap().iter().find(|rule| {
                let named = rule.names().iter().any(|name| table.number(name) == Some(number));
                named
                    && rule.args().as_ref().is_none_or(|args| {
                        args.iter().all(|a| {
                            use oci_spec::runtime::LinuxSeccompOperator as Op;
                            match a.op() {
                                Op::ScmpCmpEq => a.value() == 0,
                                Op::ScmpCmpNe => a.value() != 0,
                                Op::ScmpCmpMaskedEq => a.value_two() == Some(0),
                                _ => unreachable!(),
                            }
                        })
                    })
            });
            let expected = match rule {
                Some(rule) if rule.action() == oci_spec::runtime::LinuxSeccompAction::ScmpActAllow => ALLOW,
                Some(rule) => ERRNO | rule.errno_ret().unwrap(),
                None => ERRNO | libc::ENOSYS as u32,
            };
            assert_eq!(got, expected, "{table:?} {number}");
        }
    }
}

#[test]
fn the_default_profile_draws_its_lines() {
    let none = compile(&default_profile(&HashSet::new())).unwrap().unwrap();
    let admin = compile(&default_profile(&[Capability::SysAdmin].into())).unwrap().unwrap();
    let (eperm, enosys) = (ERRNO | 1, ERRNO | libc::ENOSYS as u32);
    let with = |first| [first, 0, 0, 0, 0, 0];
    for (name, first, expected) in [
        ("read", 0, ALLOW),
        ("mount", 0, eperm),
        ("unshare", 0x1000_0000, eperm),
        ("clone", 0x11, ALLOW),
        ("clone", 0x1000_0011, eperm),
        ("clone3", 0, enosys),
        ("personality", 0xffff_ffff, ALLOW),
        ("personality", 0x40_0000, eperm),
        ("keyctl", 0, ALLOW),
        ("io_uring_setup", 0, eperm),
    ] {
        assert_eq!(native(&none, name, with(first)), expected, "{name}");
    }
    for name in ["mount", "unshare", "clone3", "setns", "bpf"] {
        assert_eq!(native(&admin, name, [u64::MAX; 6]), ALLOW, "{name}");
    }
    assert_eq!(native(&none, "socket", [16, 3, 9, 0, 0, 0]), ERRNO | libc::EINVAL as u32);
    assert_eq!(native(&none, "socket", [16, 3, 0, 0, 0, 0]), ALLOW);
    assert_eq!(native(&none, "socket", [2, 1, 9, 0, 0, 0]), ALLOW);
}

#[test]
fn foreign_architectures_and_x32_are_killed() {
    let filter = compile(&default_profile(&HashSet::new())).unwrap().unwrap();
    assert_eq!(run(&filter, 0x1234, 0, [0; 6]), KILL_PROCESS);
    if Table::native() == Table::X86_64 {
        assert_eq!(run(&filter, Table::X86_64.audit(), X32_BIT, [0; 6]), KILL_PROCESS);
        let asked = r#"{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X32"],
            "syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}]}"#;
        let filter = compile(&profile(asked)).unwrap().unwrap();
        assert_eq!(run(&filter, Table::X86_64.audit(), X32_BIT, [0; 6]), ALLOW);
        assert_eq!(run(&filter, Table::X86_64.audit(), X32_BIT | 1, [0; 6]), ERRNO | libc::ENOSYS as u32);
    }
}

#[test]
fn all_comparisons_are_64_bit() {
    let values = [0, 1, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0001, 0x7_0000_0000, u64::MAX];
    type Test = fn(u64, u64) -> bool;
    let operators: [(&str, Test); 6] = [
        ("EQ", |a, b| a == b),
        ("NE", |a, b| a != b),
        ("GT", |a, b| a > b),
        ("GE", |a, b| a >= b),
        ("LT", |a, b| a < b),
        ("LE", |a, b| a <= b),
    ];
    for (name, holds) in operators {
        for value in values {
            let json = format!(
                r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{{"names":["read"],"action":"SCMP_ACT_ALLOW",
                "args":[{{"index":3,"value":{value},"op":"SCMP_CMP_{name}"}}]}}]}}"#
            );
            let filter = compile(&profile(&json)).unwrap().unwrap();
            for argument in values {
                let got = native(&filter, "read", [9, 9, 9, argument, 9, 9]) == ALLOW;
                assert_eq!(got, holds(argument, value), "{argument:#x} {name} {value:#x}");
            }
        }
    }
    let json = r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW",
        "args":[{"index":0,"value":1095216660735,"valueTwo":4294967298,"op":"SCMP_CMP_MASKED_EQ"}]}]}"#;
    let filter = compile(&profile(json)).unwrap().unwrap();
    let mask = 1_095_216_660_735;
    for argument in values.into_iter().chain([0x1_0000_0002, 0xff01_0000_0002]) {
        let got = native(&filter, "read", [argument, 0, 0, 0, 0, 0]) == ALLOW;
        assert_eq!(got, argument & mask == 4_294_967_298, "{argument:#x}");
    }
}

#[test]
fn conditions_join_as_in_runc() {
    let json = r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":5,"syscalls":[
        {"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"},{"index":1,"value":2,"op":"SCMP_CMP_EQ"}]},
        {"names":["write"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"},{"index":0,"value":2,"op":"SCMP_CMP_EQ"}]},
        {"names":["read"],"action":"SCMP_ACT_ERRNO","errnoRet":7}]}"#;
    let filter = compile(&profile(json)).unwrap().unwrap();
    assert_eq!(native(&filter, "read", [1, 2, 0, 0, 0, 0]), ALLOW);
    assert_eq!(native(&filter, "read", [1, 3, 0, 0, 0, 0]), ERRNO | 7);
    assert_eq!(native(&filter, "write", [2, 0, 0, 0, 0, 0]), ALLOW);
    assert_eq!(native(&filter, "write", [3, 0, 0, 0, 0, 0]), ERRNO | 5);
    assert_eq!(native(&filter, "close", [0; 6]), ERRNO | 5);
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let of = |rule: &str| {
        compile(&profile(&format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{rule}]}}"#)))
    };
    assert!(matches!(of(r#"{"names":["read"],"action":"SCMP_ACT_NOTIFY"}"#), Err(Error::Unsupported(_))));
    assert!(matches!(
        of(r#"{"names":["read"],"action":"SCMP_ACT_ERRNO","errnoRet":5000}"#),
        Err(Error::Errno(5000))
    ));
    let argument =
        r#"{"names":["read"],"action":"SCMP_ACT_KILL","args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]}"#;
    assert!(matches!(of(argument), Err(Error::Argument { index: 6, .. })));
    assert_eq!(
        of(r#"{"names":["no_such_call"],"action":"SCMP_ACT_KILL"}"#).unwrap().map(|f| f.program.len() > 3),
        Some(true)
    );
    assert!(compile(&profile(r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#)).unwrap().is_none());
}

/// Not a check: prints what a compilation costs (`cargo test --release -- --ignored --nocapture cost`).
#[test]
#[ignore = "a measurement"]
#[allow(clippy::disallowed_macros)]
fn cost() {
    let profile = default_profile(&HashSet::new());
    for round in 0..3 {
        let start = std::time::Instant::now();
        let filter = compile(&profile).unwrap().unwrap();
        println!("round {round}: {} instructions in {:?}", filter.program.len(), start.elapsed());
    }
}
