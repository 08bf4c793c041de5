//! From a profile to a filter.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator,
};

use super::assemble::{Assembler, Label, Test, To};
use super::numbers::Architecture;
use super::told::{Changes, Use};
use crate::sys::seccomp::{Filter, NEW_LISTENER, WAIT_KILLABLE_RECV};

/// A profile that cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Calls are to be told to nobody.
    #[error("linux.seccomp.listenerPath is missing, and the action SCMP_ACT_NOTIFY needs it")]
    NoListener,
    /// There is something to tell, and nobody to tell it to.
    #[error("linux.seccomp.{0} needs linux.seccomp.listenerPath")]
    NeedsListener(&'static str),
    /// The listener is handed out by this call, which would wait for an answer from it for ever.
    #[error("linux.seccomp: the system call sendmsg cannot have the action SCMP_ACT_NOTIFY")]
    ListensToItself,
    /// A process can have one listener.
    #[error("linux.seccomp.listenerPath cannot be used together with what answers system calls itself")]
    TwoListeners,
    /// A system call has six arguments.
    #[error("linux.seccomp.syscalls: args.index {index} of the rule of \"{name}\": there are only 0 to 5")]
    Argument {
        /// The system call.
        name: String,
        /// The argument.
        index: usize,
    },
    /// The kernel takes no longer ones.
    #[error("linux.seccomp: the filter has {0} instructions, and the kernel takes 4096")]
    TooLong(usize),
}

/// The actions that are understood.
pub const ACTIONS: [&str; 9] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];

/// The comparisons of arguments that are understood.
pub const OPERATORS: [&str; 7] = [
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_LE",
    "SCMP_CMP_LT",
    "SCMP_CMP_MASKED_EQ",
    "SCMP_CMP_NE",
];

/// The flags that are understood.
pub const FLAGS: [&str; 4] = [
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
];

/// The architectures that filters of this build can be for.
pub fn architectures_here() -> Vec<&'static str> {
    let name = |architecture: Architecture| match architecture {
        Architecture::X86_64 => "SCMP_ARCH_X86_64",
        Architecture::X86 => "SCMP_ARCH_X86",
        Architecture::Aarch64 => "SCMP_ARCH_AARCH64",
        Architecture::Arm => "SCMP_ARCH_ARM",
        Architecture::Riscv64 => "SCMP_ARCH_RISCV64",
    };
    [Some(Architecture::NATIVE), Architecture::COMPATIBLE].into_iter().flatten().map(name).collect()
}

/// Answers of a filter, seccomp(2).
pub(super) mod answer {
    pub const KILL_THREAD: u32 = 0;
    pub const KILL_PROCESS: u32 = 0x8000_0000;
    pub const TRAP: u32 = 0x0003_0000;
    pub const ERRNO: u32 = 0x0005_0000;
    pub const NOTIFY: u32 = 0x7fc0_0000;
    pub const TRACE: u32 = 0x7ff0_0000;
    pub const LOG: u32 = 0x7ffc_0000;
    pub const ALLOW: u32 = 0x7fff_0000;
}

const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;
/// Numbers from here on are those of x32 programs (linux/unistd.h, `__X32_SYSCALL_BIT`).
const X32: u32 = 0x4000_0000;

/// Comparisons that must all hold, and the answer if they do.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Branch {
    tests: Vec<LinuxSeccompArg>,
    answer: u32,
}

/// What is answered to one system call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Decision {
    /// Tried in turn.
    branches: Vec<Branch>,
    /// What the rules without a comparison say.
    always: Option<u32>,
    /// If none fits.
    otherwise: u32,
    /// What of that which is let through is the kernel's, and what is answered to the rest; all of it, unless
    /// the profile is changed.
    changed: Option<Use>,
}

/// Compiles a profile for this machine.
///
/// Of several rules for one call the first without comparisons counts alone: so libseccomp reads them,
/// with which profiles are tried out. Among rules with comparisons the strictest that fits counts.
/// Rules that answer what the default answers are no rules. Names that an architecture does not have
/// are passed over, as runc and crun do: profiles are written for many.
pub fn compile(profile: &LinuxSeccomp) -> Result<Filter, Error> {
    compile_with(Some(profile), &Changes::default())
}

