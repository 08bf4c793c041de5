//! What the rules of a router and the relay that they hand packets to have agreed on.

/// The numbers by which a relay is known in its router. In a private router they are always the same; in a
/// shared one each relay has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayIds {
    /// Where the relay listens in the router (TCP and UDP, every address of both families, with
    /// `IP_TRANSPARENT` or `IPV6_TRANSPARENT`): what the container sends comes to these sockets with its own
    /// destination.
    pub port: u16,
    /// The queue of nfnetlink in which the first packet of each TCP connection waits for a verdict; none
    /// where the kernel has no such queues, and connections are accepted before they are dialled.
    pub queue: Option<u16>,
}

/// The port of the first relay of a router; the next ones follow.
pub const FIRST_PORT: u16 = 1;
/// The queue of the first relay of a router; the next ones follow.
pub const FIRST_QUEUE: u16 = 1;

impl RelayIds {
    /// Of the relay in this place of a router, counted from 0.
    pub fn of_slot(slot: u16) -> Self {
        Self { port: FIRST_PORT + slot, queue: Some(FIRST_QUEUE + slot) }
    }
}

/// Marks that a verdict `NF_REPEAT` puts on a held packet (`NFQA_MARK`): what shall become of it. A packet
/// without one of them is held.
pub mod mark {
    /// It goes to the relay's listener: the kernel answers with SYN and ACK.
    pub const ACCEPT: u32 = 0x10;
    /// A TCP reset: nobody listens there.
    pub const RESET: u32 = 0x20;
    /// ICMP "host unreachable" (type 3 code 1; ICMPv6 type 1 code 3).
    pub const HOST_UNREACHABLE: u32 = 0x30;
    /// ICMP "network unreachable" (type 3 code 0; ICMPv6 type 1 code 0).
    pub const NET_UNREACHABLE: u32 = 0x40;
    /// ICMP "administratively prohibited" (type 3 code 13; ICMPv6 type 1 code 1).
    pub const PROHIBITED: u32 = 0x50;
    /// ICMP "port unreachable" (type 3 code 3; ICMPv6 type 1 code 4).
    pub const PORT_UNREACHABLE: u32 = 0x60;
    /// All of them.
    pub const MASK: u32 = 0xf0;
}
