//! Published ports on the host: opened before anything else is done, so that one which is taken is told before
//! the container starts.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::net::{SocketType, sockopt};

use super::factory::hold_bursts;
use super::{Error, tcp};
use crate::network::plan::{NetworkPlan, Protocol, Published};
use crate::sys::inet;

const BACKLOG: i32 = 4096;
/// How often a port of the kernel's choice is sought that is free in both families.
const ATTEMPTS: usize = 64;

/// A published port's socket on the host.
#[derive(Debug)]
pub struct Listener {
    pub(super) socket: OwnedFd,
    pub(super) protocol: Protocol,
    /// The container's port.
    pub(super) port: u16,
}

/// Opens the published ports of a plan in the network namespace of the calling thread; returns them with the
/// ports that the kernel chose for those without one.
pub(super) fn open(plan: &NetworkPlan) -> Result<(Vec<Listener>, Vec<Published>), Error> {
    let mut listeners = Vec::new();
    let mut chosen = Vec::with_capacity(plan.published.len());
    for published in &plan.published {
        let port = publish(published, &mut listeners).map_err(|source| Error::Publish {
            address: published.host,
            port: published.host_port,
            protocol: published.protocol,
            source,
        })?;
        chosen.push(Published { host_port: port, ..*published });
    }
    Ok((listeners, chosen))
}

fn publish(published: &Published, into: &mut Vec<Listener>) -> io::Result<u16> {
    let Published { host, host_port, port, protocol } = *published;
    let listener = |socket| Listener { socket, protocol, port };
    if let Some(ip) = host {
        let (socket, port) = bind(SocketAddr::new(ip, host_port), protocol)?;
        into.push(listener(socket));
        return Ok(port);
    }
    let any: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let mut attempts = 0;
    loop {
        let (v4, port) = bind(SocketAddr::new(any[0], host_port), protocol)?;
        attempts += 1;
        match bind(SocketAddr::new(any[1], port), protocol) {
            Ok((v6, _)) => into.push(listener(v6)),
            Err(error) if no_family(&error) => {}
            Err(error)
                if host_port == 0 && attempts < ATTEMPTS && error.kind() == io::ErrorKind::AddrInUse =>
            {
                continue;
            }
            Err(error) => return Err(error),
        }
        into.push(listener(v4));
        return Ok(port);
    }
}

/// Whether a socket could not be opened since the host has not the family.
pub(super) fn no_family(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

fn bind(address: SocketAddr, protocol: Protocol) -> io::Result<(OwnedFd, u16)> {
    let v6 = address.is_ipv6();
    let kind = match protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    let socket = inet::socket(v6, kind, None)?;
    if v6 {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    match protocol {
        Protocol::Tcp => {
            // What is left of connections of an earlier run does not keep the port; a listener does.
            sockopt::set_socket_reuseaddr(&socket, true)?;
            tcp::set_options(&socket)?;
        }
        Protocol::Udp => {
            inet::tell_destination(&socket, v6)?;
            hold_bursts(&socket);
            // An old kernel receives one by one.
            let _ = inet::receive_runs(&socket);
        }
    }
    rustix::net::bind(&socket, &address)?;
    if protocol == Protocol::Tcp {
        rustix::net::listen(&socket, BACKLOG)?;
    }
    let bound = SocketAddr::try_from(rustix::net::getsockname(&socket)?)?;
    Ok((socket, bound.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(host: Option<IpAddr>, host_port: u16, protocol: Protocol) -> NetworkPlan {
        let published = vec![Published { host, host_port, port: 80, protocol }];
        NetworkPlan { published, ..NetworkPlan::default() }
    }

    #[test]
    fn a_port_of_the_kernels_choice_is_told_and_then_taken() {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let (first, chosen) = open(&published(None, 0, protocol)).unwrap();
            assert!(!first.is_empty() && chosen[0].host_port != 0);
            let again = open(&published(None, chosen[0].host_port, protocol)).unwrap_err();
            assert!(again.to_string().contains(&chosen[0].host_port.to_string()), "{again}");
            assert!(again.hint().unwrap().contains("in use"));
        }
    }

    #[test]
    fn an_address_of_another_host_is_refused() {
        let error = open(&published(Some("192.0.2.1".parse().unwrap()), 0, Protocol::Tcp)).unwrap_err();
        assert!(error.hint().unwrap().contains("192.0.2.1"), "{error}");
    }
}
