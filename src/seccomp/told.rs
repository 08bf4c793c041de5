//! Changes of a profile's decisions: calls that are answered instead of being made, by the filter itself
//! ([`Emulation`]) or by a process of ours that is asked each time.
//!
//! They are part of the profile's own filter. In a second one they could come before what the profile refuses; and
//! a process can have one listener only, so all who answer share it.

use super::compile::answer::NOTIFY;
use super::emulate::{Emulation, Kernel, SUCCESS};
use super::numbers::Architecture;
use crate::sys::seccomp::{CONNECT_NO_TCP, NEW_LISTENER, WAIT_KILLABLE_RECV};
use crate::sys::socket::HANDING_OVER;

/// A call about which a listener of ours is asked, where the profile lets it through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Its name; on architectures that do not have it nothing is changed.
    pub name: &'static str,
    /// The uses about which nobody is asked.
    pub kernel: Kernel,
}

impl Told {
    /// All its uses.
    pub fn always(name: &'static str) -> Self {
        Self { name, kernel: Kernel::Never }
    }

    /// But for those in which this argument is zero (a null pointer).
    pub fn unless_zero(name: &'static str, index: u32) -> Self {
        Self { name, kernel: Kernel::Zero(index) }
    }
}

/// What is changed of a profile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Ids that are not there are said to have been taken.
    pub emulation: Option<Emulation>,
    /// These are told to a listener. Where one is emulated too, this counts.
    pub told: Vec<Told>,
    /// A call that waits for its answer can be interrupted by every signal, and is made again then; otherwise, once
    /// somebody looks at it, by fatal ones only.
    pub interruptible: bool,
    /// The processes connect no TCP socket themselves: whoever is told does it for them.
    pub no_tcp: bool,
}

/// How a call's uses are parted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Use {
    pub kernel: Kernel,
    /// What is answered to the others.
    pub otherwise: u32,
}

impl Changes {
    /// Whether the filter has a listener by them.
    pub fn listens(&self) -> bool {
        !self.told.is_empty()
    }

    pub(super) fn flags(&self) -> u32 {
        let listener = match (self.listens(), self.interruptible) {
            (false, _) => 0,
            (true, true) => NEW_LISTENER,
            (true, false) => NEW_LISTENER | WAIT_KILLABLE_RECV,
        };
        listener | if self.no_tcp { CONNECT_NO_TCP } else { 0 }
    }

    /// The calls that are changed; of those that are there twice the later counts.
    pub(super) fn uses(&self) -> Vec<(&'static str, Use)> {
        let emulated = self.emulation.map(Emulation::calls).unwrap_or_default().into_iter();
        let emulated = emulated.map(|(name, kernel)| (name, Use { kernel, otherwise: SUCCESS }));
        let told = self.told.iter().map(|told| {
            // The listener itself comes out by this call.
            let kernel = match (told.name, &told.kernel) {
                ("sendmsg", Kernel::Never) => {
                    Kernel::Bits { index: 2, mask: HANDING_OVER, value: HANDING_OVER }
                }
                (_, kernel) => kernel.clone(),
            };
            (told.name, Use { kernel, otherwise: NOTIFY })
        });
        emulated.chain(told).collect()
    }
}

/// This machine's architecture, as a listener is told it.
pub fn native() -> u32 {
    Architecture::NATIVE.audit()
}

