//! The last rungs: pasta(1) or slirp4netns(1), where one is installed, for a kernel that gives no other way.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::birth::Namespaces;
use super::plan::{Interface, Network, NetworkPlan, Protocol, Published};
use crate::base::address::Subnet;
use crate::sys::process::{self, Child, CloneOptions};
use crate::sys::{daemon, host, userns};

/// How long it may take.
const PATIENCE: Timespec = Timespec { tv_sec: 20, tv_nsec: 0 };
/// Bytes; what the programs themselves advise.
const MTU: u32 = 65520;

/// A program that makes a container's network in place of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// pasta(1), of passt: the faster one, and it has ports and IPv6.
    Pasta,
    /// slirp4netns(1).
    Slirp4netns,
}

impl Program {
    /// Both, the better one first.
    pub const ALL: [Self; 2] = [Self::Pasta, Self::Slirp4netns];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pasta => "pasta",
            Self::Slirp4netns => "slirp4netns",
        }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a program is of no use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not there.
    #[error("{0} is not installed")]
    Missing(Program),
    /// It cannot do what was asked for.
    #[error("{0} cannot do this: {1}")]
    Unfit(Program, &'static str),
    /// It did not start.
    #[error("starting {0}")]
    Start(Program, #[source] io::Error),
    /// It ended, or did not say that it is ready.
    #[error("{0} did not set the network up")]
    Died(Program),
}

/// A program's arguments for a plan; those for a user namespace only if the container has another one. Both get the
/// container's namespaces as open descriptors, for its first process hides until it becomes the program.
/// slirp4netns has them as 4 and 5, and says over 3 that it is ready. pasta, which closes those at its start, has
/// them as its standard input and error, and writes its number to its standard output.
pub fn arguments(program: Program, plan: &NetworkPlan, own_users: bool) -> Result<Vec<String>, Error> {
    let unfit = |why| Err(Error::Unfit(program, why));
    let [eth0] = &plan.interfaces[..] else { return unfit("networks that containers share") };
    if eth0.network != Network::Private {
        return unfit("networks that containers share");
    }
    if !plan.policy.egress.is_empty() || plan.policy.refuse_others {
        return unfit("rules for what goes out");
    }
    let opens_loopback =
        plan.policy.aliases.iter().any(|(_, to)| matches!(to, IpAddr::V4(to) if to.is_loopback()));
    match program {
        Program::Slirp4netns if !plan.published.is_empty() => unfit("published ports"),
        Program::Slirp4netns => Ok(slirp4netns(eth0, opens_loopback, own_users)),
        Program::Pasta if eth0.mac.is_some() => unfit("a hardware address that was asked for"),
        Program::Pasta if plan.published.iter().any(|port| port.host_port == 0) => {
            unfit("ports that nobody chose")
        }
        Program::Pasta => Ok(pasta(plan, eth0, opens_loopback, own_users)),
    }
}

fn slirp4netns(eth0: &Interface, opens_loopback: bool, own_users: bool) -> Vec<String> {
    let mut list = vec!["--configure".to_owned(), format!("--mtu={}", eth0.mtu.unwrap_or(MTU))];
    let v4 = eth0.addresses.iter().find(|(address, _)| address.is_ipv4());
    list.extend(
        v4.and_then(|(address, prefix)| Subnet::of(*address, *prefix)).map(|net| format!("--cidr={net}")),
    );
    if !opens_loopback {
        list.push("--disable-host-loopback".to_owned());
    }
    if let Some([a, b, c, d, e, f]) = eth0.mac {
        list.push(format!("--macaddress={a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"));
    }
    if own_users {
        list.push("--userns-path=/proc/self/fd/5".to_owned());
    }
    list.extend(["--ready-fd=3", "--netns-type=path", "/proc/self/fd/4", &eth0.name].map(str::to_owned));
    list
}

fn pasta(plan: &NetworkPlan, eth0: &Interface, opens_loopback: bool, own_users: bool) -> Vec<String> {
    let mut list: Vec<String> =
        ["--foreground", "--quiet", "--pid", "/proc/self/fd/1", "--config-net"].map(str::to_owned).to_vec();
    let mut give = |flag: &str, value: String| list.extend([flag.to_owned(), value]);
    give("--ns-ifname", eth0.name.clone());
    give("--mtu", eth0.mtu.unwrap_or(MTU).to_string());
    // It knows one prefix, that of IPv4; what it gives of IPv6 is a /64.
    let routed = |v6| {
        let mut gateways = eth0.gateways.iter().zip(&eth0.routed);
        gateways.find(|(gateway, routed)| gateway.is_ipv6() == v6 && **routed).map(|(gateway, _)| *gateway)
    };
    let families: Vec<bool> = [false, true].into_iter().filter(|v6| routed(*v6).is_some()).collect();
    for (address, prefix) in eth0.addresses.iter().filter(|(ip, _)| families.contains(&ip.is_ipv6())) {
        give("--address", address.to_string());
        if address.is_ipv4() {
            give("--netmask", prefix.to_string());
        }
    }
    for gateway in families.iter().filter_map(|v6| routed(*v6)) {
        give("--gateway", gateway.to_string());
    }
    for dns in plan.dns.iter() {
        for address in dns.addresses.iter().filter(|ip| families.contains(&ip.is_ipv6())) {
            give("--dns-forward", address.to_string());
        }
        for upstream in dns.upstream.iter().filter(|server| families.contains(&server.is_ipv6())) {
            give("--dns", upstream.ip().to_string());
        }
    }
    for (flag, protocol) in [("--tcp-ports", Protocol::Tcp), ("--udp-ports", Protocol::Udp)] {
        let ports: Vec<&Published> = plan.published.iter().filter(|port| port.protocol == protocol).collect();
        for Published { host, host_port, port, .. } in &ports {
            let host = host.map(|host| format!("{host}/")).unwrap_or_default();
            give(flag, format!("{host}{host_port}:{port}"));
        }
        if ports.is_empty() {
            give(flag, "none".to_owned());
        }
    }
    // By default the host's loopback is open to all ports on which the container listens.
    give("--tcp-ns", "none".to_owned());
    give("--udp-ns", "none".to_owned());
    if !opens_loopback {
        list.push("--no-map-gw".to_owned());
    }
    if families == [false] {
        list.push("--ipv4-only".to_owned());
    }
    if host::uid() == 0 {
        // It would become nobody, who may not look into the container's namespaces.
        list.extend(["--runas".to_owned(), "0:0".to_owned()]);
    }
    if own_users {
        list.extend(["--userns".to_owned(), "/proc/self/fd/2".to_owned()]);
    }
    // Whether the container is still there is not to be seen from that path.
    let rest = ["--netns", "/proc/self/fd/0", "--no-netns-quit"];
    list.extend(rest.map(str::to_owned));
    list
}

/// Starts the first program that is there and can do what the plan says, or only the one that is `wanted`. It is
/// ready when this returns, and ends when `control` does at its other end.
pub fn start(
    plan: &NetworkPlan,
    namespaces: &Namespaces,
    control: &OwnedFd,
    wanted: Option<Program>,
) -> Result<(Child, Program), Error> {
    let mut failure = None;
    for program in Program::ALL.into_iter().filter(|one| wanted.is_none_or(|wanted| wanted == *one)) {
        match run(program, plan, namespaces, control) {
            Ok(child) => return Ok((child, program)),
            // That the other one is missing, too, is no news.
            Err(Error::Missing(_)) if failure.is_some() => {}
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.unwrap_or(Error::Missing(Program::Pasta)))
}

fn run(
    program: Program,
    plan: &NetworkPlan,
    namespaces: &Namespaces,
    control: &OwnedFd,
) -> Result<Child, Error> {
    let path: PathBuf = userns::find_helper(program.name()).ok_or(Error::Missing(program))?;
    let arguments = arguments(program, plan, namespaces.user.is_some())?;
    let failed = |error: io::Error| Error::Start(program, error);
    let (ready, say) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| failed(e.into()))?;
    let Namespaces { user, net } = namespaces;
    let become_it = || {
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let all = [Some(&say), Some(net), user.as_ref()].into_iter().flatten();
        let given: Vec<BorrowedFd<'_>> = match program {
            Program::Slirp4netns => all.map(AsFd::as_fd).collect(),
            Program::Pasta => Vec::new(),
        };
        let streams = || {
            rustix::stdio::dup2_stdin(net)?;
            rustix::stdio::dup2_stdout(&say)?;
            user.as_ref().map_or(Ok(()), rustix::stdio::dup2_stderr)
        };
        if program == Program::Slirp4netns || streams().is_ok() {
            process::become_program(&path, &words, &given);
        }
        127
    };
    let options = CloneOptions { close: Some(ready.as_fd()), ..CloneOptions::default() };
    let keeper = process::spawn(options, || {
        let kept = [Some(&say), Some(control), Some(net), user.as_ref()];
        daemon::close_fds_except(&kept.into_iter().flatten().map(AsRawFd::as_raw_fd).collect::<Vec<_>>());
        match process::spawn(CloneOptions::default(), become_it) {
            Ok(child) => keep(control, &child),
            Err(_) => 1,
        }
    });
    let keeper = keeper.map_err(failed)?;
    drop(say);
    if is_ready(&ready).unwrap_or(false) { Ok(keeper) } else { Err(Error::Died(program)) }
}

