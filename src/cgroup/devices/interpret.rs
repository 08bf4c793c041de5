//! Runs the programs that [`super::assemble`] makes, so that they can be tested without the kernel.

use super::assemble::{AND, EXIT, JUMP_EQUAL, JUMP_UNEQUAL, LOAD_WORD, MOV, MOV_REG, SHIFT_RIGHT};
use crate::sys::bpf::Instruction;

/// Panics if an instruction cannot be reached or the program runs on over its end, as the kernel refuses.
pub(super) fn verify(program: &[Instruction]) {
    let mut reached = vec![false; program.len()];
    let mut todo = vec![0];
    while let Some(at) = todo.pop() {
        if std::mem::replace(&mut reached[at], true) {
            continue;
        }
        match program[at].code {
            EXIT => {}
            JUMP_EQUAL | JUMP_UNEQUAL => {
                todo.extend([at + 1, at + 1 + usize::try_from(program[at].offset).unwrap()])
            }
            _ => todo.push(at + 1),
        }
    }
    assert!(reached.iter().all(|reached| *reached), "an instruction cannot be reached");
}

/// The answer to the question in `context`; panics on what the kernel's verifier would refuse.
pub(super) fn interpret(program: &[Instruction], context: [u32; 3]) -> u32 {
    let mut registers: [Option<u32>; 11] = [None; 11];
    let mut at = 0;
    loop {
        let i = program[at];
        let (dst, src) = (usize::from(i.registers & 15), usize::from(i.registers >> 4));
        let value = |register: usize| registers[register].expect("a register is read before it is written");
        let mut skip = 0;
        match i.code {
            LOAD_WORD => {
                assert!(src == 1 && i.offset % 4 == 0, "only the context may be read");
                registers[dst] = Some(context[usize::try_from(i.offset).unwrap() / 4]);
            }
            MOV => registers[dst] = Some(i.constant as u32),
            MOV_REG => registers[dst] = Some(value(src)),
            AND => registers[dst] = Some(value(dst) & i.constant as u32),
            SHIFT_RIGHT => registers[dst] = Some(value(dst) >> i.constant),
            JUMP_UNEQUAL if value(dst) != i.constant as u32 => skip = i.offset,
            JUMP_EQUAL if value(dst) == i.constant as u32 => skip = i.offset,
            JUMP_UNEQUAL | JUMP_EQUAL => {}
            EXIT => return value(0),
            other => panic!("unknown instruction {other:#x}"),
        }
        // Backward jumps are loops, which old kernels refuse.
        at += 1 + usize::try_from(skip).unwrap();
    }
}
