//! The name server of a container's networks. It is pure: messages come in, what to do with them goes out; the
//! relay does the sending.
//!
//! It answers for the containers of its networks, for names that the plan gives, for `localhost`, and for the
//! addresses behind them. All else is asked of the host's name servers with the message as it is.

pub mod packet;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use self::packet::{Code, Data, Header, Question, kind};
use super::leases;
use super::plan::{self, NetworkPlan};
use super::policy::Policy;
use crate::base::address::Subnet;

/// The domain that all containers are in, as in Podman: `web` is `web.dns.podman`, too.
pub const DOMAIN: &str = "dns.podman";

/// No question needs more; what is longer carries something else.
const QUESTION_MAX: usize = 4096;

/// What is to be done with a message of the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Sent back.
    Reply(Vec<u8>),
    /// Sent to one of the host's name servers; what it answers is given to [`Server::answered`], then to the
    /// container.
    Forward,
    /// Nobody can be answered.
    Drop,
}

/// Who knows the containers of the networks.
pub trait Names {
    /// The addresses of a name or alias; empty if there is none.
    fn addresses(&self, name: &str) -> Vec<IpAddr>;
    /// The name of whoever has an address.
    fn name_of(&self, address: IpAddr) -> Option<String>;
}

/// The directories of networks in the runtime directory.
struct Directories(Vec<PathBuf>);

impl Names for Directories {
    fn addresses(&self, name: &str) -> Vec<IpAddr> {
        self.0.iter().flat_map(|dir| leases::addresses_of(dir, name)).collect()
    }

    fn name_of(&self, address: IpAddr) -> Option<String> {
        self.0.iter().find_map(|dir| leases::name_of(dir, address))
    }
}

/// The name server of one container.
pub struct Server {
    hosts: Vec<(String, Vec<IpAddr>)>,
    subnets: Vec<Subnet>,
    rules: plan::Policy,
    names: Box<dyn Names + Send>,
    shared: bool,
}

impl Server {
    /// The server of a plan.
    pub fn new(plan: &NetworkPlan) -> Self {
        let networks = plan.dns.as_ref().map(|dns| dns.networks.clone()).unwrap_or_default();
        let shared = !networks.is_empty();
        Self { shared, ..Self::with_names(plan, Box::new(Directories(networks))) }
    }

    fn with_names(plan: &NetworkPlan, names: Box<dyn Names + Send>) -> Self {
        let hosts = plan.dns.iter().flat_map(|dns| &dns.hosts);
        Self {
            hosts: hosts.map(|(name, found)| (name.to_ascii_lowercase(), found.clone())).collect(),
            subnets: plan
                .interfaces
                .iter()
                .flat_map(|interface| &interface.addresses)
                .filter_map(|(address, prefix)| Subnet::of(*address, *prefix))
                .collect(),
            rules: plan.policy.clone(),
            names,
            shared: true,
        }
    }

    /// What to do with a message that the container has sent.
    pub fn question(&self, message: &[u8], over_tcp: bool) -> Step {
        let Some(header) = Header::read(message).filter(|header| !header.is_answer()) else {
            return Step::Drop;
        };
        let bare = |code| packet::bare_answer(message, code).map_or(Step::Drop, Step::Reply);
        if header.operation() != 0 {
            return bare(Code::NotImp);
        }
        if message.len() > QUESTION_MAX {
            return bare(Code::FormErr);
        }
        let Some(question) = packet::question(message) else { return bare(Code::FormErr) };
        let reply =
            |code, data: &[Data]| Step::Reply(packet::answer(message, &question, code, data, over_tcp));
        let transfer = matches!(question.kind, kind::AXFR | kind::IXFR);
        if question.class != packet::IN || transfer {
            return reply(Code::Refused, &[]);
        }
        match question.name.as_deref().and_then(|name| self.known(name, &question)) {
            Some((code, data)) => reply(code, &data),
            None if self.may_ask(&question) => Step::Forward,
            None => reply(Code::Refused, &[]),
        }
    }

