//! `network create`, `ls`, `inspect`, `rm`, `prune`, `connect`, `disconnect`, `update` and `reload`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use clap::Args;
use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};

use super::{Failure, Globals, Outcome, prune};
use crate::base::id::ContainerId;
use crate::base::time;
use crate::cli::output::{self, Listing};
use crate::engine::config::network::alias;
use crate::engine::list::timestamp;
use crate::engine::network::create::NetworkRequest;
use crate::engine::network::{Error as NetworkError, mac_of};
use crate::engine::{Engine, Error};
use crate::storage::containers::Membership;
use crate::storage::networks::{DEFAULT_NETWORK, NetworkRecord};

/// Make a network.
#[derive(Args, Debug, Clone)]
pub struct CreateArgs {
    /// Do without names of containers
    #[arg(long)]
    disable_dns: bool,
    /// Ask this name server for other names
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    dns: Vec<String>,
    /// The driver; there is only "bridge"
    #[arg(short, long, value_name = "NAME", default_value = "bridge")]
    driver: String,
    /// The router's address in a subnet
    #[arg(long, value_name = "ADDRESS")]
    gateway: Vec<String>,
    /// Do not mind that it is there already
    #[arg(long)]
    ignore: bool,
    /// The name of the bridge's device
    #[arg(long, value_name = "NAME")]
    interface_name: Option<String>,
    /// Leave its containers no way out
    #[arg(long)]
    internal: bool,
    /// Give containers addresses of these only: a subnet, or FIRST-LAST
    #[arg(long, value_name = "RANGE")]
    ip_range: Vec<String>,
    /// Who gives addresses; there is only "host-local"
    #[arg(long, value_name = "NAME", default_value = "host-local")]
    ipam_driver: String,
    /// Give it a subnet of IPv6, too
    #[arg(long)]
    ipv6: bool,
    /// Give it a label
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// An option: mtu=BYTES, isolate=true
    #[arg(short, long, value_name = "NAME=VALUE")]
    opt: Vec<String>,
    /// Its subnet, as in 10.5.0.0/24; one of IPv4 and one of IPv6
    #[arg(long, value_name = "SUBNET")]
    subnet: Vec<String>,
    /// Its name; one is made up without
    name: Option<String>,
}

/// Show everything about networks.
#[derive(Args, Debug, Clone)]
pub struct InspectArgs {
    /// A template or json
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Networks, by name or ID
    #[arg(value_name = "NETWORK", required = true)]
    networks: Vec<String>,
}

/// List networks.
#[derive(Args, Debug, Clone)]
pub struct LsArgs {
    /// Show only networks that fit: dangling, driver, id, label, label!, name, until
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// A template, "table TEMPLATE" or json
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show whole IDs
    #[arg(long)]
    no_trunc: bool,
    /// Leave the heading out
    #[arg(short, long)]
    noheading: bool,
    /// Print only names
    #[arg(short, long)]
    quiet: bool,
}