/// The numbers of these calls, with their architectures (`AUDIT_ARCH_*`), as a listener is told them.
pub fn numbers_of(names: &[&'static str]) -> Vec<((u32, i32), &'static str)> {
    let mut numbers = Vec::new();
    for architecture in [Some(Architecture::NATIVE), Architecture::COMPATIBLE].into_iter().flatten() {
        for (name, number) in architecture.calls() {
            if let Some(name) = names.iter().find(|known| **known == name) {
                numbers.push(((architecture.audit(), number as i32), *name));
            }
        }
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::super::interpret::{Call, run};
    use super::super::{Error, compile_with, default_profile};
    use super::*;
    use crate::sys::seccomp::Filter;
    use oci_spec::runtime::LinuxSeccomp;
    use serde_json::json;

    const ALLOW: u32 = 0x7fff_0000;
    const NATIVE: Architecture = Architecture::NATIVE;

    fn ask(filter: &Filter, name: &str, arguments: &[u64]) -> u32 {
        let mut call = Call { number: NATIVE.number(name), architecture: NATIVE.audit(), ..Call::default() };
        call.arguments[..arguments.len()].copy_from_slice(arguments);
        run(&filter.program, &call).0
    }

    #[test]
    fn calls_are_told_but_for_what_the_profile_refuses() {
        let told = vec![
            Told::always("connect"),
            Told::unless_zero("sendto", 4),
            Told::always("sendmsg"),
            Told::always("keyctl"),
            Told { name: "fchown", kernel: Kernel::Zero(1) },
            Told { name: "bind", kernel: Kernel::Unless { index: 2, values: [16, 28, 128] } },
        ];
        let emulation = Some(Emulation { uid: 0, gid: 0 });
        let changes = Changes { emulation, told, interruptible: false, no_tcp: false };
        let filter = compile_with(Some(&default_profile(&Default::default())), &changes).unwrap();
        assert_eq!(filter.flags, NEW_LISTENER | WAIT_KILLABLE_RECV);
        assert_eq!(ask(&filter, "connect", &[3]), NOTIFY);
        assert_eq!(ask(&filter, "sendto", &[3, 1, 1, 0, 0]), ALLOW);
        assert_eq!(ask(&filter, "sendto", &[3, 1, 1, 0, 0x1_0000_0000]), NOTIFY);
        assert_eq!(ask(&filter, "sendmsg", &[3, 1, 0]), NOTIFY);
        assert_eq!(ask(&filter, "sendmsg", &[3, 1, u64::from(HANDING_OVER) | 0x4000]), ALLOW);
        for (length, answer) in [(16, NOTIFY), (28, NOTIFY), (128, NOTIFY), (110, ALLOW), (12, ALLOW)] {
            assert_eq!(ask(&filter, "bind", &[3, 1, length]), answer, "{length}");
        }
        // Emulated too: this counts.
        assert_eq!(ask(&filter, "fchown", &[3, 5, 5]), NOTIFY);
        assert_eq!(ask(&filter, "chown", &[3, 5, 5]), SUCCESS);
        assert_eq!(ask(&filter, "read", &[3, 5, 5]), ALLOW);
        let refused = ask(&filter, "keyctl", &[]);
        assert!(refused != NOTIFY && refused != ALLOW, "{refused:x}");
        let open = compile_with(None, &Changes { told: vec![Told::always("connect")], ..Changes::default() });
        assert_eq!(ask(&open.unwrap(), "connect", &[]), NOTIFY);
    }

    #[test]
    fn there_is_one_listener() {
        let profile: LinuxSeccomp = serde_json::from_value(json!({
            "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/l",
            "syscalls": [{"names": ["mount"], "action": "SCMP_ACT_NOTIFY"}]}))
        .unwrap();
        let changes = Changes { told: vec![Told::always("connect")], ..Changes::default() };
        assert_eq!(compile_with(Some(&profile), &changes), Err(Error::TwoListeners));
        assert!(compile_with(Some(&profile), &Changes::default()).is_ok());
    }

    #[test]
    fn numbers_are_told_with_their_architecture() {
        let numbers = numbers_of(&["connect", "socketcall"]);
        let native = (NATIVE.audit(), NATIVE.number("connect") as i32);
        assert!(numbers.contains(&(native, "connect")));
        if let Some(other) = Architecture::COMPATIBLE {
            assert!(
                numbers.iter().any(|((audit, _), name)| *audit == other.audit() && *name == "socketcall")
            );
        }
    }
}
