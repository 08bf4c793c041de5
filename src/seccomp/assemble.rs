//! A small assembler for classic BPF: labels instead of distances.

use crate::sys::seccomp::Instruction;

const LD_W_ABS: u16 = 0x20;
const JMP_JA: u16 = 0x05;
const JMP_JEQ_K: u16 = 0x15;
const JMP_JGT_K: u16 = 0x25;
const JMP_JGE_K: u16 = 0x35;
const ALU_AND_K: u16 = 0x54;
const RET_K: u16 = 0x06;

/// Somewhere further down in the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label(usize);

/// Where a comparison leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// The next instruction.
    Next,
    /// A label.
    Label(Label),
}

/// A comparison of the accumulator with a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    /// Equal.
    Equal,
    /// Greater, unsigned.
    Greater,
    /// Greater or equal, unsigned.
    AtLeast,
}

#[derive(Debug)]
enum Item {
    Plain(u16, u32),
    Branch(Test, u32, To, To),
    Jump(Label),
}

/// A program in the making.
#[derive(Debug, Default)]
pub struct Assembler {
    items: Vec<Item>,
    labels: Vec<usize>,
}

impl Assembler {
    /// A label to be placed later.
    pub fn label(&mut self) -> Label {
        self.labels.push(usize::MAX);
        Label(self.labels.len() - 1)
    }

    /// Gives the label its place: here.
    pub fn place(&mut self, label: Label) {
        self.labels[label.0] = self.items.len();
    }

    /// Loads a 32-bit word of `struct seccomp_data` at this offset.
    pub fn load(&mut self, offset: u32) {
        self.items.push(Item::Plain(LD_W_ABS, offset));
    }

    /// Keeps only these bits of what was loaded.
    pub fn and(&mut self, mask: u32) {
        self.items.push(Item::Plain(ALU_AND_K, mask));
    }

    /// Ends with this answer (`SECCOMP_RET_*`).
    pub fn answer(&mut self, value: u32) {
        self.items.push(Item::Plain(RET_K, value));
    }

    /// Compares and branches. The distance must be below 256 instructions.
    pub fn branch(&mut self, test: Test, value: u32, yes: To, no: To) {
        self.items.push(Item::Branch(test, value, yes, no));
    }

    /// Compares and goes to a label of any distance if the test holds.
    pub fn branch_far(&mut self, test: Test, value: u32, yes: Label) {
        let over = self.label();
        self.branch(test, value, To::Next, To::Label(over));
        self.items.push(Item::Jump(yes));
        self.place(over);
    }

    /// How many instructions there are so far.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// The program; `None` if a branch is too far.
    pub fn finish(self) -> Option<Vec<Instruction>> {
        let distance = |at: usize, label: Label| self.labels[label.0].checked_sub(at + 1);
        let short = |at: usize, to: To| match to {
            To::Next => Some(0),
            To::Label(label) => u8::try_from(distance(at, label)?).ok(),
        };
        let encode = |(at, item): (usize, &Item)| {
            Some(match *item {
                Item::Plain(code, k) => Instruction { code, jt: 0, jf: 0, k },
                Item::Jump(label) => {
                    Instruction { code: JMP_JA, jt: 0, jf: 0, k: u32::try_from(distance(at, label)?).ok()? }
                }
                Item::Branch(test, k, yes, no) => {
                    let code = match test {
                        Test::Equal => JMP_JEQ_K,
                        Test::Greater => JMP_JGT_K,
                        Test::AtLeast => JMP_JGE_K,
                    };
                    Instruction { code, jt: short(at, yes)?, jf: short(at, no)?, k }
                }
            })
        };
        self.items.iter().enumerate().map(encode).collect()
    }
}
