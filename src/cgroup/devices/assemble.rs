//! Device rules as a BPF program (bpf(2); the instruction set is in the kernel's
//! `Documentation/bpf/standardization/instruction-set.rst`).
//!
//! It gets a `struct bpf_cgroup_dev_ctx` of three words: access and kind in one, major, minor; it
//! returns 1 for yes. In R6 it keeps the accesses about which no rule has spoken yet, and asks the
//! rules from the last to the first.

use super::{ALL, Kind, Rule};
use crate::sys::bpf::Instruction;

const R0: u8 = 0;
const R1: u8 = 1;
const KIND: u8 = 2;
const MAJOR: u8 = 3;
const MINOR: u8 = 4;
const SCRATCH: u8 = 5;
const UNDECIDED: u8 = 6;

/// `dst = *(u32 *)(src + offset)`.
pub(super) const LOAD_WORD: u8 = 0x61;
/// `dst = src` (32 bits, as all below).
pub(super) const MOV_REG: u8 = 0xbc;
/// `dst = constant`.
pub(super) const MOV: u8 = 0xb4;
/// `dst &= constant`.
pub(super) const AND: u8 = 0x54;
/// `dst >>= constant`.
pub(super) const SHIFT_RIGHT: u8 = 0x74;
/// Skip if `dst != constant`.
pub(super) const JUMP_UNEQUAL: u8 = 0x56;
/// Skip if `dst == constant`.
pub(super) const JUMP_EQUAL: u8 = 0x16;
/// The end; the answer is in R0.
pub(super) const EXIT: u8 = 0x95;

/// `BPF_DEVCG_DEV_BLOCK` and `_CHAR`.
fn kernel_kind(kind: Kind) -> Option<i32> {
    match kind {
        Kind::Block => Some(1),
        Kind::Char => Some(2),
        Kind::Any => None,
    }
}

fn op(code: u8, dst: u8, constant: i32) -> Instruction {
    Instruction { code, registers: dst, offset: 0, constant }
}

fn op_reg(code: u8, dst: u8, src: u8, offset: i16) -> Instruction {
    Instruction { code, registers: src << 4 | dst, offset, constant: 0 }
}

/// The program.
pub(super) fn assemble(rules: &[Rule]) -> Vec<Instruction> {
    let mut program = vec![
        op_reg(LOAD_WORD, KIND, R1, 0),
        op_reg(MOV_REG, UNDECIDED, KIND, 0),
        op(SHIFT_RIGHT, UNDECIDED, 16),
        op(AND, KIND, 0xffff),
        op_reg(LOAD_WORD, MAJOR, R1, 4),
        op_reg(LOAD_WORD, MINOR, R1, 8),
    ];
    for rule in rules.iter().rev() {
        let decision = decision(rule);
        let tests = [
            kernel_kind(rule.kind).map(|kind| (KIND, kind)),
            rule.major.map(|major| (MAJOR, major as i32)),
            rule.minor.map(|minor| (MINOR, minor as i32)),
        ];
        let tests: Vec<(u8, i32)> = tests.into_iter().flatten().collect();
        for (index, (register, value)) in tests.iter().enumerate() {
            let rest = tests.len() - 1 - index + decision.len();
            let mut jump = op(JUMP_UNEQUAL, *register, *value);
            // At most three tests and six instructions.
            jump.offset = rest as i16;
            program.push(jump);
        }
        program.extend(decision);
    }
    // The kernel refuses programs with an end that cannot be reached.
    if !rules.first().is_some_and(Rule::is_whole) {
        program.extend([op(MOV, R0, 0), op(EXIT, 0, 0)]);
    }
    program
}

/// What happens where the rule names the device.
fn decision(rule: &Rule) -> Vec<Instruction> {
    let skip = |code, register, offset| Instruction { offset, ..op(code, register, 0) };
    let end = |answer| [op(MOV, R0, answer), op(EXIT, 0, 0)];
    let mut list = Vec::new();
    if rule.allow {
        if rule.access != ALL {
            list.push(op(AND, UNDECIDED, !(rule.access as i32)));
            list.push(skip(JUMP_UNEQUAL, UNDECIDED, 2));
        }
        list.extend(end(1));
    } else {
        if rule.access != ALL {
            list.push(op_reg(MOV_REG, SCRATCH, UNDECIDED, 0));
            list.push(op(AND, SCRATCH, rule.access as i32));
            list.push(skip(JUMP_EQUAL, SCRATCH, 2));
        }
        list.extend(end(0));
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_as_the_kernel_reads_it() {
        let rule = Rule {
            allow: true,
            kind: Kind::Char,
            major: Some(1),
            minor: Some(3),
            access: super::super::READ,
        };
        let program = assemble(&[rule]);
        let bytes: Vec<u8> = program.iter().flat_map(Instruction::bytes).collect();
        let expected: [[u8; 8]; 15] = [
            [0x61, 0x12, 0, 0, 0, 0, 0, 0],
            [0xbc, 0x26, 0, 0, 0, 0, 0, 0],
            [0x74, 0x06, 0, 0, 16, 0, 0, 0],
            [0x54, 0x02, 0, 0, 0xff, 0xff, 0, 0],
            [0x61, 0x13, 4, 0, 0, 0, 0, 0],
            [0x61, 0x14, 8, 0, 0, 0, 0, 0],
            [0x56, 0x02, 6, 0, 2, 0, 0, 0],
            [0x56, 0x03, 5, 0, 1, 0, 0, 0],
            [0x56, 0x04, 4, 0, 3, 0, 0, 0],
            [0x54, 0x06, 0, 0, 0xfd, 0xff, 0xff, 0xff],
            [0x56, 0x06, 2, 0, 0, 0, 0, 0],
            [0xb4, 0x00, 0, 0, 1, 0, 0, 0],
            [0x95, 0x00, 0, 0, 0, 0, 0, 0],
            [0xb4, 0x00, 0, 0, 0, 0, 0, 0],
            [0x95, 0x00, 0, 0, 0, 0, 0, 0],
        ];
        if cfg!(target_endian = "little") {
            assert_eq!(bytes, expected.concat());
        }
    }
}
