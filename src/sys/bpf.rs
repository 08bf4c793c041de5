//! BPF programs at control groups (bpf(2)).

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// One instruction, `struct bpf_insn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// What it does.
    pub code: u8,
    /// The destination in the lower four bits, the source in the upper.
    pub registers: u8,
    /// Instructions to skip, or bytes from a base.
    pub offset: i16,
    /// The operand.
    pub constant: i32,
}

impl Instruction {
    /// As the kernel reads it from memory. (The registers' bit fields are those of a little-endian
    /// machine, and the other way round on a big-endian one.)
    pub fn bytes(&self) -> [u8; 8] {
        let mut bytes = [0; 8];
        bytes[0] = self.code;
        bytes[1] = if cfg!(target_endian = "big") { self.registers.rotate_left(4) } else { self.registers };
        bytes[2..4].copy_from_slice(&self.offset.to_ne_bytes());
        bytes[4..].copy_from_slice(&self.constant.to_ne_bytes());
        bytes
    }
}

const PROG_LOAD: u32 = 5;
const PROG_ATTACH: u32 = 8;
const PROG_DETACH: u32 = 9;
const PROG_GET_FD_BY_ID: u32 = 13;
const OBJ_GET_INFO_BY_FD: u32 = 15;
const PROG_QUERY: u32 = 16;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
/// Other programs at the group and above it are asked too, and each must agree.
const F_ALLOW_MULTI: u32 = 2;
/// By this name we know our own programs again (at most 15 bytes).
const NAME: &[u8; 13] = b"umiak_devices";

/// The part of `union bpf_attr` for BPF_PROG_LOAD, up to Linux 4.15.
#[repr(C)]
#[derive(Default)]
struct LoadArgs {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

/// For BPF_PROG_ATTACH and BPF_PROG_DETACH.
#[repr(C)]
#[derive(Default)]
struct AttachArgs {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}

/// For BPF_PROG_QUERY.
#[repr(C)]
#[derive(Default)]
struct QueryArgs {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
}

/// For BPF_PROG_GET_FD_BY_ID.
#[repr(C)]
#[derive(Default)]
struct IdArgs {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

/// For BPF_OBJ_GET_INFO_BY_FD.
#[repr(C)]
#[derive(Default)]
struct InfoArgs {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// The head of `struct bpf_prog_info`, up to the name.
#[repr(C)]
#[derive(Default)]
struct Info {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    jited_prog_len: u32,
    xlated_prog_len: u32,
    jited_prog_insns: u64,
    xlated_prog_insns: u64,
    load_time: u64,
    created_by_uid: u32,
    nr_map_ids: u32,
    map_ids: u64,
    name: [u8; 16],
}

fn bpf<T>(command: u32, args: &mut T) -> io::Result<i32> {
    // SAFETY: `args` is one of the structures above, which begin as the kernel's union does for the
    // command; the kernel takes what lies beyond its size as zero. Pointers in it are to memory that
    // the callers below keep for the length of the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut::<T>(args), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

fn bpf_fd<T>(command: u32, args: &mut T) -> io::Result<OwnedFd> {
    let fd = bpf(command, args)?;
    // SAFETY: both commands this is called for return a new descriptor that nobody else knows of.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    let code: Vec<u8> = program.iter().flat_map(Instruction::bytes).collect();
    let mut args = LoadArgs {
        prog_type: PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: u32::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        insns: code.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        ..LoadArgs::default()
    };
    args.prog_name[..NAME.len()].copy_from_slice(NAME);
    bpf_fd(PROG_LOAD, &mut args)
}

/// Programs and maps were counted as locked memory before Linux 5.11. That this cannot be raised does
/// no harm where it is not counted.
fn raise_locked_memory() {
    let limit = rustix::process::Rlimit { current: None, maximum: None };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Memlock, limit);
}

/// Attaches a program that decides about devices to a control group of version 2 (a descriptor of its
/// directory, not an `O_PATH` one), and takes off those that this function attached before.
pub fn attach_device_filter(group: &impl AsFd, program: &[Instruction]) -> io::Result<()> {
    let loaded = match load(program) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            raise_locked_memory();
            load(program)?
        }
        other => other?,
    };
    let target = group.as_fd().as_raw_fd() as u32;
    let before = attached(target).unwrap_or_default();
    let args = |program: &OwnedFd, flags| AttachArgs {
        target_fd: target,
        attach_bpf_fd: program.as_raw_fd() as u32,
        attach_type: ATTACH_CGROUP_DEVICE,
        attach_flags: flags,
    };
    // The new one first: there is no moment without rules.
    bpf(PROG_ATTACH, &mut args(&loaded, F_ALLOW_MULTI))?;
    for old in before {
        bpf(PROG_DETACH, &mut args(&old, 0))?;
    }
    Ok(())
}

/// Our own programs at the group.
fn attached(target: u32) -> io::Result<Vec<OwnedFd>> {
    // The kernel allows 64 at one group.
    let mut ids = [0_u32; 64];
    let mut args = QueryArgs {
        target_fd: target,
        attach_type: ATTACH_CGROUP_DEVICE,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: ids.len() as u32,
        ..QueryArgs::default()
    };
    bpf(PROG_QUERY, &mut args)?;
    let mut list = Vec::new();
    for id in &ids[..(args.prog_cnt as usize).min(ids.len())] {
        let fd = bpf_fd(PROG_GET_FD_BY_ID, &mut IdArgs { id: *id, ..IdArgs::default() })?;
        let mut info = Info::default();
        let mut query = InfoArgs {
            bpf_fd: fd.as_raw_fd() as u32,
            info_len: size_of::<Info>() as u32,
            info: &raw mut info as u64,
        };
        bpf(OBJ_GET_INFO_BY_FD, &mut query)?;
        if info.name.starts_with(NAME) {
            list.push(fd);
        }
    }
    Ok(list)
}