/// Remove the networks that no container uses.
#[derive(Args, Debug, Clone)]
pub struct PruneArgs {
    /// Remove those only that fit: label, label!, until
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

/// Remove networks.
#[derive(Args, Debug, Clone)]
pub struct RmArgs {
    /// Remove the containers that use them, too
    #[arg(short, long)]
    force: bool,
    /// Seconds until a running container is killed
    #[arg(short = 't', long, value_name = "SECONDS")]
    time: Option<u64>,
    /// Networks, by name or ID
    #[arg(value_name = "NETWORK", required = true)]
    networks: Vec<String>,
}

/// Put a container into a network.
#[derive(Args, Debug, Clone)]
pub struct ConnectArgs {
    /// Another name of the container in the network
    #[arg(long, value_name = "NAME")]
    alias: Vec<String>,
    /// Its IPv4 address there
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<String>,
    /// Its IPv6 address there
    #[arg(long, value_name = "ADDRESS")]
    ip6: Option<String>,
    /// Its hardware address there
    #[arg(long, value_name = "ADDRESS")]
    mac_address: Option<String>,
    /// The network, by name or ID
    network: String,
    /// The container, by name or ID
    container: String,
}

/// Take a container out of a network.
#[derive(Args, Debug, Clone)]
pub struct DisconnectArgs {
    /// Do not mind that it is not in there
    #[arg(short, long)]
    force: bool,
    /// The network, by name or ID
    network: String,
    /// The container, by name or ID
    container: String,
}

/// Change a network's name servers.
#[derive(Args, Debug, Clone)]
pub struct UpdateArgs {
    /// Ask this name server for other names
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    dns_add: Vec<String>,
    /// No longer ask this one
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    dns_drop: Vec<String>,
    /// The network, by name or ID
    network: String,
}

/// Set up containers' networks again.
#[derive(Args, Debug, Clone)]
pub struct ReloadArgs {
    /// Of all containers
    #[arg(short, long)]
    all: bool,
    /// Of the newest container
    #[arg(short, long)]
    latest: bool,
    /// Containers, by name or ID
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// `network create`: prints the name.
pub fn create(args: CreateArgs, globals: &Globals) -> Outcome {
    for (flag, value, known) in
        [("driver", &args.driver, "bridge"), ("ipam-driver", &args.ipam_driver, "host-local")]
    {
        if value != known {
            let failure = Failure::new(format!("--{flag} \"{value}\" is not supported yet"));
            return Err(match value.as_str() {
                "macvlan" | "ipvlan" => failure.with_hint(
                    "--network host has the host's own address; ports are published with -p, and clients keep theirs",
                ),
                _ => failure,
            });
        }
    }
    let request = NetworkRequest {
        name: args.name,
        subnets: args.subnet,
        gateways: args.gateway,
        ip_ranges: args.ip_range,
        ipv6: args.ipv6,
        internal: args.internal,
        disable_dns: args.disable_dns,
        dns: args.dns,
        labels: args.label,
        options: args.opt,
        interface_name: args.interface_name,
    };
    let record = globals.engine()?.create_network(&request, args.ignore)?;
    output::println(&record.name)?;
    Ok(0)
}

/// What `inspect` says of a network.
pub fn details(engine: &Engine, network: &NetworkRecord, format: Option<&str>) -> Value {
    match format {
        Some(format) if format != "json" => row(engine, network, false),
        _ => json_of(engine, network),
    }
}

/// A network in Podman's JSON, whose keys are not those that its templates have.
fn json_of(engine: &Engine, network: &NetworkRecord) -> Value {
    let subnets: Vec<Value> = network
        .subnets
        .iter()
        .map(|one| {
            let mut value = json!({ "subnet": one.subnet, "gateway": one.gateway });
            if let Some((first, last)) = one.range {
                value["lease_range"] = json!({ "start_ip": first, "end_ip": last });
            }
            value
        })
        .collect();
    let mut value = json!({
        "name": network.name,
        "id": network.id(),
        "driver": "bridge",
        "network_interface": network.bridge,
        "created": time::rfc3339(timestamp(network.created), &TimeZone::system()),
        "subnets": subnets,
        "ipv6_enabled": network.has_ipv6(),
        "internal": network.internal,
        "dns_enabled": network.dns,
        "ipam_options": { "driver": "host-local" },
        "containers": containers(engine, network),
    });
    if !network.servers.is_empty() {
        value["network_dns_servers"] = json!(network.servers);
    }
    if !network.labels.is_empty() {
        value["labels"] = json!(network.labels);
    }
    if !network.options.is_empty() {
        value["options"] = json!(network.options);
    }
    value
}

/// Who has addresses in it now, by ID.
fn containers(engine: &Engine, network: &NetworkRecord) -> Map<String, Value> {
    let mut all: BTreeMap<String, (String, Vec<Value>)> = BTreeMap::new();
    for lease in engine.network_leases(&network.name) {
        let subnet = network.subnets.iter().find(|one| one.subnet.contains(lease.address));
        let Some(subnet) = subnet else { continue };
        let ipnet = format!("{}/{}", lease.address, subnet.subnet.prefix());
        let (_, nets) = all.entry(lease.id).or_insert_with(|| (lease.name, Vec::new()));
        nets.push(json!({ "ipnet": ipnet, "gateway": subnet.gateway }));
    }
    let device = |id: &str| {
        let record = id.parse::<ContainerId>().ok().and_then(|id| engine.containers.record(&id).ok())?;
        let memberships = &record.config.net.memberships;
        let at = memberships.iter().position(|one| one.network == network.name)?;
        let name = memberships[at].interface.clone().unwrap_or_else(|| format!("eth{at}"));
        Some((name, mac_of(&record, &memberships[at]).to_string()))
    };
    all.into_iter()
        .map(|(id, (name, nets))| {
            let (device, mac) = device(&id).unwrap_or_else(|| ("eth0".into(), String::new()));
            let interfaces = json!({ device: { "subnets": nets, "mac_address": mac } });
            (id, json!({ "name": name, "interfaces": interfaces }))
        })
        .collect()
}

/// A network as a template sees it.
fn row(engine: &Engine, network: &NetworkRecord, truncate: bool) -> Value {
    let id = network.id();
    let subnets: Vec<Value> = network
        .subnets
        .iter()
        .map(|one| {
            let range = one.range.map(|(first, last)| json!({ "StartIP": first, "EndIP": last }));
            json!({ "Subnet": one.subnet, "Gateway": one.gateway, "LeaseRange": range })
        })
        .collect();
    json!({
        "ID": if truncate { &id[..12] } else { &id },
        "Name": network.name,
        "Driver": "bridge",
        "NetworkInterface": network.bridge,
        "Created": time::go(timestamp(network.created), &TimeZone::system()),
        "Subnets": subnets,
        "IPv6Enabled": network.has_ipv6(),
        "Internal": network.internal,
        "DNSEnabled": network.dns,
        "NetworkDNSServers": network.servers,
        "Labels": network.labels,
        "Options": network.options,
        "IPAMOptions": { "driver": "host-local" },
        "Containers": containers(engine, network),
    })
}

/// `network inspect`. Podman's exit code for one that is not there is 125.
pub fn inspect(args: InspectArgs, globals: &Globals) -> Outcome {
    let engine = globals.engine()?;
    let (found, code) = super::selection::shown(&args.networks, |name| {
        let network = engine.find_network(name)?;
        Ok::<_, Error>(details(&engine, &network, args.format.as_deref()))
    });
    output::print(&output::values(args.format.as_deref(), found)?)?;
    Ok(code)
}

enum Filter {
    Dangling(bool),
    Driver(String),
    Id(String),
    Label(String, Option<String>, bool),
    Name(regex::Regex),
    /// Made before this moment, in nanoseconds since 1970.
    Until(i128),
}

impl Filter {
    fn parse(text: &str, prune: bool) -> Result<Self, Failure> {
        let bad = |why: &str| Failure::new(format!("--filter \"{text}\": {why}"));
        let (key, value) = text.split_once('=').ok_or_else(|| bad("it takes KEY=VALUE"))?;
        Ok(match key {
            "label" | "label!" => {
                let (label, wanted) = match value.split_once('=') {
                    Some((label, wanted)) => (label, Some(wanted.to_owned())),
                    None => (value, None),
                };
                Self::Label(label.to_owned(), wanted, key == "label")
            }
            "until" => {
                let point = time::parse_point(value, jiff::Timestamp::now(), &TimeZone::system());
                Self::Until(point.map_err(|error| bad(&error.to_string()))?.as_nanosecond())
            }
            _ if prune => return Err(bad("there is no such filter")),
            "dangling" => Self::Dangling(value.parse().map_err(|_| bad("it takes true or false"))?),
            "driver" => Self::Driver(value.to_owned()),
            "id" => Self::Id(value.to_owned()),
            "name" => Self::Name(regex::Regex::new(value).map_err(|_| bad("it takes a regular expression"))?),
            _ => return Err(bad("there is no such filter")),
        })
    }

