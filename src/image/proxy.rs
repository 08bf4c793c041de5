//! Which proxy stands before a host: `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, in either case of
//! letters, by the rules of Go's programs, which Podman and Docker follow.

use std::net::IpAddr;

use ureq::Proxy;
use ureq::http::Uri;

/// A variable that names no proxy. Its value may hold a password: not told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("${0} is not the address of a proxy (http://[user:password@]host:port)")]
pub struct Error(pub String);

/// The proxy for an address, by the environment `env`; none for this machine itself.
pub fn of(url: &Uri, env: &dyn Fn(&str) -> Option<String>) -> Result<Option<Proxy>, Error> {
    let https = url.scheme_str() != Some("http");
    let named: &[&str] = if https {
        &["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]
    } else {
        &["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]
    };
    let set = |name: &&&str| env(name).is_some_and(|value| !value.is_empty());
    let Some(name) = named.iter().find(set) else { return Ok(None) };
    let host =
        url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    let port = url.port_u16().unwrap_or(if https { 443 } else { 80 });
    let exempt =
        env("NO_PROXY").filter(|list| !list.is_empty()).or_else(|| env("no_proxy")).unwrap_or_default();
    if is_own(&host) || exempt.split(',').any(|entry| is_exempt(entry.trim(), &host, port)) {
        return Ok(None);
    }
    let value = env(name).unwrap_or_default();
    let proxy = Proxy::new(&value).ok().filter(|_| has_host(&value));
    proxy.map(Some).ok_or_else(|| Error((*name).to_owned()))
}

fn has_host(proxy: &str) -> bool {
    let whole = if proxy.contains("://") { proxy.to_owned() } else { format!("http://{proxy}") };
    let Ok(uri) = whole.parse::<Uri>() else { return false };
    let behind =
        uri.authority().and_then(|authority| authority.as_str().rsplit('@').next().map(str::to_owned));
    let port =
        behind.as_deref().and_then(|place| place.rsplit_once(':')).filter(|(_, port)| !port.contains(']'));
    uri.host().is_some_and(|host| !host.is_empty())
        && port.is_none_or(|(_, port)| port.parse::<u16>().is_ok())
}

fn is_own(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether an entry of `NO_PROXY` speaks of a host: `*`, an address, a range of addresses, a domain
/// with all that is below it, or with a leading dot only what is below it; each but the range may end
/// in a port.
fn is_exempt(entry: &str, host: &str, port: u16) -> bool {
    if entry.is_empty() {
        return false;
    }
    let entry = entry.to_ascii_lowercase();
    let address = host.parse::<IpAddr>().ok();
    if let Some((network, bits)) = entry.split_once('/') {
        let (network, bits) = (network.parse::<IpAddr>().ok(), bits.parse::<u32>().ok());
        return matches!((address, network, bits), (Some(address), Some(network), Some(bits)) if within(address, network, bits));
    }
    let (name, only) = match entry.rsplit_once(':') {
        // An address of version 6 without a port has colons of its own.
        Some((name, text)) if !name.contains(':') || name.ends_with(']') => match text.parse::<u16>() {
            Ok(port) => (name, Some(port)),
            Err(_) => (entry.as_str(), None),
        },
        _ => (entry.as_str(), None),
    };
    if only.is_some_and(|only| only != port) {
        return false;
    }
    let name = name.trim_start_matches('[').trim_end_matches(']');
    match name.strip_prefix("*.").map(|_| &name[1..]).unwrap_or(name) {
        "*" => true,
        below if below.starts_with('.') => host.ends_with(below),
        name => match (address, name.parse::<IpAddr>()) {
            (Some(address), Ok(named)) => address == named,
            _ => host == name || host.strip_suffix(name).is_some_and(|head| head.ends_with('.')),
        },
    }
}

fn within(address: IpAddr, network: IpAddr, bits: u32) -> bool {
    match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(n)) if bits <= 32 => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            a.to_bits() & mask == n.to_bits() & mask
        }
        (IpAddr::V6(a), IpAddr::V6(n)) if bits <= 128 => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            a.to_bits() & mask == n.to_bits() & mask
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exemptions() {
        for (entry, host, port, exempt) in [
            ("*", "a.b", 443, true),
            ("a.b", "a.b", 443, true),
            ("a.b", "c.a.b", 443, true),
            ("a.b", "ca.b", 443, false),
            (".a.b", "a.b", 443, false),
            (".a.b", "c.a.b", 443, true),
            ("*.a.b", "c.a.b", 443, true),
            ("a.b:5000", "a.b", 443, false),
            ("a.b:5000", "a.b", 5000, true),
            ("A.B", "a.b", 443, true),
            ("10.1.2.3", "10.1.2.3", 443, true),
            ("10.0.0.0/8", "10.1.2.3", 443, true),
            ("10.0.0.0/16", "10.1.2.3", 443, false),
            ("0.0.0.0/0", "10.1.2.3", 443, true),
            ("10.0.0.0/8", "ten.example", 443, false),
            ("fd00::/8", "fd12::1", 443, true),
            ("fd12::1", "fd12::1", 443, true),
            ("[fd12::1]:80", "fd12::1", 443, false),
            ("10.0.0.0/99", "10.1.2.3", 443, false),
            ("", "a.b", 443, false),
        ] {
            assert_eq!(is_exempt(entry, host, port), exempt, "{entry} {host}:{port}");
        }
    }

    #[test]
    fn the_scheme_chooses() {
        let env = |name: &str| match name {
            "https_proxy" => Some("http://user:secret@p.example:3128".to_owned()),
            "HTTP_PROXY" => Some("http://q.example:1".to_owned()),
            "NO_PROXY" => Some("x.example, y.example".to_owned()),
            _ => None,
        };
        let proxy = |url: &str| of(&url.parse().unwrap(), &env).unwrap().map(|proxy| proxy.host().to_owned());
        assert_eq!(proxy("https://a.example/").as_deref(), Some("p.example"));
        assert_eq!(proxy("http://a.example/").as_deref(), Some("q.example"));
        for own in [
            "https://y.example/",
            "https://a.x.example:5000/",
            "http://localhost:1/",
            "https://127.0.0.2/",
            "http://[::1]/",
        ] {
            assert_eq!(proxy(own), None, "{own}");
        }
        let wrong = |name: &str| (name == "HTTPS_PROXY").then(|| "http://secret@:x".to_owned());
        let error = of(&"https://a.example/".parse().unwrap(), &wrong).unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}
