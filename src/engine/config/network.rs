//! Flags about a container's network. Pure: whether the networks are there is seen to by whoever knows them.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::names;
use super::{Error, ImageDefaults, Surroundings, flag};
use crate::base::address::Subnet;
use crate::engine::request::RunRequest;
use crate::storage::containers::{
    DnsRecord, EgressRecord, Membership, NetworkDetails, NetworkMode, PortProtocol, PortRecord, Verdict,
};

/// The network that is there without being made, as in Podman.
pub const DEFAULT_BRIDGE: &str = "podman";

/// The network of a container of whom nothing else was said.
const DEFAULT: NetworkMode = NetworkMode::Private;

/// `--network` and all that goes with it.
pub(super) fn resolve(
    request: &RunRequest,
    image: &ImageDefaults,
    around: &Surroundings<'_>,
) -> Result<(NetworkMode, NetworkDetails), Error> {
    let mut details = NetworkDetails::default();
    let mode = modes(request, around, &mut details)?;
    addresses(request, &mode, &mut details)?;
    details.dns = dns(request, &mode)?;
    details.exposed = exposed(request, image)?;
    details.ports = ports(request, &mode, &details.exposed)?;
    details.egress = egress(&request.egress)?;
    if let (Some(rule), false) = (request.egress.first(), mode.is_relayed()) {
        return Err(flag(
            "egress",
            rule,
            "it needs a network whose traffic goes by the relay: --network default or a name",
        ));
    }
    Ok((mode, details))
}

fn modes(
    request: &RunRequest,
    around: &Surroundings<'_>,
    details: &mut NetworkDetails,
) -> Result<NetworkMode, Error> {
    let mut mode = None;
    // A list of names in one word is Podman's older way.
    let words = request.networks.iter().flat_map(|text| match text.contains(':') {
        true => vec![text.as_str()],
        false => text.split(',').collect(),
    });
    for text in words {
        let (word, options) =
            text.split_once(':').map_or((text, None), |(word, options)| (word, Some(options)));
        let one = one_mode(text, word, options, around, details)?;
        match (&mode, &one) {
            (None, _) => mode = Some(one),
            (Some(NetworkMode::Shared), NetworkMode::Shared) => {}
            _ => {
                return Err(flag(
                    "network",
                    text,
                    "only networks of which containers share several can be given more than once",
                ));
            }
        }
    }
    let mut seen = BTreeSet::new();
    let mut devices = BTreeSet::new();
    for membership in &details.memberships {
        let name = &membership.network;
        if !seen.insert(name) {
            return Err(flag("network", name, "it is given twice"));
        }
        if let Some(device) = membership.interface.as_ref().filter(|device| !devices.insert(*device)) {
            return Err(flag("network", device, "two devices cannot have the same name"));
        }
    }
    Ok(mode.unwrap_or(DEFAULT))
}

fn one_mode(
    text: &str,
    word: &str,
    options: Option<&str>,
    around: &Surroundings<'_>,
    details: &mut NetworkDetails,
) -> Result<NetworkMode, Error> {
    let bad = |why: &str| flag("network", text, why);
    let plain = |mode| match options {
        None => Ok(mode),
        Some(_) => Err(bad("it takes no options")),
    };
    match word {
        "none" => plain(NetworkMode::None),
        "host" => plain(NetworkMode::Host),
        "container" => {
            let other = names::container("network", text, options.unwrap_or_default(), around)?;
            // Of one that has somebody else's there is nothing to join but that.
            Ok(match other.config.network {
                NetworkMode::None | NetworkMode::Private | NetworkMode::Shared => {
                    NetworkMode::Container(other.id)
                }
                other => other,
            })
        }
        "ns" => match options {
            Some(path) if path.starts_with('/') => Ok(NetworkMode::Path(path.into())),
            _ => Err(bad("the path of a namespace is absolute")),
        },
        "" | "default" | "private" | "slirp4netns" | "pasta" | "fast" => {
            details.private.fast = word == "fast";
            for option in options.unwrap_or_default().split(',').filter(|option| !option.is_empty()) {
                private_option(text, word, option, details)?;
            }
            Ok(NetworkMode::Private)
        }
        name => {
            let name = if name == "bridge" { DEFAULT_BRIDGE } else { name };
            crate::base::id::check_name(name).map_err(|error| bad(&error.to_string()))?;
            let mut membership = Membership { network: name.to_owned(), ..Membership::default() };
            for option in options.unwrap_or_default().split(',').filter(|option| !option.is_empty()) {
                member_option(text, option, &mut membership)?;
            }
            details.memberships.push(membership);
            Ok(NetworkMode::Shared)
        }
    }
}

