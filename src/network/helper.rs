//! The last rung: slirp4netns(1), where it is installed, for a kernel that gives no other way.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::plan::{Network, NetworkPlan};
use crate::base::address::Subnet;
use crate::sys::process::{self, Child, CloneOptions};
use crate::sys::{daemon, userns};

/// The program.
pub const PROGRAM: &str = "slirp4netns";
/// How long it may take.
const PATIENCE: Timespec = Timespec { tv_sec: 20, tv_nsec: 0 };
/// Bytes; what the program itself advises.
const MTU: u32 = 65520;

/// Why the program is of no use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not there.
    #[error("{PROGRAM} is not installed")]
    Missing,
    /// It cannot do what was asked for.
    #[error("{PROGRAM} cannot do this: {0}")]
    Unfit(&'static str),
    /// It did not start.
    #[error("starting {PROGRAM}")]
    Start(#[source] io::Error),
    /// It ended, or did not say that it is ready.
    #[error("{PROGRAM} did not set the network up")]
    Died,
}

/// Its arguments for a plan and the container's first process; those for a user namespace only if it is another one.
/// It says that it is ready over descriptor 3.
pub fn arguments(plan: &NetworkPlan, pid: i32, own_users: bool) -> Result<Vec<String>, Error> {
    let [eth0] = &plan.interfaces[..] else { return Err(Error::Unfit("networks that containers share")) };
    let v4 = eth0.addresses.iter().find(|(address, _)| address.is_ipv4());
    let subnet = v4.and_then(|(address, prefix)| Subnet::of(*address, *prefix));
    let Some(subnet) = subnet.filter(|_| eth0.network == Network::Private) else {
        return Err(Error::Unfit("networks that containers share"));
    };
    if !plan.published.is_empty() {
        return Err(Error::Unfit("published ports"));
    }
    if !plan.policy.egress.is_empty() || plan.policy.refuse_others {
        return Err(Error::Unfit("rules for what goes out"));
    }
    let mut list = vec!["--configure".to_owned(), format!("--mtu={}", eth0.mtu.unwrap_or(MTU))];
    list.push(format!("--cidr={subnet}"));
    if !plan.policy.aliases.iter().any(|(_, to)| matches!(to, IpAddr::V4(to) if to.is_loopback())) {
        list.push("--disable-host-loopback".to_owned());
    }
    if let Some([a, b, c, d, e, f]) = eth0.mac {
        list.push(format!("--macaddress={a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"));
    }
    if own_users {
        list.push(format!("--userns-path=/proc/{pid}/ns/user"));
    }
    list.extend(["--ready-fd=3".to_owned(), pid.to_string(), eth0.name.clone()]);
    Ok(list)
}

/// Starts the program, which dies with the caller, and waits until it is ready.
pub fn start(plan: &NetworkPlan, pid: i32, own_users: bool) -> Result<Child, Error> {
    let arguments = arguments(plan, pid, own_users)?;
    let path: PathBuf = userns::find_helper(PROGRAM).ok_or(Error::Missing)?;
    let (ready, say) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| Error::Start(e.into()))?;
    let parent = std::process::id();
    let options = CloneOptions { close: Some(ready.as_fd()), ..CloneOptions::default() };
    let child = process::spawn(options, || {
        daemon::close_fds_except(&[say.as_raw_fd()]);
        if process::die_with_parent(parent).is_ok() {
            let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
            process::become_program(&path, &words, &[say.as_fd()]);
        }
        127
    });
    let child = child.map_err(Error::Start)?;
    drop(say);
    if is_ready(&ready).unwrap_or(false) {
        return Ok(child);
    }
    let _ = process::pidfd_signal(&child.pidfd, libc::SIGKILL);
    let _ = process::wait(&child.pidfd);
    Err(Error::Died)
}

fn is_ready(pipe: &OwnedFd) -> io::Result<bool> {
    let mut wait = [PollFd::new(pipe, PollFlags::IN)];
    Ok(poll(&mut wait, Some(&PATIENCE))? > 0 && rustix::io::read(pipe, &mut [0_u8; 1])? == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::plan::{EgressRule, Interface, Protocol, Published, Target};

    fn plan() -> NetworkPlan {
        let eth0 = Interface {
            name: "eth0".into(),
            network: Network::Private,
            addresses: vec![(IpAddr::from([10, 0, 2, 100]), 24)],
            gateways: vec![IpAddr::from([10, 0, 2, 2])],
            routed: vec![true],
            mac: Some([2, 0, 0, 0, 0, 10]),
            mtu: None,
        };
        NetworkPlan { interfaces: vec![eth0], ..NetworkPlan::default() }
    }

    #[test]
    fn the_program_gets_what_the_plan_says() {
        let all = arguments(&plan(), 7, true).unwrap().join(" ");
        assert_eq!(
            all,
            "--configure --mtu=65520 --cidr=10.0.2.0/24 --disable-host-loopback \
             --macaddress=02:00:00:00:00:0a --userns-path=/proc/7/ns/user --ready-fd=3 7 eth0"
        );
        let mut open = plan();
        open.policy.aliases = vec![(IpAddr::from([10, 0, 2, 2]), IpAddr::from([127, 0, 0, 1]))];
        assert!(!arguments(&open, 7, false).unwrap().join(" ").contains("loopback"));
    }

    #[test]
    fn what_it_cannot_do_is_refused() {
        let mut published = plan();
        published.published = vec![Published { host: None, host_port: 1, port: 1, protocol: Protocol::Tcp }];
        let mut ruled = plan();
        ruled.policy.egress = vec![EgressRule { allow: false, target: Target::All, port: None }];
        for plan in [published, ruled, NetworkPlan::default()] {
            assert!(matches!(arguments(&plan, 7, false), Err(Error::Unfit(_))));
        }
    }
}