    /// The answer to what no name server of the host has answered.
    pub fn failed(&self, message: &[u8]) -> Option<Vec<u8>> {
        match packet::question(message) {
            Some(question) => Some(packet::answer(message, &question, Code::ServFail, &[], false)),
            None => packet::bare_answer(message, Code::ServFail),
        }
    }

    /// Looks at what a name server of the host answered, for rules by name.
    pub fn answered(&self, message: &[u8], policy: &mut Policy) {
        if policy.has_names()
            && let Some((name, addresses)) = packet::addresses(message)
        {
            policy.pin(&name, &addresses);
        }
    }

    fn may_ask(&self, question: &Question) -> bool {
        match &question.name {
            // An address may be asked about by whoever may go anywhere by it; others tell things by it.
            Some(name) => Policy::may_ask(&self.rules, name),
            None => !self.rules.refuse_others,
        }
    }

    /// What we know of a name ourselves; none if others are to be asked.
    fn known(&self, name: &str, question: &Question) -> Option<(Code, Vec<Data>)> {
        let within = |name: &str, domain: &str| {
            name.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        if within(name, "localhost") {
            // RFC 6761: never asked of others.
            return Some(of_kind(question, &[Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]));
        }
        if let Some((_, found)) = self.hosts.iter().find(|(known, _)| known == name) {
            return Some(of_kind(question, found));
        }
        if within(name, "in-addr.arpa") || within(name, "ip6.arpa") {
            return self.known_address(name, question);
        }
        if !self.shared {
            return None;
        }
        let short = name.strip_suffix(DOMAIN).and_then(|rest| rest.strip_suffix('.'));
        let found = self.names.addresses(short.unwrap_or(name));
        if !found.is_empty() {
            return Some(of_kind(question, &found));
        }
        within(name, DOMAIN).then(|| (Code::NxDomain, Vec::new()))
    }

    fn known_address(&self, name: &str, question: &Question) -> Option<(Code, Vec<Data>)> {
        let address = packet::reversed(name)?;
        let own = self.names.name_of(address).or_else(|| {
            let known = self.hosts.iter().find(|(_, found)| found.contains(&address));
            known.map(|(name, _)| name.clone())
        });
        if let Some(own) = own {
            let data =
                if matches!(question.kind, kind::PTR | kind::ANY) { vec![Data::Name(own)] } else { vec![] };
            return Some((Code::NoError, data));
        }
        // Nobody outside knows who is in here, and nobody outside needs to know that somebody asks.
        self.subnets.iter().any(|subnet| subnet.contains(address)).then(|| (Code::NxDomain, Vec::new()))
    }
}

/// The addresses of the type that was asked for: none is an answer, too.
fn of_kind(question: &Question, found: &[IpAddr]) -> (Code, Vec<Data>) {
    let fits = |address: &&IpAddr| match question.kind {
        kind::A => address.is_ipv4(),
        kind::AAAA => address.is_ipv6(),
        kind::ANY => true,
        _ => false,
    };
    (Code::NoError, found.iter().filter(fits).map(|address| Data::Address(*address)).collect())
}

#[cfg(test)]
mod tests {
    use super::packet::tests::{ask, reply};
    use super::*;
    use crate::network::plan::{Dns, EgressRule, Interface, Network, Protocol, Target};
    use crate::network::policy::{Decision, Refusal};

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    struct Fixed;

    impl Names for Fixed {
        fn addresses(&self, name: &str) -> Vec<IpAddr> {
            if name == "web" { vec![ip("10.89.0.5"), ip("fd01::5"), ip("10.89.0.6")] } else { Vec::new() }
        }

        fn name_of(&self, address: IpAddr) -> Option<String> {
            (address == ip("10.89.0.5")).then(|| "web".into())
        }
    }

    fn plan() -> NetworkPlan {
        NetworkPlan {
            interfaces: vec![Interface {
                name: "eth0".into(),
                network: Network::Private,
                addresses: vec![(ip("10.89.0.9"), 24)],
                gateways: vec![ip("10.89.0.1")],
                routed: vec![true],
                mac: None,
                mtu: None,
            }],
            dns: Some(Dns {
                hosts: vec![("Host.containers.internal".into(), vec![ip("192.0.2.9")])],
                ..Dns::default()
            }),
            ..NetworkPlan::default()
        }
    }