/// Compiles a profile, or one that lets everything through, with changes: they count only for what is let through.
pub fn compile_with(profile: Option<&LinuxSeccomp>, changes: &Changes) -> Result<Filter, Error> {
    let mut open = LinuxSeccomp::default();
    let profile = profile.unwrap_or_else(|| {
        open.set_default_action(LinuxSeccompAction::ScmpActAllow)
            .set_architectures(Some(vec![Arch::ScmpArchX86, Arch::ScmpArchArm]));
        &open
    });
    let default = answer_of(profile.default_action(), profile.default_errno_ret());
    let mut rules = rules_by_name(profile, default)?;
    check_listener(profile, &rules, default)?;
    if listener(profile) && changes.listens() {
        return Err(Error::TwoListeners);
    }
    for (name, changed) in changes.uses() {
        match rules.get_mut(name) {
            Some(rule) => rule.changed = Some(changed),
            None if passes(default) => {
                let rule = Decision { otherwise: default, changed: Some(changed), ..Decision::default() };
                rules.insert(name, rule);
            }
            None => {}
        }
    }
    let mut assembler = Assembler::default();
    assembler.load(ARCHITECTURE);
    let architectures = architectures(profile);
    let blocks: Vec<Label> = architectures.iter().map(|_| assembler.label()).collect();
    for (architecture, block) in architectures.iter().zip(&blocks) {
        assembler.branch(Test::Equal, architecture.audit(), To::Label(*block), To::Next);
    }
    // Numbers mean something else there: no rule can speak for them.
    assembler.answer(answer::KILL_PROCESS);
    for (architecture, block) in architectures.iter().zip(&blocks) {
        assembler.place(*block);
        assembler.load(NUMBER);
        let short_ids = matches!(architecture, Architecture::X86 | Architecture::Arm);
        search(&mut assembler, &pieces(segments(*architecture, &rules, default)), short_ids);
    }
    let program = assembler.finish().unwrap_or_default();
    if (1..=4096).contains(&program.len()) {
        Ok(Filter { program, flags: flags(profile) | changes.flags() })
    } else {
        Err(Error::TooLong(program.len()))
    }
}

fn check_listener(profile: &LinuxSeccomp, rules: &Rules<'_>, default: u32) -> Result<(), Error> {
    let answers = |rule: &Decision| {
        let branches: Vec<u32> = rule.branches.iter().map(|branch| branch.answer).collect();
        branches.into_iter().chain([rule.otherwise]).any(|answer| answer == answer::NOTIFY)
    };
    if listener(profile) {
        let told = rules.get("sendmsg").map_or(default == answer::NOTIFY, answers);
        return if told { Err(Error::ListensToItself) } else { Ok(()) };
    }
    if default == answer::NOTIFY || rules.values().any(answers) {
        return Err(Error::NoListener);
    }
    if profile.listener_metadata().as_deref().is_some_and(|metadata| !metadata.is_empty()) {
        return Err(Error::NeedsListener("listenerMetadata"));
    }
    Ok(())
}

fn listener(profile: &LinuxSeccomp) -> bool {
    profile.listener_path().as_ref().is_some_and(|path| !path.as_os_str().is_empty())
}

/// Those that the profile names and this kernel can meet; the machine's own always.
fn architectures(profile: &LinuxSeccomp) -> Vec<Architecture> {
    let mut list = vec![Architecture::NATIVE];
    let named = profile.architectures().as_deref().unwrap_or_default();
    let compatible = Architecture::COMPATIBLE.filter(|architecture| {
        named.contains(match architecture {
            Architecture::X86 => &Arch::ScmpArchX86,
            _ => &Arch::ScmpArchArm,
        })
    });
    list.extend(compatible);
    list
}

fn flags(profile: &LinuxSeccomp) -> u32 {
    let bit = |flag: &LinuxSeccompFilterFlag| match flag {
        LinuxSeccompFilterFlag::SeccompFilterFlagTsync => libc::SECCOMP_FILTER_FLAG_TSYNC as u32,
        LinuxSeccompFilterFlag::SeccompFilterFlagLog => libc::SECCOMP_FILTER_FLAG_LOG as u32,
        LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as u32,
        // Only of meaning, and only taken by the kernel, together with a listener.
        LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv if listener(profile) => WAIT_KILLABLE_RECV,
        LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => 0,
    };
    let first = if listener(profile) { NEW_LISTENER } else { 0 };
    profile.flags().iter().flatten().map(bit).fold(first, |all, bit| all | bit)
}