/// Has the program end when `control` does at its other end: that it dies with its maker is forgotten by the kernel
/// when it changes its user namespace (prctl(2), PR_SET_PDEATHSIG).
fn keep(control: &OwnedFd, child: &Child) -> u8 {
    let mut wait = [PollFd::new(control, PollFlags::IN), PollFd::new(&child.pidfd, PollFlags::IN)];
    while let Err(rustix::io::Errno::INTR) = poll(&mut wait, None) {}
    let _ = process::pidfd_signal(&child.pidfd, libc::SIGKILL);
    let _ = process::wait(&child.pidfd);
    0
}
fn is_ready(pipe: &OwnedFd) -> io::Result<bool> {
    let mut wait = [PollFd::new(pipe, PollFlags::IN)];
    Ok(poll(&mut wait, Some(&PATIENCE))? > 0 && rustix::io::read(pipe, &mut [0_u8; 1])? == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::plan::{Dns, EgressRule, Target};

    fn plan() -> NetworkPlan {
        let eth0 = Interface {
            name: "eth0".into(),
            network: Network::Private,
            addresses: vec![(IpAddr::from([10, 0, 2, 100]), 24)],
            gateways: vec![IpAddr::from([10, 0, 2, 2])],
            routed: vec![true],
            mac: None,
            mtu: None,
        };
        NetworkPlan { interfaces: vec![eth0], ..NetworkPlan::default() }
    }

    fn published(host_port: u16) -> Published {
        Published { host: None, host_port, port: 80, protocol: Protocol::Tcp }
    }

    fn words(program: Program, plan: &NetworkPlan, own_users: bool) -> String {
        arguments(program, plan, own_users).unwrap().join(" ")
    }

    #[test]
    fn slirp4netns_gets_what_the_plan_says() {
        let mut plan = plan();
        plan.interfaces[0].mac = Some([2, 0, 0, 0, 0, 10]);
        assert_eq!(
            words(Program::Slirp4netns, &plan, true),
            "--configure --mtu=65520 --cidr=10.0.2.0/24 --disable-host-loopback \
             --macaddress=02:00:00:00:00:0a --userns-path=/proc/self/fd/5 --ready-fd=3 \
             --netns-type=path /proc/self/fd/4 eth0"
        );
        plan.policy.aliases = vec![(IpAddr::from([10, 0, 2, 2]), IpAddr::from([127, 0, 0, 1]))];
        assert!(!words(Program::Slirp4netns, &plan, false).contains("loopback"));
    }

    #[test]
    fn pasta_gets_what_the_plan_says() {
        let mut plan = plan();
        let words = |plan: &NetworkPlan| words(Program::Pasta, plan, true).replace(" --runas 0:0", "");
        assert_eq!(
            words(&plan),
            "--foreground --quiet --pid /proc/self/fd/1 --config-net --ns-ifname eth0 --mtu 65520 \
             --address 10.0.2.100 --netmask 24 --gateway 10.0.2.2 --tcp-ports none --udp-ports none \
             --tcp-ns none --udp-ns none --no-map-gw --ipv4-only --userns /proc/self/fd/2 --netns /proc/self/fd/0 --no-netns-quit"
        );
        plan.interfaces[0].addresses.push(("fd00::100".parse().unwrap(), 64));
        plan.interfaces[0].gateways.push("fd00::2".parse().unwrap());
        plan.interfaces[0].routed.push(true);
        plan.policy.aliases = vec![(IpAddr::from([10, 0, 2, 2]), IpAddr::from([127, 0, 0, 1]))];
        plan.dns = Some(Dns {
            addresses: vec![IpAddr::from([10, 0, 2, 3])],
            upstream: vec!["127.0.0.53:53".parse().unwrap()],
            ..Dns::default()
        });
        plan.published = vec![
            Published { host: Some(IpAddr::from([127, 0, 0, 1])), ..published(8080) },
            Published { protocol: Protocol::Udp, ..published(5353) },
        ];
        let all = words(&plan);
        for part in [
            "--address 10.0.2.100 --netmask 24 --address fd00::100 --gateway 10.0.2.2 --gateway fd00::2",
            "--dns-forward 10.0.2.3 --dns 127.0.0.53",
            "--tcp-ports 127.0.0.1/8080:80 --udp-ports 5353:80",
        ] {
            assert!(all.contains(part), "{part}: {all}");
        }
        assert!(!all.contains("--no-map-gw") && !all.contains("--ipv4-only"), "{all}");
        // A family without a way out is none.
        plan.interfaces[0].routed[1] = false;
        assert!(words(&plan).contains("--ipv4-only") && !words(&plan).contains("fd00"));
    }

    #[test]
    fn what_they_cannot_do_is_refused() {
        let mut chosen = plan();
        chosen.published = vec![published(0)];
        let mut ruled = plan();
        ruled.policy.egress = vec![EgressRule { allow: false, target: Target::All, port: None }];
        for program in Program::ALL {
            for plan in [&chosen, &ruled, &NetworkPlan::default()] {
                assert!(matches!(arguments(program, plan, false), Err(Error::Unfit(..))));
            }
        }
        let mut addressed = plan();
        addressed.interfaces[0].mac = Some([2; 6]);
        assert!(matches!(arguments(Program::Pasta, &addressed, false), Err(Error::Unfit(..))));
    }
}