/// Options of a private network, ours and those that slirp4netns and pasta have in Podman.
fn private_option(text: &str, word: &str, option: &str, details: &mut NetworkDetails) -> Result<(), Error> {
    let private = &mut details.private;
    let bad = |why: String| flag("network", text, why);
    let (key, value) = option.split_once('=').map_or((option, None), |(key, value)| (key, Some(value)));
    let truth = || match value {
        None | Some("true") => Ok(true),
        Some("false") => Ok(false),
        Some(value) => Err(bad(format!("\"{value}\" is neither true nor false"))),
    };
    let given = || value.ok_or_else(|| bad(format!("\"{key}\" has no value")));
    match (word, key) {
        (_, "host-loopback") | ("slirp4netns", "allow_host_loopback") => private.host_loopback = truth()?,
        ("pasta", "--map-gw") if value.is_none() => private.host_loopback = true,
        ("pasta", "--no-map-gw") if value.is_none() => private.host_loopback = false,
        (_, "ipv6") | ("slirp4netns", "enable_ipv6") => private.no_ipv6 = !truth()?,
        ("pasta", "-4" | "--ipv4-only") if value.is_none() => private.no_ipv6 = true,
        (_, "mtu") => private.mtu = Some(mtu(given()?).map_err(bad)?),
        (_, "mac") => private.mac = Some(given()?.parse().map_err(|why: &str| bad(why.to_owned()))?),
        (_, "subnet") | ("slirp4netns", "cidr") => {
            let subnet: Subnet = given()?.parse().map_err(|error| bad(format!("{key}: {error}")))?;
            if subnet.is_ipv6() || subnet.prefix() > 25 {
                return Err(bad(format!("{key}: it takes a subnet of IPv4 with at least 128 addresses")));
            }
            private.subnet = Some(subnet);
        }
        // What the name says is what there is: the client's address is kept.
        ("slirp4netns", "port_handler") if value == Some("slirp4netns") => {}
        ("slirp4netns", "port_handler" | "outbound_addr" | "outbound_addr6") => {
            return Err(Error::Unsupported { flag: "network", value: text.into() });
        }
        ("pasta", option) if option.starts_with('-') => {
            return Err(Error::Unsupported { flag: "network", value: text.into() });
        }
        _ => return Err(bad(format!("there is no option \"{key}\""))),
    }
    Ok(())
}

/// A device's largest packet: IPv6 needs 1280 (RFC 8200), a veth takes 65535.
pub(in crate::engine) fn mtu(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|mtu| (1280..=65535).contains(mtu));
    number.ok_or_else(|| format!("\"{text}\" is no MTU: a number from 1280 to 65535"))
}

fn member_option(text: &str, option: &str, membership: &mut Membership) -> Result<(), Error> {
    let bad = |why: String| flag("network", text, why);
    let (key, value) = option.split_once('=').ok_or_else(|| bad(format!("\"{option}\" has no value")))?;
    match key {
        "alias" => membership.aliases.push(alias(value).map_err(bad)?),
        "ip" => {
            membership.ip = Some(value.parse().map_err(|_| bad(format!("\"{value}\" is no IPv4 address")))?)
        }
        "ip6" => {
            membership.ip6 = Some(value.parse().map_err(|_| bad(format!("\"{value}\" is no IPv6 address")))?);
        }
        "mac" => membership.mac = Some(value.parse().map_err(|why: &str| bad(why.to_owned()))?),
        "interface_name" => membership.interface = Some(device(value).map_err(bad)?),
        "host_interface_name" => {
            return Err(Error::Unsupported { flag: "network", value: text.into() });
        }
        _ => return Err(bad(format!("there is no option \"{key}\""))),
    }
    Ok(())
}

