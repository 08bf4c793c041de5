//! From a profile to a filter: for each architecture a binary search over system call numbers, so
//! that a call costs about eight comparisons whatever the profile's length.
//!
//! For each call the rules are tried in the profile's order; the first whose conditions all hold
//! decides, else the default action does. As in runc, two conditions on the same argument in one
//! rule are alternatives. Code is emitted from its end to its start: jumps only go forward, so
//! every target's place is known when the jump is written.

use std::collections::HashMap;

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator,
    LinuxSyscall,
};

use super::Error;
use super::arch::{Table, X32_BIT};
use crate::sys::seccomp::{Filter, Instruction};

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const RETURN: u16 = 0x06;
const JUMP: u16 = 0x05;
const IF_EQUAL: u16 = 0x15;
const IF_GREATER: u16 = 0x25;
const IF_GREATER_OR_EQUAL: u16 = 0x35;

const KILL_PROCESS: u32 = 0x8000_0000;
const KILL_THREAD: u32 = 0;
const ALLOW: u32 = 0x7fff_0000;

/// The most that the kernel takes (`BPF_MAXINSNS`).
const MOST: usize = 4096;

/// Compiles a profile; `None` if it allows everything.
pub fn compile(profile: &LinuxSeccomp) -> Result<Option<Filter>, Error> {
    let default = action(profile.default_action(), profile.default_errno_ret())?;
    if profile.listener_path().is_some() {
        return Err(Error::Unsupported("a seccomp listener".to_owned()));
    }
    let syscalls = profile.syscalls().as_deref().unwrap_or_default();
    if default == ALLOW && syscalls.is_empty() {
        return Ok(None);
    }
    let mut flags = 0;
    for flag in profile.flags().as_deref().unwrap_or_default() {
        flags |= match flag {
            LinuxSeccompFilterFlag::SeccompFilterFlagTsync => 1,
            LinuxSeccompFilterFlag::SeccompFilterFlagLog => 2,
            LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => 4,
            // Only changes what a listener sees, and there is none.
            LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => 0,
        };
    }
    let rules = syscalls.iter().map(Rule::new).collect::<Result<Vec<_>, _>>()?;
    let mut emitter = Emitter::default();
    let start =
        emitter.program(&tables(profile.architectures().as_deref().unwrap_or_default()), &rules, default);
    debug_assert_eq!(start, emitter.code.len());
    emitter.code.reverse();
    if emitter.code.len() > MOST {
        return Err(Error::TooLong(emitter.code.len()));
    }
    Ok(Some(Filter { program: emitter.code, flags }))
}

/// The architectures of a profile that this machine can run, the native one always and first.
fn tables(architectures: &[Arch]) -> Vec<Table> {
    let mut tables = vec![Table::native()];
    for table in architectures.iter().filter_map(|arch| Table::of(*arch)) {
        if !tables.contains(&table) {
            tables.push(table);
        }
    }
    tables
}

/// The filter's return value for an action.
fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<u32, Error> {
    let errno = errno.unwrap_or(libc::EPERM as u32);
    Ok(match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => KILL_THREAD,
        LinuxSeccompAction::ScmpActKillProcess => KILL_PROCESS,
        LinuxSeccompAction::ScmpActTrap => 0x0003_0000,
        LinuxSeccompAction::ScmpActErrno if errno > 4095 => return Err(Error::Errno(errno)),
        LinuxSeccompAction::ScmpActErrno => 0x0005_0000 | errno,
        LinuxSeccompAction::ScmpActTrace => 0x7ff0_0000 | (errno & 0xffff),
        LinuxSeccompAction::ScmpActLog => 0x7ffc_0000,
        LinuxSeccompAction::ScmpActAllow => ALLOW,
        LinuxSeccompAction::ScmpActNotify => {
            return Err(Error::Unsupported("the seccomp action SCMP_ACT_NOTIFY".to_owned()));
        }
    })
}

/// A condition on an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Condition {
    index: u32,
    operator: Comparison,
    value: u64,
    mask: u64,
}

/// The operators that remain: the others are these with the outcomes exchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Comparison {
    Equal,
    Greater,
    GreaterOrEqual,
    NotEqual,
    LessOrEqual,
    Less,
}

