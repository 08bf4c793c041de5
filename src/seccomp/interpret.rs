//! A classic BPF interpreter for tests: what the kernel would answer.

use crate::sys::seccomp::Instruction;

/// What the kernel hands to a filter (`struct seccomp_data`).
#[derive(Clone, Copy, Debug, Default)]
pub struct Call {
    pub number: u32,
    pub architecture: u32,
    pub arguments: [u64; 6],
}

impl Call {
    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.number,
            4 => self.architecture,
            offset if offset >= 16 => {
                let argument = self.arguments[(offset as usize - 16) / 8];
                if offset.is_multiple_of(8) { argument as u32 } else { (argument >> 32) as u32 }
            }
            other => panic!("no word at {other}"),
        }
    }
}

/// Runs a filter; its answer and how many instructions that took.
pub fn run(program: &[Instruction], call: &Call) -> (u32, usize) {
    let (mut at, mut accumulator, mut steps) = (0, 0_u32, 0);
    loop {
        let instruction = program[at];
        steps += 1;
        at += 1;
        let branch = |holds: bool| usize::from(if holds { instruction.jt } else { instruction.jf });
        match instruction.code {
            0x20 => accumulator = call.word(instruction.k),
            0x54 => accumulator &= instruction.k,
            0x06 => return (instruction.k, steps),
            0x05 => at += instruction.k as usize,
            0x15 => at += branch(accumulator == instruction.k),
            0x25 => at += branch(accumulator > instruction.k),
            0x35 => at += branch(accumulator >= instruction.k),
            other => panic!("instruction {other:#x}"),
        }
    }
}