/// A name by which containers find each other.
pub fn alias(text: &str) -> Result<String, String> {
    let usual = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let labels = text.split('.').all(|label| (1..=63).contains(&label.len()));
    if text.len() <= 253 && labels && text.chars().all(usual) {
        Ok(text.to_owned())
    } else {
        Err(format!("\"{text}\" is no name: it has letters, digits, \"-\", \"_\" and single dots between"))
    }
}

/// The name of a network device (`dev_valid_name` of the kernel).
pub(in crate::engine) fn device(text: &str) -> Result<String, String> {
    let odd = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if (1..=15).contains(&text.len()) && !matches!(text, "." | ".." | "lo") && !text.contains(odd) {
        Ok(text.to_owned())
    } else {
        Err(format!("\"{text}\" is no name of a device: 1 to 15 characters without \"/\", \":\" and spaces"))
    }
}

/// `--ip`, `--ip6`, `--mac-address`, `--network-alias`.
fn addresses(request: &RunRequest, mode: &NetworkMode, details: &mut NetworkDetails) -> Result<(), Error> {
    let given = [
        ("ip", &request.ip),
        ("ip6", &request.ip6),
        ("mac-address", &request.mac_address),
        ("network-alias", &request.network_aliases.first().cloned()),
    ];
    let Some((name, value)) = given.iter().find_map(|(name, value)| Some((*name, value.as_ref()?))) else {
        return Ok(());
    };
    match mode {
        NetworkMode::Private
            if request.ip.is_none() && request.ip6.is_none() && request.network_aliases.is_empty() =>
        {
            let mac = request.mac_address.as_deref().map(str::parse).transpose();
            details.private.mac = mac.map_err(|why: &str| flag("mac-address", value, why))?;
            return Ok(());
        }
        NetworkMode::Shared => {}
        _ => return Err(flag(name, value, "it needs a network that containers share: --network NAME")),
    }
    for alias_name in &request.network_aliases {
        let alias = alias(alias_name).map_err(|why| flag("network-alias", alias_name, why))?;
        details.memberships.iter_mut().for_each(|membership| membership.aliases.push(alias.clone()));
    }
    let [membership] = &mut details.memberships[..] else {
        return match name {
            "network-alias" => Ok(()),
            _ => {
                Err(flag(name, value, "with several networks it is said of each: --network NAME:ip=ADDRESS"))
            }
        };
    };
    let twice = |name, value: &str| flag(name, value, "the same is said by --network, too");
    if let Some(text) = &request.ip {
        let ip: Ipv4Addr = text.parse().map_err(|_| flag("ip", text, "it is no IPv4 address"))?;
        if membership.ip.replace(ip).is_some() {
            return Err(twice("ip", text));
        }
    }
    if let Some(text) = &request.ip6 {
        let ip: Ipv6Addr = text.parse().map_err(|_| flag("ip6", text, "it is no IPv6 address"))?;
        if membership.ip6.replace(ip).is_some() {
            return Err(twice("ip6", text));
        }
    }
    if let Some(text) = &request.mac_address {
        let mac = text.parse().map_err(|why: &str| flag("mac-address", text, why))?;
        if membership.mac.replace(mac).is_some() {
            return Err(twice("mac-address", text));
        }
    }
    Ok(())
}

