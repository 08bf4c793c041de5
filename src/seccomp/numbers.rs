//! System call numbers by architecture.

/// An architecture as seccomp sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "each build is native to one of them")]
pub enum Architecture {
    /// AMD64. The x32 numbers, which share its audit value, are never let through.
    X86_64,
    /// 32-bit programs on AMD64.
    X86,
    /// 64-bit ARM.
    #[cfg_attr(not(target_arch = "aarch64"), allow(dead_code, reason = "what other machines are"))]
    Aarch64,
    /// 32-bit programs on ARM.
    Arm,
    /// 64-bit RISC-V.
    #[cfg_attr(not(target_arch = "riscv64"), allow(dead_code, reason = "what other machines are"))]
    Riscv64,
}

impl Architecture {
    /// What this program was built for.
    pub const NATIVE: Self = {
        #[cfg(target_arch = "x86_64")]
        {
            Self::X86_64
        }
        #[cfg(target_arch = "aarch64")]
        {
            Self::Aarch64
        }
        #[cfg(target_arch = "riscv64")]
        {
            Self::Riscv64
        }
    };

    /// The 32-bit one whose programs the same kernel runs.
    pub const COMPATIBLE: Option<Self> = match Self::NATIVE {
        Self::X86_64 => Some(Self::X86),
        Self::Aarch64 => Some(Self::Arm),
        _ => None,
    };

    /// `AUDIT_ARCH_*` of linux/audit.h.
    pub fn audit(self) -> u32 {
        match self {
            Self::X86_64 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
            Self::Riscv64 => 0xc000_00f3,
        }
    }

    /// All system calls with their numbers, in rising order.
    pub fn calls(self) -> Vec<(&'static str, u32)> {
        macro_rules! table {
            ($module:ident) => {{
                // `iter` leaves the last one out.
                let all = syscalls::$module::Sysno::iter().chain([syscalls::$module::Sysno::last()]);
                all.map(|call| (call.name(), call.id() as u32)).collect()
            }};
        }
        match self {
            Self::X86_64 => table!(x86_64),
            Self::X86 => table!(x86),
            Self::Aarch64 => table!(aarch64),
            Self::Arm => table!(arm),
            Self::Riscv64 => table!(riscv64),
        }
    }

    /// The number of one system call.
    #[cfg(test)]
    pub fn number(self, name: &str) -> u32 {
        self.calls().iter().find(|(known, _)| *known == name).unwrap().1
    }
}
