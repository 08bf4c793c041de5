//! Batches of nfnetlink for nftables as bytes. Pure. What is not described in nft(8) is in
//! `linux/netfilter/nf_tables.h`: numbers in attributes are big-endian, registers have the packet's order, and
//! what the kernel knows of a packet (mark, device) the machine's.

use super::netlink::nested;
use crate::sys::netlink::{ACK, APPEND, CREATE, Request, attribute};

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM: u16 = 10;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const DELETE_TABLE: u16 = SUBSYSTEM << 8 | 2;
const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;

/// The table goes with the socket that made it (`NFT_TABLE_F_OWNER`).
const TABLE_OWNER: u32 = 2;

const REGISTER_VERDICT: u32 = 0;
const REGISTER_1: u32 = 1;

const LIST_ELEMENT: u16 = 1;

/// Which packets a table sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Those of IPv4 and IPv6.
    Inet = 1,
    /// Those that pass a bridge.
    Bridge = 7,
}

/// Where a base chain is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// `NF_INET_PRE_ROUTING` 0, `LOCAL_IN` 1, `FORWARD` 2.
    pub number: u32,
    /// The lowest is called first.
    pub priority: i32,
}

/// Before a packet is routed.
pub const PREROUTING: u32 = 0;
/// On its way to another device.
pub const FORWARD: u32 = 2;

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It vanishes.
    Drop,
    /// No further rule of this table is asked.
    Accept,
    /// The rules of this chain come next.
    Jump(String),
    /// Back to the chain that this one was jumped to from.
    Return,
}

/// What a rule looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meta {
    /// The mark.
    Mark = 3,
    /// The index of the device that it came by.
    Iif = 4,
    /// The index of the device that it leaves by.
    Oif = 5,
    /// The family: [`libc::AF_INET`] or [`libc::AF_INET6`], in a byte.
    NfProto = 15,
    /// The transport protocol, in a byte.
    L4Proto = 16,
    /// For whom it is on the link (`PACKET_HOST`), in a byte.
    PktType = 19,
}

/// Where a header begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// The link's.
    Link = 0,
    /// IP's.
    Network = 1,
    /// TCP's, UDP's, ICMP's.
    Transport = 2,
}

/// How a value is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// It is the same.
    Equal = 0,
    /// It is another one.
    NotEqual = 1,
    /// It is not greater.
    AtMost = 3,
    /// It is not less.
    AtLeast = 5,
}

/// The answer to a packet that is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// ICMP of either family: no route.
    NoRoute,
    /// ICMP of either family: port unreachable.
    Port,
    /// ICMP of either family: host unreachable.
    Host,
    /// ICMP of either family: administratively prohibited.
    Prohibited,
    /// A TCP reset.
    Reset,
}

/// How a packet gets into a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// nftables' own expression.
    Native(u16),
    /// The target of iptables, by way of `nft_compat`: where the kernel was made without the former.
    Target(u16),
}

/// Which kind of [`Queue`] a kernel has. To find out takes milliseconds: the kernel looks for a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueKind {
    /// [`Queue::Native`].
    Native,
    /// [`Queue::Target`].
    Target,
    /// Neither.
    Absent,
    /// There are no rules that hand over: frames are carried by hand.
    Frames,
    /// None of these: slirp4netns does it.
    Helper,
    /// None of these: pasta does it.
    Pasta,
}

impl QueueKind {
    /// All of them, the best first: what is held is answered as its destination answers.
    pub const ALL: [Self; 4] = [Self::Native, Self::Target, Self::Frames, Self::Absent];

    /// What is tried, in this order: first what earlier ones found. Who shares a router cannot carry frames.
    pub fn ways(known: Option<Self>, alone: bool) -> Vec<Self> {
        if alone && known.is_some_and(Self::is_helper) {
            return Vec::new();
        }
        let known = known.filter(|kind| !kind.is_helper());
        let others = Self::ALL.into_iter().filter(|kind| Some(*kind) != known);
        known.into_iter().chain(others).filter(|kind| alone || *kind != Self::Frames).collect()
    }

    /// Whether it is another program.
    pub fn is_helper(self) -> bool {
        matches!(self, Self::Helper | Self::Pasta)
    }