/// `--dns`, `--dns-search`, `--dns-option`.
fn dns(request: &RunRequest, mode: &NetworkMode) -> Result<DnsRecord, Error> {
    let mut record = DnsRecord::default();
    let given = [
        ("dns", &request.dns),
        ("dns-search", &request.dns_search),
        ("dns-option", &request.dns_options),
        ("add-host", &request.add_hosts),
    ];
    if let (Some((name, value)), NetworkMode::Container(_)) =
        (given.iter().find_map(|(name, list)| Some((*name, list.first()?))), mode)
    {
        return Err(flag(name, value, "the container has the files of the one whose network it shares"));
    }
    for text in &request.dns {
        if text == "none" {
            record.untouched = true;
            continue;
        }
        record.servers.push(text.parse().map_err(|_| flag("dns", text, "it is no IP address"))?);
    }
    if record.untouched
        && (request.dns.len() > 1 || !request.dns_search.is_empty() || !request.dns_options.is_empty())
    {
        return Err(flag("dns", "none", "then there is no file that anything else could be written to"));
    }
    let word =
        |text: &&String| !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control());
    for (name, list) in &given[1..] {
        if let Some(text) = list.iter().find(|text| !word(text)) {
            return Err(flag(name, text, "it is one word"));
        }
    }
    if !request.dns_search.is_empty() {
        let domains = request.dns_search.iter().filter(|domain| *domain != ".").cloned().collect();
        record.search = Some(domains);
    }
    record.options.clone_from(&request.dns_options);
    Ok(record)
}

fn protocol(text: &str) -> Result<PortProtocol, String> {
    match text.to_ascii_lowercase().as_str() {
        "tcp" => Ok(PortProtocol::Tcp),
        "udp" => Ok(PortProtocol::Udp),
        "sctp" => Err("sctp is not supported yet".into()),
        other => Err(format!("there is no protocol \"{other}\": tcp or udp")),
    }
}

/// `80` or `80-90`: the first and how many.
fn range(text: &str, zero: bool) -> Result<(u16, u16), String> {
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse::<u16>().ok().filter(|number| digits && (zero || *number > 0));
        number.ok_or_else(|| format!("\"{text}\" is no port: a number from {} to 65535", u8::from(!zero)))
    };
    let Some((first, last)) = text.split_once('-') else { return Ok((number(text)?, 1)) };
    let (first, last) = (number(first)?, number(last)?);
    match last.checked_sub(first) {
        _ if first == 0 => Err(format!("\"{text}\" is no range of ports: a range begins at 1 or above")),
        Some(more) => Ok((first, more + 1)),
        None => Err(format!("\"{text}\" is no range of ports: the second is lower than the first")),
    }
}

/// `[[IP:][HOST]:]CONTAINER[/PROTOCOL]`; a port of the host that nobody chose is 0.
pub(in crate::engine) fn publish(text: &str) -> Result<PortRecord, String> {
    let (ports, kind) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol(kind)?;
    let (rest, port) = ports.rsplit_once(':').map_or((None, ports), |(rest, port)| (Some(rest), port));
    if rest.is_some_and(|rest| rest.starts_with('[') && rest.ends_with(']')) {
        return Err("after an address stand the host's port, which may be empty, and the container's".into());
    }
    let (port, count) = range(port, false)?;
    let (address, host) = match rest {
        None => ("", ""),
        // A bare address of IPv6 is not to be told from ports.
        Some(rest) => match rest.rsplit_once(':') {
            None => ("", rest),
            Some((address, host)) => (address, host),
        },
    };
    let bracketed = address.strip_prefix('[').and_then(|address| address.strip_suffix(']'));
    let host_address = match (bracketed, address) {
        (None, "") => None,
        (Some(inner), _) => {
            let address: Ipv6Addr = inner.parse().map_err(|_| format!("\"{inner}\" is no IPv6 address"))?;
            Some(IpAddr::V6(address))
        }
        (None, address) => {
            let why = if address.contains(':') {
                "is no address: one of IPv6 stands in brackets"
            } else {
                "is no IP address"
            };
            Some(IpAddr::V4(address.parse().map_err(|_| format!("\"{address}\" {why}"))?))
        }
    };
    let (host_port, host_count) = if host.is_empty() { (0, count) } else { range(host, true)? };
    if host_count != count {
        return Err(format!("{host_count} ports of the host cannot lead to {count} of the container"));
    }
    Ok(PortRecord { host: host_address, host_port, port, count, protocol })
}

