//! What a container may dial: a pure function of the plan and of the names that have been answered.
//!
//! An address is looked at in this order: the name server's own; what stands for the host by an option; the
//! router's own; addresses that mean something else to the host than to the container (loopback, link-local,
//! multicast), which nothing can allow; the rules for what goes out.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

use super::plan::{self, EgressRule, Network, NetworkPlan, Protocol, Target};
use crate::base::address::{self, Subnet};

/// The port of name servers.
pub const DNS_PORT: u16 = 53;

/// So many addresses are remembered for names of rules; the oldest goes for a new one.
const PINS: usize = 4096;

/// What becomes of what a container wants to send somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The host dials this address.
    Dial(SocketAddr),
    /// One of ours answers.
    Local(Local),
    /// It is refused.
    Refuse(Refusal),
}

/// What the relay answers itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Local {
    /// The name server.
    Dns,
}

/// How something is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// By a rule: ICMP "administratively prohibited".
    Prohibited,
    /// There is no way to it: ICMP "host unreachable".
    Unreachable,
    /// The machine is there, and nothing listens: a TCP reset, ICMP "port unreachable".
    Closed,
}

/// The policy of one container.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    rules: Vec<EgressRule>,
    refuse_others: bool,
    aliases: Vec<(IpAddr, IpAddr)>,
    servers: Vec<IpAddr>,
    own: Vec<IpAddr>,
    subnets: Vec<Subnet>,
    /// All its networks are internal ones.
    no_way_out: bool,
    pins: HashMap<IpAddr, Vec<usize>>,
    order: VecDeque<IpAddr>,
}