impl Condition {
    fn new(argument: &LinuxSeccompArg, syscall: &LinuxSyscall) -> Result<Self, Error> {
        let index = argument.index();
        if index > 5 {
            let syscall = syscall.names().first().cloned().unwrap_or_default();
            return Err(Error::Argument { syscall, index });
        }
        use Comparison as Op;
        let (operator, value, mask) = match argument.op() {
            LinuxSeccompOperator::ScmpCmpEq => (Op::Equal, argument.value(), u64::MAX),
            LinuxSeccompOperator::ScmpCmpNe => (Op::NotEqual, argument.value(), u64::MAX),
            LinuxSeccompOperator::ScmpCmpGt => (Op::Greater, argument.value(), u64::MAX),
            LinuxSeccompOperator::ScmpCmpGe => (Op::GreaterOrEqual, argument.value(), u64::MAX),
            LinuxSeccompOperator::ScmpCmpLt => (Op::Less, argument.value(), u64::MAX),
            LinuxSeccompOperator::ScmpCmpLe => (Op::LessOrEqual, argument.value(), u64::MAX),
            LinuxSeccompOperator::ScmpCmpMaskedEq => {
                (Op::Equal, argument.value_two().unwrap_or(0), argument.value())
            }
        };
        Ok(Self { index: index as u32, operator, value, mask })
    }
}

/// One entry of the profile.
struct Rule<'a> {
    names: &'a [String],
    action: u32,
    /// Any of these must hold; each is a list of which all must hold.
    alternatives: Vec<Vec<Condition>>,
}

impl<'a> Rule<'a> {
    fn new(syscall: &'a LinuxSyscall) -> Result<Self, Error> {
        let arguments = syscall.args().as_deref().unwrap_or_default();
        let conditions: Vec<Condition> =
            arguments.iter().map(|a| Condition::new(a, syscall)).collect::<Result<_, _>>()?;
        let repeated = (0..6).any(|index| conditions.iter().filter(|c| c.index == index).count() > 1);
        let alternatives =
            if repeated { conditions.iter().map(|c| vec![*c]).collect() } else { vec![conditions] };
        Ok(Self {
            names: syscall.names(),
            action: action(syscall.action(), syscall.errno_ret())?,
            alternatives,
        })
    }
}

/// What is done about a call: tried in order, then the last.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Outcome {
    tests: Vec<(Vec<Condition>, u32)>,
    otherwise: u32,
}

/// Numbers from `first` up to the next segment's have this outcome.
struct Segment {
    first: u32,
    outcome: Outcome,
}