fn ports(
    request: &RunRequest,
    mode: &NetworkMode,
    exposed: &[(u16, PortProtocol)],
) -> Result<Vec<PortRecord>, Error> {
    let mut ports: Vec<PortRecord> = Vec::with_capacity(request.publish.len());
    for text in &request.publish {
        let mut port = publish(text).map_err(|why| flag("publish", text, why))?;
        // What is said again counts once.
        while let Some(place) = ports.iter().position(|known| agree(known, &port)) {
            port = union(&ports.remove(place), &port);
        }
        if ports.iter().any(|known| meet(known, &port)) {
            return Err(flag("publish", text, "this port of the host is published twice"));
        }
        ports.push(port);
    }
    if !mode.is_relayed() {
        return Ok(Vec::new());
    }
    if request.publish_all {
        for (port, protocol) in exposed {
            let there = |known: &PortRecord| {
                known.protocol == *protocol && (known.port..=known.port + (known.count - 1)).contains(port)
            };
            if !ports.iter().any(there) {
                ports.push(PortRecord {
                    host: None,
                    host_port: 0,
                    port: *port,
                    count: 1,
                    protocol: *protocol,
                });
            }
        }
    }
    Ok(ports)
}

fn last(record: &PortRecord) -> u32 {
    u32::from(record.host_port) + u32::from(record.count) - 1
}

/// Whether two have a port of the host in common.
fn meet(a: &PortRecord, b: &PortRecord) -> bool {
    let any = |record: &PortRecord| record.host.is_none_or(|host| host.is_unspecified());
    a.protocol == b.protocol
        && a.host_port != 0
        && b.host_port != 0
        && (a.host == b.host || any(a) || any(b))
        && u32::from(a.host_port) <= last(b)
        && u32::from(b.host_port) <= last(a)
}

/// Whether two that have ports of the host in common lead each of them to the same place.
fn agree(a: &PortRecord, b: &PortRecord) -> bool {
    let offset = |record: &PortRecord| record.host_port.wrapping_sub(record.port);
    meet(a, b) && a.host == b.host && offset(a) == offset(b)
}

/// What two that agree publish together.
fn union(a: &PortRecord, b: &PortRecord) -> PortRecord {
    let first = if a.host_port <= b.host_port { a } else { b };
    let more = last(a).max(last(b)) - u32::from(first.host_port);
    PortRecord { count: u16::try_from(more + 1).unwrap_or(u16::MAX), ..*first }
}

/// `--expose` and the image's own.
fn exposed(request: &RunRequest, image: &ImageDefaults) -> Result<Vec<(u16, PortProtocol)>, Error> {
    let parse = |text: &str| {
        let (ports, kind) = text.split_once('/').unwrap_or((text, "tcp"));
        let protocol = protocol(kind)?;
        let (first, count) = range(ports, false)?;
        Ok::<_, String>((0..count).map(move |offset| (first + offset, protocol)))
    };
    let mut all = BTreeSet::new();
    for text in &request.expose {
        all.extend(parse(text).map_err(|why| flag("expose", text, why))?);
    }
    // What an image says is nobody's mistake here: what is no port of ours is none.
    all.extend(image.exposed_ports.iter().filter_map(|text| parse(text).ok()).flatten());
    Ok(all.into_iter().collect())
}

/// `--egress allow=…`, `deny=…`, `resolve=…`.
fn egress(given: &[String]) -> Result<Vec<EgressRecord>, Error> {
    let mut rules = Vec::new();
    for text in given {
        let bad = |why: &str| flag("egress", text, why);
        let form = "it takes allow=LIST, deny=LIST or resolve=LIST, of names and addresses";
        let (verdict, list) = text.split_once('=').ok_or_else(|| bad(form))?;
        let verdict = match verdict {
            "allow" => Verdict::Allow,
            "deny" => Verdict::Deny,
            "resolve" => Verdict::Resolve,
            _ => return Err(bad(form)),
        };
        for item in list.split(',') {
            let (target, port) = target(item).map_err(|why| bad(&why))?;
            let name = target.parse::<IpAddr>().is_err() && target.parse::<Subnet>().is_err();
            if verdict == Verdict::Resolve && (!name || port.is_some()) {
                return Err(bad("what is resolved are names, without a port"));
            }
            rules.push(EgressRecord { verdict, target, port });
        }
    }
    Ok(rules)
}