fn answer_of(action: LinuxSeccompAction, errno: Option<u32>) -> u32 {
    let errno = errno.unwrap_or(libc::EPERM as u32) & 0xffff;
    match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => answer::KILL_THREAD,
        LinuxSeccompAction::ScmpActKillProcess => answer::KILL_PROCESS,
        LinuxSeccompAction::ScmpActTrap => answer::TRAP,
        // MAX_ERRNO: the kernel would cut a higher one off.
        LinuxSeccompAction::ScmpActErrno => answer::ERRNO | errno.min(4095),
        LinuxSeccompAction::ScmpActTrace => answer::TRACE | errno,
        LinuxSeccompAction::ScmpActLog => answer::LOG,
        LinuxSeccompAction::ScmpActAllow => answer::ALLOW,
        LinuxSeccompAction::ScmpActNotify => answer::NOTIFY,
    }
}

/// The lower, the stricter: the kernel's order, which compares actions as signed numbers.
fn strictness(answer: u32) -> i32 {
    (answer & 0xffff_0000) as i32
}

/// Whether a call that is answered so is made.
fn passes(answer: u32) -> bool {
    matches!(answer & 0xffff_0000, answer::ALLOW | answer::LOG)
}

/// The number line cut into pieces with one decision each; the first begins at 0.
fn segments(architecture: Architecture, rules: &Rules<'_>, default: u32) -> Vec<(u32, Decision)> {
    let plain = |answer| Decision { always: Some(answer), otherwise: answer, ..Decision::default() };
    let mut segments: Vec<(u32, Decision)> = vec![(0, plain(default))];
    let mut push = |start: u32, decision: Decision| {
        segments.pop_if(|(at, _)| *at == start);
        if segments.last().is_none_or(|(_, last)| *last != decision) {
            segments.push((start, decision));
        }
    };
    let mut newest = 0;
    for (name, number) in architecture.calls() {
        if let Some(decision) = rules.get(name) {
            newest = number;
            push(number, decision.clone());
            push(number + 1, plain(default));
        }
    }
    // A call that the profile's author cannot have known of is answered as by an older kernel, so that
    // programs use what was there before (runc does this too; EPERM would stop them).
    let unknown = answer::ERRNO | libc::ENOSYS as u32;
    if !passes(default) && default != unknown && newest > 0 {
        push(newest + 1, plain(unknown));
    }
    if architecture == Architecture::X86_64 {
        push(X32, plain(unknown));
    }
    segments
}

/// What a profile says of each name, for all architectures.
type Rules<'a> = HashMap<&'a str, Decision, BuildHasherDefault<Fnv>>;

fn rules_by_name(profile: &LinuxSeccomp, default: u32) -> Result<Rules<'_>, Error> {
    let mut rules = Rules::default();
    for rule in profile.syscalls().iter().flatten() {
        let answer = answer_of(rule.action(), rule.errno_ret());
        let tests = rule.args().as_deref().unwrap_or_default();
        for name in rule.names() {
            if let Some(test) = tests.iter().find(|test| test.index() > 5) {
                return Err(Error::Argument { name: name.clone(), index: test.index() });
            }
            let decision = rules.entry(name).or_default();
            if answer == default {
                // Known to the profile's author, but no rule.
            } else if tests.is_empty() {
                decision.always.get_or_insert(answer);
            } else {
                decision
                    .branches
                    .extend(alternatives(tests).into_iter().map(|tests| Branch { tests, answer }));
            }
        }
    }
    for decision in rules.values_mut() {
        decision.branches.sort_by_key(|branch| strictness(branch.answer));
        if decision.always.is_some() {
            decision.branches.clear();
        }
        decision.otherwise = decision.always.unwrap_or(default);
    }
    Ok(rules)
}

/// Fowler, Noll and Vo's hash: names of system calls are short, and a profile is no attacker.
#[derive(Default)]
struct Fnv(u64);

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// Tests of different arguments must all hold; several of the same argument are alternatives, each
/// a rule of its own (the reading of runc and crun, on which profiles rely).
fn alternatives(tests: &[LinuxSeccompArg]) -> Vec<Vec<LinuxSeccompArg>> {
    let repeated =
        tests.iter().enumerate().any(|(at, test)| tests[..at].iter().any(|t| t.index() == test.index()));
    if repeated { tests.iter().map(|test| vec![*test]).collect() } else { vec![tests.to_vec()] }
}