    /// The queue of this kind and number.
    pub fn queue(self, number: u16) -> Option<Queue> {
        match self {
            Self::Native => Some(Queue::Native(number)),
            Self::Target => Some(Queue::Target(number)),
            Self::Absent | Self::Frames | Self::Helper | Self::Pasta => None,
        }
    }

    /// A word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Target => "target",
            Self::Absent => "absent",
            Self::Frames => "frames",
            Self::Helper => "helper",
            Self::Pasta => "pasta",
        }
    }

    /// What a word says.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().chain([Self::Pasta, Self::Helper]).find(|kind| kind.word() == word)
    }
}

/// A step of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Takes something the kernel knows of the packet.
    Meta(Meta),
    /// Takes bytes of a header: from where, at which offset, how many.
    Payload(Base, u32, u32),
    /// Takes what kind of address the destination is to the router (`RTN_LOCAL`, `RTN_UNICAST`).
    DestinationKind,
    /// Keeps only these bits of what was taken.
    Mask(Vec<u8>),
    /// The rule ends here unless what was taken compares so.
    Is(Compare, Vec<u8>),
    /// Hands the packet to the transparent socket on this port.
    Tproxy(u16),
    /// Puts the packet into a queue.
    Queue(Queue),
    /// Answers it and drops it.
    Reject(Reject),
    /// Ends the rule.
    Verdict(Verdict),
}