/// `example.org:443`, `*.example.org`, `10.0.0.0/8`, `[2001:db8::/32]:443`, `*:443`.
fn target(item: &str) -> Result<(String, Option<u16>), String> {
    if item.parse::<IpAddr>().is_ok() || item.parse::<Subnet>().is_ok() {
        return Ok((item.to_owned(), None));
    }
    let (target, port) = match item.rsplit_once(':') {
        Some((target, port)) if !port.ends_with(']') => (target, Some(range(port, false)?)),
        _ => (item, None),
    };
    let port = match port {
        Some((port, 1)) => Some(port),
        Some(_) => return Err(format!("\"{item}\": a rule is for one port or for all")),
        None => None,
    };
    if target == "*" || target == "all" {
        return Ok(("*".to_owned(), port));
    }
    let inner = target.strip_prefix('[').and_then(|target| target.strip_suffix(']')).unwrap_or(target);
    if inner.parse::<IpAddr>().is_ok() {
        return Ok((inner.to_owned(), port));
    }
    if inner.contains('/') || inner.contains(':') {
        return inner
            .parse::<Subnet>()
            .map(|subnet| (subnet.to_string(), port))
            .map_err(|why| format!("\"{item}\": {why}"));
    }
    // A list of numbers that is no address is a slip and not a name.
    if inner.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Err(format!("\"{item}\" is neither a name nor an address"));
    }
    let name = inner.strip_suffix('.').unwrap_or(inner);
    alias(name.strip_prefix("*.").unwrap_or(name)).map(|_| (name.to_ascii_lowercase(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read() {
        let record = |host: Option<&str>, host_port, port, count, protocol| PortRecord {
            host: host.map(|text| text.parse().expect("an address")),
            host_port,
            port,
            count,
            protocol,
        };
        use PortProtocol::{Tcp, Udp};
        for (text, expected) in [
            ("80", record(None, 0, 80, 1, Tcp)),
            ("8080:80", record(None, 8080, 80, 1, Tcp)),
            ("127.0.0.1:8080:80/udp", record(Some("127.0.0.1"), 8080, 80, 1, Udp)),
            ("127.0.0.1::80", record(Some("127.0.0.1"), 0, 80, 1, Tcp)),
            (":80", record(None, 0, 80, 1, Tcp)),
            ("0:80", record(None, 0, 80, 1, Tcp)),
            ("[::1]:8080:80/TCP", record(Some("::1"), 8080, 80, 1, Tcp)),
            ("8000-8010:80-90", record(None, 8000, 80, 11, Tcp)),
            ("80-90", record(None, 0, 80, 11, Tcp)),
        ] {
            assert_eq!(publish(text), Ok(expected), "{text}");
        }
        for text in [
            "",
            ":",
            "80/",
            "80/sctp",
            "80/xyz",
            "0",
            "70000",
            "-1",
            "80-",
            "-80",
            "90-80",
            "a:80",
            "80:a",
            "8000-8001:80",
            "8000:80-81",
            "::1:8080:80",
            "1.2.3:80:80",
            "[::1:80:80",
            "[1.2.3.4]:80:80",
            "1:2:3:4",
            "80/tcp/udp",
            "+80",
            " 80",
            "65535-65536:1-2",
            "0-5:10-15",
        ] {
            assert!(publish(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_port_of_the_host_leads_to_one_place() {
        let both = |a: &str, b: &str| {
            let (a, b) = (publish(a).expect(a), publish(b).expect(b));
            (meet(&a, &b), agree(&a, &b).then(|| union(&a, &b)))
        };
        for (a, b) in [
            ("80:80", "80:81/udp"),
            ("80:80", "81:80"),
            ("0:80", "0:80"),
            ("127.0.0.1:80:80", "127.0.0.2:80:81"),
        ] {
            assert_eq!(both(a, b), (false, None), "{a} {b}");
        }
        for (a, b) in [
            ("80:80", "80:81"),
            ("127.0.0.1:80:80", "80:80"),
            ("80-90:80-90", "85:8"),
            ("127.0.0.1:80:80", "0.0.0.0:80:80"),
        ] {
            assert_eq!(both(a, b), (true, None), "{a} {b}");
        }
        for (a, b, together) in [
            ("80:80", "80:80", "80:80"),
            ("80-90:180-190", "90:190", "80-90:180-190"),
            ("85:85", "80-90:80-90", "80-90:80-90"),
            ("85-95:5-15", "80-90:80-90", ""),
            ("85-95:5-15", "81-90:1-10", "81-95:1-15"),
            ("[::1]:80:8/udp", "[::1]:80:8/udp", "[::1]:80:8/udp"),
        ] {
            let together = publish(together).ok();
            assert_eq!(both(a, b), (true, together), "{a} {b}");
            assert_eq!(both(b, a), (true, together), "{b} {a}");
        }
    }

    #[test]
    fn rules_are_read() {
        let rule = |target: &str, port| (target.to_owned(), port);
        for (text, expected) in [
            ("Example.org:443", rule("example.org", Some(443))),
            ("example.org.", rule("example.org", None)),
            ("*.example.org", rule("*.example.org", None)),
            ("10.0.0.0/8", rule("10.0.0.0/8", None)),
            ("10.1.2.3:53", rule("10.1.2.3", Some(53))),
            ("2001:db8::/32", rule("2001:db8::/32", None)),
            ("2001:db8::1", rule("2001:db8::1", None)),
            ("[2001:db8::/32]:443", rule("2001:db8::/32", Some(443))),
            ("[::1]", rule("::1", None)),
            ("*", rule("*", None)),
            ("all:443", rule("*", Some(443))),
        ] {
            assert_eq!(target(text), Ok(expected), "{text}");
        }
        for text in [
            "",
            ":443",
            "10.0.0.0/33",
            "10.0.0",
            "a b",
            "a..b",
            "*.",
            "*.*.org",
            "a:0",
            "a:1-2",
            "a:b",
            "[a",
            "1.2.3.4.5",
        ] {
            assert!(target(text).is_err(), "{text}");
        }
        for text in ["example.org", "allow", "permit=a", "resolve=10.0.0.0/8", "resolve=a:1", "allow="] {
            assert!(egress(&[text.to_owned()]).is_err(), "{text}");
        }
        let rules = egress(&["allow=a.org,10.0.0.0/8".into(), "deny=*".into()]).expect("rules");
        assert_eq!(rules.len(), 3);
        assert_eq!(rules[2].verdict, Verdict::Deny);
    }

    fn resolved(change: impl FnOnce(&mut RunRequest)) -> Result<(NetworkMode, NetworkDetails), String> {
        let mut request = RunRequest::default();
        change(&mut request);
        let env = Default::default();
        let around = Surroundings {
            cwd: std::path::Path::new("/w"),
            env: &env,
            short_id: "0123456789ab",
            host_name: "host",
            root: false,
            find: &|name| Err(format!("no container {name}")),
        };
        resolve(&request, &ImageDefaults::default(), &around).map_err(|error| error.to_string())
    }

    fn networks(texts: &[&str]) -> Result<(NetworkMode, NetworkDetails), String> {
        resolved(|request| request.networks = texts.iter().map(|text| (*text).to_owned()).collect())
    }

    #[test]
    fn networks_are_read() {
        assert_eq!(networks(&["none"]).expect("none").0, NetworkMode::None);
        assert_eq!(networks(&["host"]).expect("host").0, NetworkMode::Host);
        assert_eq!(
            networks(&["ns:/run/netns/a"]).expect("a path").0,
            NetworkMode::Path("/run/netns/a".into())
        );
        let (mode, details) = networks(&["default:host-loopback,mtu=1400,ipv6=false"]).expect("a network");
        assert_eq!(mode, NetworkMode::Private);
        assert!(!details.private.fast && networks(&["fast"]).expect("a network").1.private.fast);
        assert!(
            details.private.host_loopback && details.private.no_ipv6 && details.private.mtu == Some(1400)
        );
        let (_, details) =
            networks(&["slirp4netns:allow_host_loopback=true,cidr=10.5.0.0/24,port_handler=slirp4netns"])
                .expect("a network");
        assert_eq!(details.private.subnet, "10.5.0.0/24".parse().ok());
        let (mode, details) =
            networks(&["bridge:ip=10.88.0.9,alias=a,alias=b", "other:mac=02:00:00:00:00:01"])
                .expect("networks");
        assert_eq!(mode, NetworkMode::Shared);
        assert_eq!(details.memberships[0].network, DEFAULT_BRIDGE);
        assert_eq!(details.memberships[0].aliases, ["a", "b"]);
        assert_eq!(details.memberships[1].network, "other");
        assert_eq!(networks(&["one,two"]).expect("networks").1.memberships.len(), 2);
        for texts in [
            &["none", "host"][..],
            &["default", "other"],
            &["a", "a"],
            &["bridge", "podman"],
            &["host:a"],
            &["none:"],
            &["ns:relative"],
            &["ns"],
            &["container:nobody"],
            &["default:nonsense"],
            &["default:mtu=9"],
            &["default:mtu"],
            &["default:subnet=10.0.0.0/30"],
            &["default:subnet=fd00::/64"],
            &["a:ip=x"],
            &["a:ip=fd00::1"],
            &["a:ip6=10.0.0.1"],
            &["a:alias=b c"],
            &["a:mac=x"],
            &["a:nonsense=1"],
            &["a:ip"],
            &["a/b"],
            &["a:interface_name=a/b"],
            &["a:interface_name=x", "b:interface_name=x"],
            &["pasta:--config-net"],
            &["slirp4netns:outbound_addr=eth0"],
            &["fast", "none"],
            &["fast", "a"],
            &["default:host-loopback=yes"],
        ] {
            assert!(networks(texts).is_err(), "{texts:?}");
        }
    }

    #[test]
    fn flags_need_a_network_that_has_what_they_change() {
        let with = |network: &str, change: &dyn Fn(&mut RunRequest)| {
            resolved(|request| {
                request.networks = vec![network.to_owned()];
                change(request);
            })
        };
        let publish = |request: &mut RunRequest| request.publish = vec!["80".into()];
        let ip = |request: &mut RunRequest| request.ip = Some("10.88.0.5".into());
        let egress = |request: &mut RunRequest| request.egress = vec!["deny=*".into()];
        let alias = |request: &mut RunRequest| request.network_aliases = vec!["a".into()];
        for network in ["none", "host", "ns:/a"] {
            // As with Podman, what cannot be published is warned of.
            assert!(with(network, &publish).expect(network).1.ports.is_empty());
            assert!(with(network, &ip).is_err());
            assert!(with(network, &egress).is_err() && with(network, &alias).is_err());
        }
        assert!(with("default", &publish).is_ok() && with("default", &egress).is_ok());
        assert!(with("default", &ip).is_err() && with("default", &alias).is_err());
        assert!(with("n", &ip).is_ok() && with("n", &alias).is_ok());
        assert!(
            with("n:ip=10.88.0.6", &ip).is_err() && with("n,m", &ip).is_err() && with("n,m", &alias).is_ok()
        );
        let mac = |request: &mut RunRequest| request.mac_address = Some("02:00:00:00:00:01".into());
        assert!(with("default", &mac).expect("a network").1.private.mac.is_some());
        let all = |request: &mut RunRequest| {
            request.expose = vec!["80-81".into(), "53/udp".into()];
            request.publish = vec!["9000:81".into()];
            request.publish_all = true;
        };
        assert_eq!(with("default", &all).expect("a network").1.ports.len(), 3);
    }

    #[test]
    fn name_servers_are_read() {
        let with = |dns: &[&str], search: &[&str], options: &[&str]| {
            resolved(|request| {
                let own = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
                (request.dns, request.dns_search, request.dns_options) =
                    (own(dns), own(search), own(options));
            })
            .map(|(_, details)| details.dns)
        };
        assert_eq!(with(&["1.1.1.1", "::1"], &[], &[]).expect("servers").servers.len(), 2);
        assert_eq!(with(&[], &["."], &[]).expect("none").search, Some(Vec::new()));
        assert!(with(&["none"], &[], &[]).expect("none").untouched);
        assert!(with(&["none"], &["a"], &[]).is_err() && with(&["x"], &[], &[]).is_err());
        assert!(with(&[], &["a b"], &[]).is_err() && with(&[], &[], &["a\nb"]).is_err());
    }
}