/// A piece of the number line with one decision, but for some numbers.
struct Piece {
    start: u32,
    decision: Decision,
    exceptions: Vec<(u32, Decision)>,
}

/// More of them are found faster by halves.
const EXCEPTIONS: usize = 3;

/// A single number between two segments with the same decision is an exception: one comparison and not two.
fn pieces(segments: Vec<(u32, Decision)>) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut rest = segments.into_iter().peekable();
    // What stands at a number of its own, while it is not known what comes behind it.
    while let Some((start, decision)) = rest.next() {
        let single = rest.peek().is_some_and(|(next, _)| *next == start + 1);
        match pieces.last_mut() {
            Some(last)
                if single
                    && last.exceptions.len() < EXCEPTIONS
                    && rest.peek().is_some_and(|(_, next)| *next == last.decision) =>
            {
                last.exceptions.push((start, decision));
                rest.next();
            }
            _ => pieces.push(Piece { start, decision, exceptions: Vec::new() }),
        }
    }
    pieces
}

/// A binary search over the pieces.
fn search(assembler: &mut Assembler, pieces: &[Piece], short_ids: bool) {
    if let [piece] = pieces {
        let labels: Vec<Label> = piece.exceptions.iter().map(|_| assembler.label()).collect();
        for ((number, _), label) in piece.exceptions.iter().zip(&labels) {
            assembler.branch(Test::Equal, *number, To::Label(*label), To::Next);
        }
        decide(assembler, &piece.decision, short_ids);
        for ((_, decision), label) in piece.exceptions.iter().zip(labels) {
            assembler.place(label);
            decide(assembler, decision, short_ids);
        }
        return;
    }
    let (left, right) = pieces.split_at(middle(pieces));
    let upper = assembler.label();
    assembler.branch(Test::AtLeast, right[0].start, To::Label(upper), To::Next);
    search(assembler, left, short_ids);
    assembler.place(upper);
    search(assembler, right, short_ids);
}

/// Where about as many numbers are on either side: when a filter is loaded the kernel goes through it with each of
/// them, to know which calls are let through whatever their arguments are.
fn middle(pieces: &[Piece]) -> usize {
    // All above the last start are as good as one.
    let ends = pieces[0].start + pieces[pieces.len() - 1].start.min(NUMBERS);
    let distance = |at: &usize| (2 * pieces[*at].start.min(NUMBERS)).abs_diff(ends);
    (1..pieces.len()).min_by_key(distance).unwrap_or(1)
}

/// More than any architecture has.
const NUMBERS: u32 = 512;

fn decide(assembler: &mut Assembler, decision: &Decision, short_ids: bool) {
    let end = |assembler: &mut Assembler, given: u32| match &decision.changed {
        Some(Use { kernel, otherwise }) if passes(given) => {
            kernel.assemble(assembler, (given, *otherwise), short_ids);
        }
        _ => assembler.answer(given),
    };
    for branch in &decision.branches {
        let next = assembler.label();
        for test in &branch.tests {
            compare(assembler, test, next);
        }
        end(assembler, branch.answer);
        assembler.place(next);
    }
    end(assembler, decision.otherwise);
}