impl Policy {
    /// The policy of a plan.
    pub fn new(plan: &NetworkPlan) -> Self {
        let plan::Policy { aliases, egress, refuse_others, .. } = &plan.policy;
        let internal = |network: &Network| matches!(network, Network::Shared(shared) if shared.internal);
        Self {
            rules: egress.clone(),
            refuse_others: *refuse_others,
            aliases: aliases.clone(),
            servers: plan.dns.iter().flat_map(|dns| dns.addresses.iter().copied()).collect(),
            own: plan.interfaces.iter().flat_map(|interface| interface.gateways.iter().copied()).collect(),
            subnets: plan
                .interfaces
                .iter()
                .flat_map(|interface| &interface.addresses)
                .filter_map(|(address, prefix)| Subnet::of(*address, *prefix))
                .collect(),
            no_way_out: !plan.interfaces.is_empty()
                && plan.interfaces.iter().all(|interface| internal(&interface.network)),
            pins: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    /// That of another plan with the same rules, which knows what has been answered for names.
    pub fn rewired(&self, plan: &NetworkPlan) -> Self {
        let same = self.rules == plan.policy.egress;
        let known = if same { (self.pins.clone(), self.order.clone()) } else { Default::default() };
        Self { pins: known.0, order: known.1, ..Self::new(plan) }
    }

    /// What becomes of a connection or datagram.
    pub fn decide(&self, protocol: Protocol, destination: SocketAddr) -> Decision {
        let _ = protocol;
        let address = destination.ip();
        if self.servers.contains(&address) && destination.port() == DNS_PORT {
            return Decision::Local(Local::Dns);
        }
        match self.route(address, Some(destination.port())) {
            Ok(address) => Decision::Dial(SocketAddr::new(address, destination.port())),
            Err(refusal) => Decision::Refuse(refusal),
        }
    }

    /// What becomes of an ICMP echo request. A rule for a port says nothing of it. The router's own addresses
    /// are not asked about here: it answers for them itself.
    pub fn decide_echo(&self, destination: IpAddr) -> Decision {
        match self.route(destination, None) {
            Ok(address) => Decision::Dial(SocketAddr::new(address, 0)),
            Err(refusal) => Decision::Refuse(refusal),
        }
    }

    fn route(&self, address: IpAddr, port: Option<u16>) -> Result<IpAddr, Refusal> {
        let alias = self.aliases.iter().find(|(from, _)| *from == address).map(|(_, to)| *to);
        if alias.is_none() {
            if self.servers.contains(&address) || self.own.contains(&address) {
                return Err(Refusal::Closed);
            }
            if address::is_local(address) {
                return Err(Refusal::Prohibited);
            }
            // The kernel delivers what is in the subnet, if there is somebody.
            if self.subnets.iter().any(|subnet| subnet.contains(address)) {
                return Err(Refusal::Unreachable);
            }
        }
        if self.no_way_out {
            return Err(Refusal::Unreachable);
        }
        if !self.allowed(address, port) {
            return Err(Refusal::Prohibited);
        }
        Ok(alias.unwrap_or(address))
    }

    fn allowed(&self, address: IpAddr, port: Option<u16>) -> bool {
        // By way of a NAT64 an address of IPv4 has another name.
        let stands_for = address::embedded(address).map(IpAddr::V4);
        let inside = |subnet: Subnet| {
            subnet.contains(address) || stands_for.is_some_and(|address| subnet.contains(address))
        };
        let fits = |(at, rule): (usize, &EgressRule)| {
            (rule.port.is_none() || rule.port == port)
                && match &rule.target {
                    Target::All => true,
                    Target::Subnet(base, prefix) => Subnet::of(*base, *prefix).is_some_and(inside),
                    Target::Name(_) => self.pins.get(&address).is_some_and(|rules| rules.contains(&at)),
                }
        };
        self.rules
            .iter()
            .enumerate()
            .find(|rule| fits(*rule))
            .map_or(!self.refuse_others, |(_, rule)| rule.allow)
    }

    /// Whether any rule is for a name, so that answers have to be looked at.
    pub fn has_names(&self) -> bool {
        self.rules.iter().any(|rule| matches!(rule.target, Target::Name(_)))
    }

    /// Whether our name server asks others for this name (lower case, without a final dot). With rules for names
    /// a lookup is something that goes out, too: by it a program could tell anything to whoever owns a domain.
    pub fn may_ask(rules: &plan::Policy, name: &str) -> bool {
        if rules.lookups.iter().any(|pattern| name_fits(pattern, name)) {
            return true;
        }
        let fits = |rule: &&EgressRule| match &rule.target {
            Target::Name(pattern) => name_fits(pattern, name),
            // Whoever may go everywhere may ask for everything.
            Target::All => rule.port.is_none_or(|port| rule.allow || port == DNS_PORT),
            Target::Subnet(..) => false,
        };
        rules.egress.iter().find(fits).map_or(!rules.refuse_others, |rule| rule.allow)
    }

    /// Remembers that a name (lower case, without a final dot) was answered with these addresses.
    pub fn pin(&mut self, name: &str, addresses: &[IpAddr]) {
        let fits = |(at, rule): (usize, &EgressRule)| match &rule.target {
            Target::Name(pattern) if name_fits(pattern, name) => Some(at),
            _ => None,
        };
        let rules: Vec<usize> = self.rules.iter().enumerate().filter_map(fits).collect();
        if rules.is_empty() {
            return;
        }
        for address in addresses {
            let known = self.pins.entry(*address).or_default();
            if known.is_empty() {
                self.order.push_back(*address);
            }
            known.extend(rules.iter().filter(|at| !known.contains(at)).copied().collect::<Vec<_>>());
        }
        while self.order.len() > PINS {
            if let Some(oldest) = self.order.pop_front() {
                self.pins.remove(&oldest);
            }
        }
    }
}

/// Whether a name is the pattern, or for `*.example.org` one below it.
fn name_fits(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(parent) => name.strip_suffix(parent).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
        None => pattern == name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::plan::{Dns, Interface, Shared};

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn plan() -> NetworkPlan {
        NetworkPlan {
            interfaces: vec![Interface {
                name: "eth0".into(),
                network: Network::Private,
                addresses: vec![(ip("10.0.2.100"), 24), (ip("fd00::100"), 64)],
                gateways: vec![ip("10.0.2.2"), ip("fd00::2")],
                routed: vec![true, true],
                mac: None,
                mtu: None,
            }],
            dns: Some(Dns { addresses: vec![ip("10.0.2.3")], ..Dns::default() }),
            ..NetworkPlan::default()
        }
    }

    fn decide(policy: &Policy, text: &str) -> Decision {
        policy.decide(Protocol::Tcp, text.parse().expect("an address and a port"))
    }

    fn dial(text: &str) -> Decision {
        Decision::Dial(text.parse().expect("an address and a port"))
    }

    #[test]
    fn without_rules_all_but_the_local_is_dialled() {
        let policy = Policy::new(&plan());
        assert_eq!(decide(&policy, "192.0.2.1:80"), dial("192.0.2.1:80"));
        assert_eq!(decide(&policy, "[2001:db8::1]:80"), dial("[2001:db8::1]:80"));
        assert_eq!(decide(&policy, "10.0.2.3:53"), Decision::Local(Local::Dns));
        assert_eq!(decide(&policy, "10.0.2.3:80"), Decision::Refuse(Refusal::Closed));
        assert_eq!(decide(&policy, "10.0.2.2:80"), Decision::Refuse(Refusal::Closed));
        assert_eq!(decide(&policy, "[fd00::2]:22"), Decision::Refuse(Refusal::Closed));
        assert_eq!(decide(&policy, "10.0.2.77:22"), Decision::Refuse(Refusal::Unreachable));
        for text in [
            "127.0.0.1:22",
            "0.0.0.0:22",
            "169.254.169.254:80",
            "[::1]:22",
            "[::]:22",
            "[fe80::1]:22",
            "[::ffff:127.0.0.1]:22",
            "239.1.2.3:5353",
            "255.255.255.255:68",
        ] {
            assert_eq!(decide(&policy, text), Decision::Refuse(Refusal::Prohibited), "{text}");
        }
        assert_eq!(policy.decide_echo(ip("127.0.0.1")), Decision::Refuse(Refusal::Prohibited));
        assert_eq!(policy.decide_echo(ip("192.0.2.1")), dial("192.0.2.1:0"));
    }

    #[test]
    fn the_hosts_loopback_is_reached_by_its_alias_alone() {
        let mut plan = plan();
        plan.policy.aliases = vec![(ip("10.0.2.2"), ip("127.0.0.1"))];
        let policy = Policy::new(&plan);
        assert_eq!(decide(&policy, "10.0.2.2:8080"), dial("127.0.0.1:8080"));
        assert_eq!(decide(&policy, "127.0.0.1:8080"), Decision::Refuse(Refusal::Prohibited));
        plan.policy.refuse_others = true;
        assert_eq!(decide(&Policy::new(&plan), "10.0.2.2:80"), Decision::Refuse(Refusal::Prohibited));
    }

    fn rule(allow: bool, target: Target, port: Option<u16>) -> EgressRule {
        EgressRule { allow, target, port }
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let mut plan = plan();
        plan.policy.refuse_others = true;
        plan.policy.egress = vec![
            rule(false, Target::Subnet(ip("10.1.0.0"), 16), None),
            rule(true, Target::Subnet(ip("10.0.0.0"), 8), Some(443)),
            rule(true, Target::Subnet(ip("0.0.0.0"), 0), Some(8443)),
        ];
        let policy = Policy::new(&plan);
        assert_eq!(decide(&policy, "10.2.0.1:443"), dial("10.2.0.1:443"));
        for text in ["10.1.0.1:443", "10.2.0.1:80", "192.0.2.1:443", "[2001:db8::1]:443", "8.8.8.8:53"] {
            assert_eq!(decide(&policy, text), Decision::Refuse(Refusal::Prohibited), "{text}");
        }
        // A rule with everything in it still does not open the host's loopback.
        assert_eq!(decide(&policy, "127.0.0.1:8443"), Decision::Refuse(Refusal::Prohibited));
        assert_eq!(policy.decide_echo(ip("10.2.0.1")), Decision::Refuse(Refusal::Prohibited));
        // By another name the same machine.
        assert_eq!(decide(&policy, "[64:ff9b::10.1.0.1]:443"), Decision::Refuse(Refusal::Prohibited));
        assert_eq!(decide(&policy, "10.0.2.3:53"), Decision::Local(Local::Dns));
    }

    #[test]
    fn names_open_the_addresses_that_were_answered() {
        let mut plan = plan();
        plan.policy.refuse_others = true;
        plan.policy.egress = vec![
            rule(true, Target::Name("example.org".into()), Some(443)),
            rule(true, Target::Name("*.example.net".into()), None),
        ];
        let mut policy = Policy::new(&plan);
        assert!(policy.has_names());
        assert_eq!(decide(&policy, "192.0.2.1:443"), Decision::Refuse(Refusal::Prohibited));
        policy.pin("other.org", &[ip("192.0.2.1")]);
        policy.pin("notexample.net", &[ip("192.0.2.1")]);
        policy.pin("example.net", &[ip("192.0.2.1")]);
        assert_eq!(decide(&policy, "192.0.2.1:443"), Decision::Refuse(Refusal::Prohibited));
        policy.pin("example.org", &[ip("192.0.2.1"), ip("127.0.0.1")]);
        policy.pin("a.b.example.net", &[ip("192.0.2.2")]);
        assert_eq!(decide(&policy, "192.0.2.1:443"), dial("192.0.2.1:443"));
        assert_eq!(decide(&policy, "192.0.2.1:80"), Decision::Refuse(Refusal::Prohibited));
        assert_eq!(decide(&policy, "192.0.2.2:80"), dial("192.0.2.2:80"));
        // In another network the same names mean the same.
        assert_eq!(decide(&policy.rewired(&plan), "192.0.2.1:443"), dial("192.0.2.1:443"));
        // Who answers for a name cannot open the host by it.
        assert_eq!(decide(&policy, "127.0.0.1:443"), Decision::Refuse(Refusal::Prohibited));
    }

    #[test]
    fn remembered_addresses_are_bounded() {
        let mut plan = plan();
        plan.policy.refuse_others = true;
        plan.policy.egress = vec![rule(true, Target::Name("example.org".into()), None)];
        let mut policy = Policy::new(&plan);
        for number in 0..6000_u32 {
            policy.pin("example.org", &[IpAddr::V4((0x0b00_0000 + number).into())]);
        }
        assert_eq!(policy.pins.len(), PINS);
        assert_eq!(policy.order.len(), PINS);
        assert_eq!(decide(&policy, "11.0.0.0:80"), Decision::Refuse(Refusal::Prohibited));
        assert_eq!(decide(&policy, "11.0.23.111:80"), dial("11.0.23.111:80"));
    }

    #[test]
    fn lookups_follow_the_rules() {
        let mut rules = plan::Policy {
            refuse_others: true,
            lookups: vec!["*.corp".into()],
            egress: vec![
                rule(false, Target::Name("bad.example.org".into()), None),
                rule(true, Target::Name("*.example.org".into()), Some(443)),
                rule(true, Target::Subnet(ip("0.0.0.0"), 0), None),
            ],
            ..plan::Policy::default()
        };
        assert!(Policy::may_ask(&rules, "a.example.org"));
        assert!(Policy::may_ask(&rules, "db.corp"));
        assert!(!Policy::may_ask(&rules, "bad.example.org"));
        assert!(!Policy::may_ask(&rules, "secret.attacker.test"));
        rules.refuse_others = false;
        assert!(Policy::may_ask(&rules, "secret.attacker.test"));
        assert!(!Policy::may_ask(&rules, "bad.example.org"));
    }

    #[test]
    fn an_internal_network_has_no_way_out() {
        let mut plan = plan();
        plan.interfaces[0].network = Network::Shared(Shared {
            name: "n".into(),
            bridge: "b".into(),
            dir: "/x".into(),
            internal: true,
            isolated: false,
        });
        let policy = Policy::new(&plan);
        assert_eq!(decide(&policy, "192.0.2.1:80"), Decision::Refuse(Refusal::Unreachable));
        assert_eq!(decide(&policy, "10.0.2.3:53"), Decision::Local(Local::Dns));
    }
}