/// Changes that are made all or none.
#[derive(Clone, Debug)]
pub struct Batch {
    requests: Vec<Request>,
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl Batch {
    /// An empty one.
    pub fn new() -> Self {
        let begin = Request { kind: BATCH_BEGIN, flags: 0, body: head(0, SUBSYSTEM) };
        Self { requests: vec![begin] }
    }

    /// Makes a table. One that is `owned` goes with the socket it is made by.
    pub fn table(&mut self, family: Family, name: &str, owned: bool) {
        let mut body = head(family as u8, 0);
        attribute(1, &text(name), &mut body);
        attribute(2, &be(if owned { TABLE_OWNER } else { 0 }), &mut body);
        self.requests.push(Request { kind: NEW_TABLE, flags: CREATE, body });
    }

    /// Removes a table with all that is in it; one of the same name can be made in the same batch.
    pub fn without_table(&mut self, family: Family, name: &str) {
        let mut body = head(family as u8, 0);
        attribute(1, &text(name), &mut body);
        self.requests.push(Request { kind: DELETE_TABLE, flags: 0, body });
    }

    /// Makes a chain; with a hook it is called by the kernel, and lets pass (`Accept`) or drops what no rule
    /// has decided on.
    pub fn chain(&mut self, family: Family, table: &str, name: &str, hook: Option<(Hook, Verdict)>) {
        let mut body = head(family as u8, 0);
        attribute(1, &text(table), &mut body);
        attribute(3, &text(name), &mut body);
        if let Some((hook, policy)) = hook {
            nested(4, &mut body, |own| {
                attribute(1, &be(hook.number), own);
                attribute(2, &hook.priority.to_be_bytes(), own);
            });
            attribute(5, &be(u32::from(policy != Verdict::Drop)), &mut body);
            attribute(7, &text("filter"), &mut body);
        }
        self.requests.push(Request { kind: NEW_CHAIN, flags: CREATE, body });
    }

    /// Appends a rule to a chain.
    pub fn rule(&mut self, family: Family, table: &str, chain: &str, steps: &[Step]) {
        let mut body = head(family as u8, 0);
        attribute(1, &text(table), &mut body);
        attribute(2, &text(chain), &mut body);
        nested(4, &mut body, |list| {
            for step in steps {
                if let Step::Tproxy(port) = step {
                    nested(LIST_ELEMENT, list, |element| load(&port.to_be_bytes(), element));
                }
                nested(LIST_ELEMENT, list, |element| step.encode(element));
            }
        });
        self.requests.push(Request { kind: NEW_RULE, flags: CREATE | APPEND, body });
    }

    /// What is to be sent. The kernel acknowledges the last change, and with it all of them.
    pub fn finish(mut self) -> Vec<Request> {
        if self.requests.len() > 1
            && let Some(last) = self.requests.last_mut()
        {
            last.flags |= ACK;
        }
        self.requests.push(Request { kind: BATCH_END, flags: 0, body: head(0, SUBSYSTEM) });
        self.requests
    }
}

/// `struct nfgenmsg`.
fn head(family: u8, resource: u16) -> Vec<u8> {
    let resource = resource.to_be_bytes();
    vec![family, 0, resource[0], resource[1]]
}

fn text(value: &str) -> Vec<u8> {
    [value.as_bytes(), &[0]].concat()
}

fn be(value: u32) -> [u8; 4] {
    value.to_be_bytes()
}

fn data(kind: u16, value: &[u8], into: &mut Vec<u8>) {
    nested(kind, into, |data| attribute(1, value, data));
}

/// Puts a value into the register.
fn load(value: &[u8], into: &mut Vec<u8>) {
    expression("immediate", into, |own| {
        attribute(1, &be(REGISTER_1), own);
        data(2, value, own);
    });
}

fn expression(name: &str, into: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    attribute(1, &text(name), into);
    nested(2, into, fill);
}

impl Step {
    fn encode(&self, into: &mut Vec<u8>) {
        match self {
            Self::Meta(key) => expression("meta", into, |own| {
                attribute(1, &be(REGISTER_1), own);
                attribute(2, &be(*key as u32), own);
            }),
            Self::Payload(base, offset, length) => expression("payload", into, |own| {
                attribute(1, &be(REGISTER_1), own);
                attribute(2, &be(*base as u32), own);
                attribute(3, &be(*offset), own);
                attribute(4, &be(*length), own);
            }),
            Self::DestinationKind => expression("fib", into, |own| {
                attribute(1, &be(REGISTER_1), own);
                attribute(2, &be(3), own);
                attribute(3, &be(2), own);
            }),
            Self::Mask(mask) => expression("bitwise", into, |own| {
                attribute(1, &be(REGISTER_1), own);
                attribute(2, &be(REGISTER_1), own);
                attribute(3, &be(mask.len() as u32), own);
                data(4, mask, own);
                data(5, &vec![0; mask.len()], own);
            }),
            Self::Is(compare, value) => expression("cmp", into, |own| {
                attribute(1, &be(REGISTER_1), own);
                attribute(2, &be(*compare as u32), own);
                data(3, value, own);
            }),
            // Of whichever family the packet is; the port is in the register.
            Self::Tproxy(_) => expression("tproxy", into, |own| {
                attribute(1, &be(0), own);
                attribute(3, &be(REGISTER_1), own);
            }),
            Self::Queue(Queue::Native(number)) => expression("queue", into, |own| {
                attribute(1, &number.to_be_bytes(), own);
                attribute(2, &1_u16.to_be_bytes(), own);
            }),
            Self::Queue(Queue::Target(number)) => expression("target", into, |own| {
                attribute(1, &text("NFQUEUE"), own);
                attribute(2, &be(1), own);
                // `struct xt_NFQ_info_v1`, in the machine's order, as long as iptables aligns it.
                let mut info = number.to_ne_bytes().to_vec();
                info.extend(1_u16.to_ne_bytes());
                info.resize(8, 0);
                attribute(3, &info, own);
            }),
            Self::Reject(reject) => expression("reject", into, |own| {
                let (kind, code) = match reject {
                    Reject::NoRoute => (2, 0),
                    Reject::Port => (2, 1),
                    Reject::Host => (2, 2),
                    Reject::Prohibited => (2, 3),
                    Reject::Reset => (1, 0),
                };
                attribute(1, &be(kind), own);
                attribute(2, &[code], own);
            }),
            Self::Verdict(verdict) => expression("immediate", into, |own| {
                attribute(1, &be(REGISTER_VERDICT), own);
                nested(2, own, |data| nested(2, data, |own| verdict.encode(own)));
            }),
        }
    }
}

impl Verdict {
    fn encode(&self, into: &mut Vec<u8>) {
        let code: i32 = match self {
            Self::Drop => 0,
            Self::Accept => 1,
            Self::Jump(_) => -3,
            Self::Return => -5,
        };
        attribute(1, &code.to_be_bytes(), into);
        if let Self::Jump(chain) = self {
            attribute(2, &text(chain), into);
        }
    }
}