/// Goes on if the argument passes the test, else to `fail`. Arguments have 64 bits, the machine 32.
fn compare(assembler: &mut Assembler, test: &LinuxSeccompArg, fail: Label) {
    let low = ARGUMENTS + 8 * test.index() as u32;
    let high = low + 4;
    let halves = |value: u64| ((value >> 32) as u32, value as u32);
    let (value_high, value_low) = halves(test.value());
    let pass = assembler.label();
    let (fail, pass_to) = (To::Label(fail), To::Label(pass));
    // First the upper halves: what they settle is settled.
    let order = |assembler: &mut Assembler, greater: To, less: To| {
        assembler.load(high);
        assembler.branch(Test::Greater, value_high, greater, To::Next);
        assembler.branch(Test::Equal, value_high, To::Next, less);
        assembler.load(low);
    };
    match test.op() {
        LinuxSeccompOperator::ScmpCmpEq => {
            assembler.load(high);
            assembler.branch(Test::Equal, value_high, To::Next, fail);
            assembler.load(low);
            assembler.branch(Test::Equal, value_low, To::Next, fail);
        }
        LinuxSeccompOperator::ScmpCmpNe => {
            assembler.load(high);
            assembler.branch(Test::Equal, value_high, To::Next, pass_to);
            assembler.load(low);
            assembler.branch(Test::Equal, value_low, fail, To::Next);
        }
        LinuxSeccompOperator::ScmpCmpGt => {
            order(assembler, pass_to, fail);
            assembler.branch(Test::Greater, value_low, To::Next, fail);
        }
        LinuxSeccompOperator::ScmpCmpGe => {
            order(assembler, pass_to, fail);
            assembler.branch(Test::AtLeast, value_low, To::Next, fail);
        }
        LinuxSeccompOperator::ScmpCmpLt => {
            order(assembler, fail, pass_to);
            assembler.branch(Test::AtLeast, value_low, fail, To::Next);
        }
        LinuxSeccompOperator::ScmpCmpLe => {
            order(assembler, fail, pass_to);
            assembler.branch(Test::Greater, value_low, fail, To::Next);
        }
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            // `value` is the mask, `valueTwo` what must be left.
            let (wanted_high, wanted_low) = halves(test.value_two().unwrap_or(0));
            for (offset, mask, wanted) in [(high, value_high, wanted_high), (low, value_low, wanted_low)] {
                assembler.load(offset);
                assembler.and(mask);
                assembler.branch(Test::Equal, wanted, To::Next, fail);
            }
        }
    }
    assembler.place(pass);
}

#[cfg(test)]
mod tests {
    use super::super::interpret::{Call, run};
    use super::*;
    use serde_json::json;

    fn profile(value: serde_json::Value) -> LinuxSeccomp {
        serde_json::from_value(value).unwrap()
    }

    fn ask(filter: &Filter, architecture: Architecture, name: &str, arguments: &[u64]) -> u32 {
        let mut call =
            Call { number: architecture.number(name), architecture: architecture.audit(), ..Call::default() };
        call.arguments[..arguments.len()].copy_from_slice(arguments);
        run(&filter.program, &call).0
    }

    const NATIVE: Architecture = Architecture::NATIVE;

    #[test]
    fn every_operator_against_the_definition() {
        let values = [0, 1, 2, 5, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0005, u64::MAX - 1, u64::MAX];
        type Definition = fn(u64, u64) -> bool;
        let operators: [(&str, Definition); 6] = [
            ("SCMP_CMP_EQ", |a, b| a == b),
            ("SCMP_CMP_NE", |a, b| a != b),
            ("SCMP_CMP_LT", |a, b| a < b),
            ("SCMP_CMP_LE", |a, b| a <= b),
            ("SCMP_CMP_GT", |a, b| a > b),
            ("SCMP_CMP_GE", |a, b| a >= b),
        ];
        for (name, holds) in operators {
            for bound in values {
                let filter = compile(&profile(json!({
                    "defaultAction": "SCMP_ACT_ALLOW",
                    "syscalls": [{"names": ["lseek"], "action": "SCMP_ACT_ERRNO", "errnoRet": 9,
                        "args": [{"index": 1, "value": bound, "op": name}]}],
                })))
                .unwrap();
                for value in values {
                    let expected = if holds(value, bound) { answer::ERRNO | 9 } else { answer::ALLOW };
                    assert_eq!(
                        ask(&filter, NATIVE, "lseek", &[0, value]),
                        expected,
                        "{value:#x} {name} {bound:#x}"
                    );
                }
            }
        }
    }