    fn fits(&self, network: &NetworkRecord, used: bool) -> bool {
        match self {
            Self::Dangling(wanted) => *wanted != (used || network.name == DEFAULT_NETWORK),
            Self::Driver(name) => name == "bridge",
            Self::Id(prefix) => network.id().starts_with(prefix.as_str()),
            Self::Label(key, None, there) => network.labels.contains_key(key) == *there,
            Self::Label(key, Some(value), there) => (network.labels.get(key) == Some(value)) == *there,
            Self::Name(pattern) => pattern.is_match(&network.name),
            Self::Until(moment) => i128::from(network.created) < *moment,
        }
    }
}

fn chosen(engine: &Engine, filters: &[String], prune: bool) -> Result<Vec<NetworkRecord>, Failure> {
    let mut filters = filters.iter().map(|text| Filter::parse(text, prune)).collect::<Result<Vec<_>, _>>()?;
    filters.extend(prune.then_some(Filter::Dangling(true)));
    let by_use = filters.iter().any(|filter| matches!(filter, Filter::Dangling(_)));
    let users = if by_use { engine.network_users()? } else { BTreeMap::new() };
    let mut networks = engine.networks().list().map_err(Error::from)?;
    networks.retain(|network| {
        filters.iter().all(|filter| filter.fits(network, users.contains_key(&network.name)))
    });
    Ok(networks)
}

/// `network ls`.
pub fn ls(args: LsArgs, globals: &Globals) -> Outcome {
    if args.quiet && args.format.is_some() {
        return Err(Failure::new("quiet and format cannot be used together"));
    }
    const LISTING: Listing<'_> = Listing {
        default: "{{.ID}}\t{{.Name}}\t{{.Driver}}",
        headers: &[("ID", "NETWORK ID"), ("IPv6Enabled", "IPV6 ENABLED"), ("DNSEnabled", "DNS ENABLED")],
    };
    let engine = globals.engine()?;
    let networks = chosen(&engine, &args.filter, false)?;
    if args.quiet {
        output::print(&networks.iter().map(|network| network.name.clone() + "\n").collect::<String>())?;
        return Ok(0);
    }
    let json = args.format.as_deref() == Some("json");
    let one = |network: &NetworkRecord| {
        if json {
            return json_of(&engine, network);
        }
        let labels: Vec<String> =
            network.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let mut row = row(&engine, network, !args.no_trunc);
        row["Labels"] = labels.join(",").into();
        row
    };
    let rows: Vec<Value> = networks.iter().map(one).collect();
    output::print(&LISTING.render(args.format.as_deref(), !args.noheading, &rows)?)?;
    Ok(0)
}

/// `network prune`: prints the names of what it removed.
pub fn prune(args: PruneArgs, globals: &Globals) -> Outcome {
    if !args.force && !prune::confirmed("all networks that no container uses")? {
        return Ok(0);
    }
    for name in prune_those(&globals.engine()?, &args.filter)? {
        output::println(&name)?;
    }
    Ok(0)
}

/// Removes the networks that no container uses and that fit. Returns their names.
pub(super) fn prune_those(engine: &Engine, filters: &[String]) -> Result<Vec<String>, Failure> {
    let mut removed = Vec::new();
    for network in chosen(engine, filters, true)? {
        match engine.remove_network(&network.name) {
            Ok(()) => removed.push(network.name),
            // Taken into use, or removed, since they were listed.
            Err(Error::Network(NetworkError::InUse { .. } | NetworkError::Unknown(_))) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(removed)
}

/// `network rm`. Podman's exit codes: 1 for a network that is not there, 2 for one that is in use.
pub fn rm(args: RmArgs, globals: &Globals) -> Outcome {
    let engine = globals.engine()?;
    super::selection::for_each(&args.networks, |name| {
        let result = engine.find_network(name).and_then(|network| {
            if args.force && network.name != DEFAULT_NETWORK {
                for user in engine.network_users()?.remove(&network.name).unwrap_or_default() {
                    engine.remove(&user, true, args.time)?;
                }
            }
            engine.remove_network(&network.name)?;
            Ok(network.name)
        });
        match result {
            Ok(name) => Ok(Some(name)),
            Err(Error::Network(NetworkError::Unknown(_))) if args.force => Ok(None),
            Err(error) => {
                let code = match &error {
                    Error::Network(NetworkError::Unknown(_)) => 1,
                    Error::Network(NetworkError::InUse { .. }) => 2,
                    error => error.exit_code(),
                };
                Err(Failure::from(error).with_code(code))
            }
        }
    })
}

/// `network connect`.
pub fn connect(args: ConnectArgs, globals: &Globals) -> Outcome {
    let engine = globals.engine()?;
    let bad = |flag: &str, value: &str, why: &str| Failure::new(format!("--{flag} \"{value}\": {why}"));
    let mut membership =
        Membership { network: engine.find_network(&args.network)?.name, ..Membership::default() };
    for name in &args.alias {
        membership.aliases.push(alias(name).map_err(|why| bad("alias", name, &why))?);
    }
    if let Some(text) = &args.ip {
        membership.ip = Some(text.parse().map_err(|_| bad("ip", text, "it is no IPv4 address"))?);
    }
    if let Some(text) = &args.ip6 {
        membership.ip6 = Some(text.parse().map_err(|_| bad("ip6", text, "it is no IPv6 address"))?);
    }
    if let Some(text) = &args.mac_address {
        membership.mac = Some(text.parse().map_err(|why: &str| bad("mac-address", text, why))?);
    }
    engine.connect(&args.container, membership)?;
    Ok(0)
}

/// `network disconnect`.
pub fn disconnect(args: DisconnectArgs, globals: &Globals) -> Outcome {
    let engine = globals.engine()?;
    let network = engine.find_network(&args.network)?.name;
    match engine.disconnect(&args.container, &network) {
        Err(Error::Network(NetworkError::Connect { .. })) if args.force => Ok(0),
        other => other.map(|()| 0).map_err(Into::into),
    }
}

/// `network update`.
pub fn update(args: UpdateArgs, globals: &Globals) -> Outcome {
    let engine = globals.engine()?;
    let network = engine.find_network(&args.network)?.name;
    let addresses = |flag: &str, list: &[String]| {
        let parse = |text: &String| {
            text.parse::<IpAddr>()
                .map_err(|_| Failure::new(format!("--{flag} \"{text}\": it is no IP address")))
        };
        list.iter().map(parse).collect::<Result<Vec<_>, _>>()
    };
    let (add, drop) = (addresses("dns-add", &args.dns_add)?, addresses("dns-drop", &args.dns_drop)?);
    if add.is_empty() && drop.is_empty() {
        return Err(Failure::new("nothing is to be changed").with_hint("see umiak network update --help"));
    }
    engine.update_network(&network, &add, &drop)?;
    Ok(0)
}

/// `network reload`: a container's network is its relay's and nobody else's, so that nothing of the host's can
/// take it away; but the host may have other name servers or another address by now. Prints the containers' IDs,
/// as Podman.
pub fn reload(args: ReloadArgs, globals: &Globals) -> Outcome {
    let engine = globals.engine()?;
    if args.all && (args.latest || !args.containers.is_empty()) || args.latest && !args.containers.is_empty()
    {
        return Err(Failure::new("name containers, or ask for --all or --latest"));
    }
    let names: Vec<String> = if args.all {
        let listed = engine.list(&crate::engine::list::ListOptions::default())?.0;
        listed.iter().map(|one| one.record.id.to_string()).collect()
    } else if args.latest {
        let options = crate::engine::list::ListOptions { last: Some(1), ..Default::default() };
        engine.list(&options)?.0.iter().map(|one| one.record.id.to_string()).collect()
    } else {
        args.containers.clone()
    };
    if names.is_empty() && !args.all {
        return Err(Failure::new("name containers, or ask for --all or --latest"));
    }
    super::selection::for_each(&names, |name| {
        let record = engine.reload_network(name)?;
        Ok(Some(record.id.to_string()))
    })
}