    fn server(plan: &NetworkPlan) -> Server {
        Server::with_names(plan, Box::new(Fixed))
    }

    /// Code and number of answers.
    fn told(step: Step) -> (u8, u8) {
        match step {
            Step::Reply(packet) => {
                assert_eq!(packet[..2], [0x12, 0x34]);
                assert!(packet[2] & 0x80 != 0);
                (packet[3] & 0xf, packet[7])
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn containers_and_given_names_are_known() {
        let plan = plan();
        let server = server(&plan);
        for (name, kind, answers) in [
            ("web", kind::A, 2),
            ("WEB", kind::AAAA, 1),
            ("web.dns.podman", kind::A, 2),
            ("web", 16, 0),
            ("host.containers.internal", kind::A, 1),
            ("host.containers.internal", kind::AAAA, 0),
            ("localhost", kind::A, 1),
            ("x.localhost", kind::AAAA, 1),
            ("5.0.89.10.in-addr.arpa", kind::PTR, 1),
            ("9.2.0.192.in-addr.arpa", kind::PTR, 1),
        ] {
            assert_eq!(told(server.question(&ask(name, kind), false)), (0, answers), "{name} {kind}");
        }
        for name in ["none.dns.podman", "dns.podman", "7.0.89.10.in-addr.arpa"] {
            assert_eq!(told(server.question(&ask(name, kind::A), false)).0, 3, "{name}");
        }
        for name in ["example.org", "notlocalhost", "8.8.8.8.in-addr.arpa", "webdns.podman", ""] {
            assert_eq!(server.question(&ask(name, kind::A), false), Step::Forward, "{name}");
        }
    }

    #[test]
    fn what_is_malformed_is_told_so() {
        let plan = plan();
        let server = server(&plan);
        let good = ask("example.org", kind::A);
        assert_eq!(server.question(&good[..11], false), Step::Drop);
        assert_eq!(told(server.question(&good[..14], false)), (1, 0));
        assert_eq!(server.question(&reply("a.org", kind::A, &[]), false), Step::Drop);
        let mut update = good.clone();
        update[2] = 5 << 3;
        assert_eq!(told(server.question(&update, false)).0, 4);
        assert_eq!(told(server.question(&ask("example.org", kind::AXFR), true)).0, 5);
        let mut long = good.clone();
        long.resize(5000, 0);
        assert_eq!(told(server.question(&long, true)).0, 1);
        let mut chaos = good;
        let end = chaos.len();
        chaos[end - 1] = 3;
        assert_eq!(told(server.question(&chaos, false)).0, 5);
    }

    #[test]
    fn rules_by_name_bound_lookups_and_open_addresses() {
        let mut plan = plan();
        plan.policy.refuse_others = true;
        plan.policy.egress =
            vec![EgressRule { allow: true, target: Target::Name("example.org".into()), port: Some(443) }];
        let server = server(&plan);
        assert_eq!(told(server.question(&ask("secret.attacker.test", kind::A), false)).0, 5);
        assert_eq!(told(server.question(&ask("8.8.8.8.in-addr.arpa", kind::PTR), false)).0, 5);
        assert_eq!(server.question(&ask("example.org", kind::A), false), Step::Forward);
        assert_eq!(told(server.question(&ask("web", kind::A), false)), (0, 2));
        let mut policy = Policy::new(&plan);
        let to = "192.0.2.1:443".parse().expect("an address");
        assert_eq!(policy.decide(Protocol::Tcp, to), Decision::Refuse(Refusal::Prohibited));
        let answer = reply("example.org", kind::A, &[("example.org", kind::A, vec![192, 0, 2, 1])]);
        server.answered(&answer, &mut policy);
        assert_eq!(policy.decide(Protocol::Tcp, to), Decision::Dial(to));
    }

    #[test]
    fn nobody_upstream_is_a_failure() {
        let plan = plan();
        let server = server(&plan);
        let packet = server.failed(&ask("example.org", kind::A)).expect("an answer");
        assert_eq!(packet[3] & 0xf, 2);
        assert_eq!(server.failed(b"x"), None);
    }
}