fn segments(table: Table, rules: &[Rule<'_>], default: u32) -> Vec<Segment> {
    let mut calls: HashMap<u32, Vec<&Rule<'_>>> = HashMap::with_capacity(512);
    for rule in rules {
        for number in rule.names.iter().filter_map(|name| table.number(name)) {
            let list = calls.entry(number).or_default();
            if !list.last().is_some_and(|last| std::ptr::eq(*last, rule)) {
                list.push(rule);
            }
        }
    }
    let mut numbers: Vec<u32> = calls.keys().copied().collect();
    numbers.sort_unstable();
    let plain = |action| Outcome { tests: Vec::new(), otherwise: action };
    let mut segments = vec![Segment { first: 0, outcome: plain(default) }];
    let mut push = |first: u32, outcome: Outcome| {
        if let Some(last) = segments.last_mut() {
            if last.outcome == outcome {
                return;
            }
            if last.first == first {
                last.outcome = outcome;
                return;
            }
        }
        segments.push(Segment { first, outcome });
    };
    for (at, number) in numbers.iter().enumerate() {
        push(*number, outcome(&calls[number], default));
        if numbers.get(at + 1) != Some(&(number + 1)) {
            push(number + 1, plain(default));
        }
    }
    // Calls newer than the profile: "not there" lets a C library fall back, where "not permitted"
    // would be taken for an answer.
    let eperm = 0x0005_0000 | libc::EPERM as u32;
    if let (true, Some(last)) = (default == eperm, numbers.last()) {
        push(last + 1, plain(0x0005_0000 | libc::ENOSYS as u32));
    }
    merge(segments)
}

/// Joins neighbours with the same outcome, which replacing may have made.
fn merge(segments: Vec<Segment>) -> Vec<Segment> {
    let mut merged: Vec<Segment> = Vec::with_capacity(segments.len());
    for segment in segments {
        if merged.last().is_none_or(|last| last.outcome != segment.outcome) {
            merged.push(segment);
        }
    }
    merged
}

fn outcome(rules: &[&Rule<'_>], default: u32) -> Outcome {
    let mut tests = Vec::new();
    for rule in rules {
        for alternative in &rule.alternatives {
            if alternative.is_empty() {
                return Outcome { tests, otherwise: rule.action };
            }
            tests.push((alternative.clone(), rule.action));
        }
    }
    Outcome { tests, otherwise: default }
}

/// A place in the code, counted from its end: the length of the code once the instruction there
/// has been written.
type Place = usize;

#[derive(Default)]
struct Emitter {
    /// Backwards.
    code: Vec<Instruction>,
    returns: HashMap<u32, Place>,
    outcomes: HashMap<Outcome, Place>,
}

impl Emitter {
    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Place {
        self.code.push(Instruction { code, jt, jf, k });
        self.code.len()
    }

    /// Makes `target` reachable by an 8-bit jump from the next but `after` instructions.
    fn near(&mut self, target: Place, after: usize) -> Place {
        if self.code.len() + after - target <= 255 {
            return target;
        }
        let distance = (self.code.len() - target) as u32;
        self.push(JUMP, 0, 0, distance)
    }

    fn branch(&mut self, code: u16, k: u32, yes: Place, no: Place) -> Place {
        // One trampoline moves the other target by one.
        let yes = self.near(yes, 1);
        let no = self.near(no, 0);
        let here = self.code.len();
        self.push(code, (here - yes) as u8, (here - no) as u8, k)
    }

    fn finish(&mut self, action: u32) -> Place {
        if let Some(place) = self.returns.get(&action) {
            return *place;
        }
        let place = self.push(RETURN, 0, 0, action);
        self.returns.insert(action, place);
        place
    }

    fn outcome(&mut self, outcome: &Outcome) -> Place {
        if outcome.tests.is_empty() {
            return self.finish(outcome.otherwise);
        }
        if let Some(place) = self.outcomes.get(outcome) {
            return *place;
        }
        let mut next = self.finish(outcome.otherwise);
        for (conditions, action) in outcome.tests.iter().rev() {
            let mut yes = self.finish(*action);
            for condition in conditions.iter().rev() {
                yes = self.condition(condition, yes, next);
            }
            next = yes;
        }
        self.outcomes.insert(outcome.clone(), next);
        next
    }

    /// A 64-bit comparison of an argument by its halves, the upper one first.
    fn condition(&mut self, condition: &Condition, yes: Place, no: Place) -> Place {
        use Comparison as Op;
        let (operator, yes, no) = match condition.operator {
            Op::NotEqual => (IF_EQUAL, no, yes),
            Op::LessOrEqual => (IF_GREATER, no, yes),
            Op::Less => (IF_GREATER_OR_EQUAL, no, yes),
            Op::Equal => (IF_EQUAL, yes, no),
            Op::Greater => (IF_GREATER, yes, no),
            Op::GreaterOrEqual => (IF_GREATER_OR_EQUAL, yes, no),
        };
        let (mask_low, mask_high) = (condition.mask as u32, (condition.mask >> 32) as u32);
        let (low, high) = (condition.value as u32, (condition.value >> 32) as u32);
        // seccomp_data: nr, arch, instruction pointer, then six arguments; little-endian.
        let offset = 16 + 8 * condition.index;
        self.branch(operator, low, yes, no);
        self.mask(mask_low);
        let lower = self.push(LOAD, 0, 0, offset);
        let mut place = self.branch(IF_EQUAL, high, lower, no);
        if operator != IF_EQUAL {
            let equal = place;
            place = self.branch(IF_GREATER, high, yes, equal);
        }
        let _ = place;
        self.mask(mask_high);
        self.push(LOAD, 0, 0, offset + 4)
    }

    fn mask(&mut self, mask: u32) {
        if mask != u32::MAX {
            self.push(AND, 0, 0, mask);
        }
    }

    fn search(&mut self, segments: &[Segment]) -> Place {
        match segments {
            [] => self.finish(KILL_PROCESS),
            [only] => self.outcome(&only.outcome),
            _ => {
                let (lower, upper) = segments.split_at(segments.len() / 2);
                let first = upper[0].first;
                let upper = self.search(upper);
                let lower = self.search(lower);
                self.branch(IF_GREATER_OR_EQUAL, first, upper, lower)
            }
        }
    }

    /// One architecture's part, which starts by loading the number.
    fn architecture(&mut self, table: Table, x32: bool, rules: &[Rule<'_>], default: u32) -> Place {
        let own = self.search(&segments(table, rules, default));
        if table == Table::X86_64 {
            // x32 calls carry x86-64's AUDIT_ARCH: they must be told apart by number, or a rule
            // against a call could be passed by its x32 twin.
            let other = if x32 {
                self.search(&segments(Table::X32, rules, default))
            } else {
                self.finish(KILL_PROCESS)
            };
            self.branch(IF_GREATER_OR_EQUAL, X32_BIT, other, own);
        } else {
            // The search may start at a return that is shared.
            let distance = (self.code.len() - own) as u32;
            self.push(JUMP, 0, 0, distance);
        }
        self.push(LOAD, 0, 0, 0)
    }

    fn program(&mut self, tables: &[Table], rules: &[Rule<'_>], default: u32) -> Place {
        let x32 = tables.contains(&Table::X32);
        // An architecture that the profile does not name: as libseccomp, the call is not answered.
        let mut next = self.finish(KILL_PROCESS);
        let own = tables.iter().filter(|table| **table != Table::X32);
        let parts: Vec<(u32, Place)> =
            own.map(|table| (table.audit(), self.architecture(*table, x32, rules, default))).collect();
        for (audit, part) in parts.into_iter().rev() {
            next = self.branch(IF_EQUAL, audit, part, next);
        }
        self.push(LOAD, 0, 0, 4)
    }
}
