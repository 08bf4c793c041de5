//! System call numbers by architecture.

use std::collections::HashMap;
use std::sync::OnceLock;

use oci_spec::runtime::Arch;

/// An architecture that this kernel can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    X86_64,
    /// The same `AUDIT_ARCH` as x86-64, numbers with bit 30 set.
    X32,
    X86,
    Aarch64,
    Arm,
}

/// Bit 30 marks calls of the x32 ABI (`__X32_SYSCALL_BIT`).
pub(super) const X32_BIT: u32 = 0x4000_0000;

impl Table {
    /// The machine's own.
    pub fn native() -> Self {
        if cfg!(target_arch = "aarch64") { Self::Aarch64 } else { Self::X86_64 }
    }

    /// The table of a profile's architecture, if this machine can run it.
    pub fn of(arch: Arch) -> Option<Self> {
        let table = match arch {
            Arch::ScmpArchNative => Self::native(),
            Arch::ScmpArchX86_64 => Self::X86_64,
            Arch::ScmpArchX32 => Self::X32,
            Arch::ScmpArchX86 => Self::X86,
            Arch::ScmpArchAarch64 => Self::Aarch64,
            Arch::ScmpArchArm => Self::Arm,
            _ => return None,
        };
        let arm = matches!(table, Self::Aarch64 | Self::Arm);
        (arm == (Self::native() == Self::Aarch64)).then_some(table)
    }

    /// `AUDIT_ARCH_*`, as `seccomp_data.arch` has it.
    pub fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    /// The number of a call, if this architecture has it.
    pub fn number(self, name: &str) -> Option<u32> {
        static TABLES: [OnceLock<HashMap<&'static str, u32>>; 4] = [const { OnceLock::new() }; 4];
        let (index, bit) = match self {
            Self::X86_64 => (0, 0),
            Self::X32 => (0, X32_BIT),
            Self::X86 => (1, 0),
            Self::Aarch64 => (2, 0),
            Self::Arm => (3, 0),
        };
        let table = TABLES[index].get_or_init(|| match index {
            0 => syscalls::x86_64::Sysno::iter().map(|s| (s.name(), s.id() as u32)).collect(),
            1 => syscalls::x86::Sysno::iter().map(|s| (s.name(), s.id() as u32)).collect(),
            2 => syscalls::aarch64::Sysno::iter().map(|s| (s.name(), s.id() as u32)).collect(),
            _ => arm_extra()
                .into_iter()
                .chain(syscalls::arm::Sysno::iter().map(|s| (s.name(), s.id() as u32)))
                .collect(),
        });
        table.get(name).map(|number| number | bit)
    }
}

/// ARM's private calls (`__ARM_NR_*`).
fn arm_extra() -> [(&'static str, u32); 5] {
    [
        ("breakpoint", 0xf_0001),
        ("cacheflush", 0xf_0002),
        ("usr26", 0xf_0003),
        ("usr32", 0xf_0004),
        ("set_tls", 0xf_0005),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_kernels() {
        assert_eq!(Table::X86_64.number("execve"), Some(59));
        assert_eq!(Table::X32.number("read"), Some(X32_BIT));
        assert_eq!(Table::X86.number("execve"), Some(11));
        assert_eq!(Table::Aarch64.number("execve"), Some(221));
        assert_eq!(Table::Arm.number("execve"), Some(11));
        assert_eq!(Table::Aarch64.number("open"), None);
        assert_eq!(Table::X86_64.number("no_such_call"), None);
    }
}
