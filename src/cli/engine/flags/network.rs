//! The container's network.

use clap::Args;

use crate::engine::request::RunRequest;

/// The container's network.
#[derive(Args, Debug, Clone)]
pub struct Network {
    /// The container's network: default, fast (connections are the host's own sockets: faster, less isolated), none, host, container:NAME, ns:PATH, or networks by name; with options, NAME:ip=ADDRESS,alias=NAME
    #[arg(long, value_name = "MODE|NAME[:OPTION,…]", visible_alias = "net")]
    network: Vec<String>,
    /// Lead a port of the host into the container: 8080:80, 127.0.0.1:5353:53/udp, 8000-8010:8000-8010
    #[arg(short, long, value_name = "[[ADDRESS:][PORT]:]PORT[/PROTOCOL]")]
    publish: Vec<String>,
    /// Lead ports of the host to all that are exposed
    #[arg(
        short = 'P',
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    publish_all: Option<bool>,
    /// Say that the program listens there
    #[arg(long, value_name = "PORT[-PORT][/PROTOCOL]")]
    expose: Vec<String>,
    /// Its IPv4 address in the network
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<String>,
    /// Its IPv6 address in the network
    #[arg(long, value_name = "ADDRESS")]
    ip6: Option<String>,
    /// Its hardware address
    #[arg(long, value_name = "ADDRESS")]
    mac_address: Option<String>,
    /// Another name of it in its networks
    #[arg(long, value_name = "NAME", alias = "net-alias")]
    network_alias: Vec<String>,
    /// Ask this name server, or leave /etc/resolv.conf the image's: none
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<String>,
    /// Search names in this domain; "." for none
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// An option of resolv.conf
    #[arg(long, value_name = "OPTION", alias = "dns-opt")]
    dns_option: Vec<String>,
    /// What may go out: allow=LIST, deny=LIST, resolve=LIST of names, addresses and subnets with :PORT
    #[arg(long, value_name = "RULE=WHERE[,WHERE…]")]
    egress: Vec<String>,
}

impl Network {
    /// Writes what was asked for into `request`.
    pub fn fill(&self, request: &mut RunRequest) {
        let this = self.clone();
        request.networks = this.network;
        request.publish = this.publish;
        request.publish_all = this.publish_all.unwrap_or(false);
        request.expose = this.expose;
        request.ip = this.ip;
        request.ip6 = this.ip6;
        request.mac_address = this.mac_address;
        request.network_aliases = this.network_alias;
        request.dns = this.dns;
        request.dns_search = this.dns_search;
        request.dns_options = this.dns_option;
        request.egress = this.egress;
    }
}