    #[test]
    fn masks_look_at_both_halves() {
        let filter = compile(&profile(json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [{"names": ["clone"], "action": "SCMP_ACT_ALLOW",
                "args": [{"index": 0, "value": 0x1_0000_00f0_u64, "valueTwo": 0x10, "op": "SCMP_CMP_MASKED_EQ"}]}],
        })))
        .unwrap();
        for (value, allowed) in
            [(0x10, true), (0x1f, true), (0x30, false), (0x1_0000_0010, false), (0x2_0000_0010, true)]
        {
            assert_eq!(ask(&filter, NATIVE, "clone", &[value]) == answer::ALLOW, allowed, "{value:#x}");
        }
    }

    #[test]
    fn the_first_plain_rule_counts_and_repeated_arguments_are_alternatives() {
        let filter = compile(&profile(json!({
            "defaultAction": "SCMP_ACT_KILL_PROCESS",
            "syscalls": [
                {"names": ["mount"], "action": "SCMP_ACT_KILL_PROCESS"},
                {"names": ["getpid", "mount"], "action": "SCMP_ACT_ALLOW"},
                {"names": ["getpid"], "action": "SCMP_ACT_ERRNO"},
                {"names": ["getpid"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_EQ"}]},
                {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 50, "op": "SCMP_CMP_LT"}]},
                {"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 22, "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_EQ"}]},
                {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [
                    {"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]},
            ],
        })))
        .unwrap();
        assert_eq!(ask(&filter, NATIVE, "socket", &[40]), answer::ERRNO | 22);
        assert_eq!(ask(&filter, NATIVE, "socket", &[2]), answer::ALLOW);
        assert_eq!(ask(&filter, NATIVE, "getpid", &[40]), answer::ALLOW);
        // A rule that only repeats the default stands in nobody's way.
        assert_eq!(ask(&filter, NATIVE, "mount", &[]), answer::ALLOW);
        assert_eq!(ask(&filter, NATIVE, "personality", &[8]), answer::ALLOW);
        assert_eq!(ask(&filter, NATIVE, "personality", &[9]), answer::KILL_PROCESS);
        assert_eq!(ask(&filter, NATIVE, "read", &[]), answer::KILL_PROCESS);
    }

    // spec: linux.seccomp.architectures
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn other_architectures_are_kept_out() {
        let filter = compile(&profile(json!({
            "defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86"],
            "syscalls": [{"names": ["getpid"], "action": "SCMP_ACT_ALLOW"}],
        })))
        .unwrap();
        assert_eq!(ask(&filter, Architecture::X86, "getpid", &[]), answer::ALLOW);
        assert_eq!(ask(&filter, Architecture::X86_64, "getpid", &[]), answer::ALLOW);
        assert_eq!(ask(&filter, Architecture::Arm, "getpid", &[]), answer::KILL_PROCESS);
        let x32 = Call { number: X32 | 39, architecture: Architecture::X86_64.audit(), ..Call::default() };
        assert_eq!(run(&filter.program, &x32).0, answer::ERRNO | libc::ENOSYS as u32);
    }

    #[test]
    fn what_came_after_the_profile_is_unknown_not_forbidden() {
        let filter = compile(&profile(json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [{"names": ["openat2"], "action": "SCMP_ACT_ALLOW"}],
        })))
        .unwrap();
        assert_eq!(ask(&filter, NATIVE, "mount", &[]), answer::ERRNO | libc::EPERM as u32);
        assert_eq!(ask(&filter, NATIVE, "fchmodat2", &[]), answer::ERRNO | libc::ENOSYS as u32);
    }

    #[test]
    fn nonsense_is_refused() {
        let notify = profile(json!({"defaultAction": "SCMP_ACT_NOTIFY"}));
        assert_eq!(compile(&notify), Err(Error::NoListener));
        let itself = profile(json!({"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/l"}));
        assert_eq!(compile(&itself), Err(Error::ListensToItself));
        let metadata = profile(json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "m"}));
        assert_eq!(compile(&metadata), Err(Error::NeedsListener("listenerMetadata")));
        let argument = profile(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_KILL", "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}]}));
        assert!(matches!(compile(&argument), Err(Error::Argument { index: 6, .. })));
    }

    #[test]
    fn what_is_said_to_be_understood_is() {
        for action in ACTIONS {
            for operator in OPERATORS {
                let filter = profile(json!({
                    "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/l", "flags": FLAGS,
                    "architectures": architectures_here(),
                    "syscalls": [{"names": ["read"], "action": action,
                        "args": [{"index": 0, "value": 1, "valueTwo": 1, "op": operator}]}],
                }));
                assert!(compile(&filter).is_ok(), "{action} {operator}");
            }
        }
    }

    #[test]
    fn a_listener_is_told() {
        let filter = compile(&profile(json!({
            "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/l", "listenerMetadata": "m",
            "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
            "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}],
        })))
        .unwrap();
        assert_eq!(filter.flags, NEW_LISTENER | WAIT_KILLABLE_RECV);
        assert_eq!(ask(&filter, NATIVE, "mkdir", &[]), answer::NOTIFY);
        assert_eq!(ask(&filter, NATIVE, "read", &[]), answer::ALLOW);
    }
}
