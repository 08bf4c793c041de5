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

#[derive(Clone, Copy, Debug)]
enum Item {
    Plain(u16, u32),
    Answer(u32),
    Branch(Test, u32, To, To),
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
        self.items.push(Item::Answer(value));
    }

    /// Compares and branches.
    pub fn branch(&mut self, test: Test, value: u32, yes: To, no: To) {
        self.items.push(Item::Branch(test, value, yes, no));
    }

    /// The program; `None` if a label was never placed, or is not further down.
    pub fn finish(self) -> Option<Vec<Instruction>> {
        // From the end, so that it is known what is to be reached.
        let mut laid = Laid::default();
        let mut places: Vec<Option<Place>> = vec![None; self.items.len() + 1];
        for (at, item) in self.items.iter().enumerate().rev() {
            let place = |to: To| match to {
                To::Next => places[at + 1],
                To::Label(label) => *places.get(self.labels[label.0])?,
            };
            places[at] = Some(match *item {
                Item::Answer(value) => Place::Answer(value),
                Item::Plain(code, k) => laid.plain(code, k, place(To::Next)?),
                Item::Branch(test, k, yes, no) => laid.branch(test, k, place(yes)?, place(no)?),
            });
        }
        laid.lead_to((*places.first()?)?);
        laid.backwards.reverse();
        Some(laid.backwards)
    }
}

/// What an item has become.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// An instruction, by the number of those from it to the end.
    At(usize),
    /// An answer, which is laid where somebody needs it.
    Answer(u32),
}

/// A program from its end. The kernel checks, translates and compiles a filter anew for each container that is
/// started and each program in one: so an answer serves all comparisons that reach it.
#[derive(Debug, Default)]
struct Laid {
    backwards: Vec<Instruction>,
    /// Where answers are, the foremost last.
    answers: Vec<(u32, usize)>,
}

impl Laid {
    /// What a comparison reaches (the distance has 8 bits), with room for what else one needs.
    const REACH: usize = 250;

    fn push(&mut self, code: u16, jt: usize, jf: usize, k: usize) -> usize {
        let instruction = Instruction { code, jt: jt as u8, jf: jf as u8, k: k as u32 };
        self.backwards.push(instruction);
        self.backwards.len()
    }

    /// Where a comparison that is laid next, or after one more, finds this.
    fn reach(&mut self, place: Place) -> usize {
        let here = self.backwards.len();
        match place {
            Place::At(at) if here - at <= Self::REACH => at,
            Place::At(at) => self.push(JMP_JA, 0, 0, here - at),
            Place::Answer(value) => match self.answers.iter().rev().find(|(answer, _)| *answer == value) {
                Some((_, at)) if here - at <= Self::REACH => *at,
                _ => {
                    self.answers.push((value, here + 1));
                    self.push(RET_K, 0, 0, value as usize)
                }
            },
        }
    }

    /// Has what is laid next go on there.
    fn lead_to(&mut self, place: Place) {
        let (at, here) = (self.reach(place), self.backwards.len());
        if at != here {
            self.push(JMP_JA, 0, 0, here - at);
        }
    }

    fn plain(&mut self, code: u16, k: u32, next: Place) -> Place {
        self.lead_to(next);
        Place::At(self.push(code, 0, 0, k as usize))
    }

    fn branch(&mut self, test: Test, k: u32, yes: Place, no: Place) -> Place {
        let (yes, no) = (self.reach(yes), self.reach(no));
        let code = match test {
            Test::Equal => JMP_JEQ_K,
            Test::Greater => JMP_JGT_K,
            Test::AtLeast => JMP_JGE_K,
        };
        let here = self.backwards.len();
        Place::At(self.push(code, here - yes, here - no, k as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::super::interpret::{Call, run};
    use super::*;

    #[test]
    fn however_far_it_is() {
        let mut assembler = Assembler::default();
        let ends: Vec<Label> = (0..1000).map(|_| assembler.label()).collect();
        assembler.load(0);
        for (number, end) in ends.iter().enumerate() {
            assembler.branch(Test::Equal, number as u32, To::Label(*end), To::Next);
        }
        assembler.answer(7);
        for (number, end) in ends.iter().enumerate() {
            assembler.place(*end);
            // Two in three are told alike.
            if number % 3 == 0 {
                assembler.load(4);
            }
            assembler.answer(if number % 3 == 0 { number as u32 } else { 7 });
        }
        let program = assembler.finish().unwrap();
        for number in 0..1100 {
            let expected = if number < 1000 && number % 3 == 0 { number } else { 7 };
            assert_eq!(run(&program, &Call { number, ..Call::default() }).0, expected, "{number}");
        }
        let answers = program.iter().filter(|i| (i.code, i.k) == (RET_K, 7)).count();
        assert!(answers < 12, "{answers} times");
    }

    #[test]
    fn what_leads_nowhere_is_no_program() {
        assert!(Assembler::default().finish().is_none());
        let mut assembler = Assembler::default();
        assembler.load(0);
        assert!(assembler.finish().is_none(), "no end");
        let mut assembler = Assembler::default();
        let label = assembler.label();
        assembler.branch(Test::Equal, 1, To::Label(label), To::Label(label));
        assembler.answer(1);
        assert!(assembler.finish().is_none(), "a label without a place");
        let mut assembler = Assembler::default();
        let label = assembler.label();
        assembler.place(label);
        assembler.branch(Test::Equal, 1, To::Label(label), To::Next);
        assembler.answer(1);
        assert!(assembler.finish().is_none(), "backwards");
        let mut assembler = Assembler::default();
        assembler.answer(9);
        assert_eq!(run(&assembler.finish().unwrap(), &Call::default()).0, 9);
    }
}
