//! The flags of `build` that say what each `RUN` gets: its limits, its network, its rights.

use clap::{ArgAction, Args};

use super::super::Failure;
use super::limits::Limits;
use crate::engine::build::request::Allowed;
use crate::engine::request::RunRequest;

/// What each `RUN` gets.
#[derive(Args, Debug, Clone)]
pub struct Running {
    #[command(flatten)]
    limits: Limits,
    /// Mount a directory of the host or a named volume for RUN
    #[arg(short, long, value_name = "[SOURCE:]DIR[:OPTIONS]")]
    volume: Vec<String>,
    /// Let the Dockerfile do what reaches beyond its containers: network.host, security.insecure
    #[arg(long, value_name = "WHAT", value_delimiter = ',')]
    allow: Vec<String>,
    /// Mount something for RUN, told in full
    #[arg(long, value_name = "type=TYPE,…")]
    mount: Vec<String>,
    /// The size of /dev/shm
    #[arg(long, value_name = "SIZE")]
    shm_size: Option<String>,
    /// Give RUN a device of the host
    #[arg(long, value_name = "DEVICE[:PLACE][:rwm]")]
    device: Vec<String>,
    /// RUN's network: default, none, host, or a network by name
    #[arg(long, value_name = "MODE|NAME", visible_alias = "net")]
    network: Option<String>,
    /// Ask this name server, or leave /etc/resolv.conf the image's: none
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<String>,
    /// Search names in this domain; "." for none
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// An option of resolv.conf
    #[arg(long, value_name = "OPTION", alias = "dns-opt")]
    dns_option: Vec<String>,
    /// Add a line to /etc/hosts
    #[arg(long, value_name = "NAME[;NAME…]:ADDRESS")]
    add_host: Vec<String>,
    /// Leave the image its own /etc/hosts
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    no_hosts: Option<bool>,
    /// Leave the image its own /etc/hostname
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    no_hostname: Option<bool>,
    /// Pass on the variables that name proxies; they are not kept in the image
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "true",
        default_missing_value = "true", action = ArgAction::Set)]
    http_proxy: bool,
    /// Grant a capability
    #[arg(long, value_name = "CAPABILITY")]
    cap_add: Vec<String>,
    /// Take a capability away
    #[arg(long, value_name = "CAPABILITY")]
    cap_drop: Vec<String>,
    /// no-new-privileges, seccomp=FILE|unconfined, mask=PATHS, unmask=PATHS|ALL
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,
    /// A resource limit of RUN's processes
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    ulimit: Vec<String>,
    /// A further group of RUN's user, by name or ID; or keep-groups for our own
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<String>,
    /// The user namespace: host, private, auto or ns:PATH
    #[arg(long, value_name = "MODE")]
    userns: Option<String>,
    /// Map user IDs
    #[arg(long, value_name = "CONTAINER:FROM[:COUNT]")]
    userns_uid_map: Vec<String>,
    /// Map group IDs
    #[arg(long, value_name = "CONTAINER:FROM[:COUNT]")]
    userns_gid_map: Vec<String>,
    /// Map the subordinate user IDs of this name in /etc/subuid
    #[arg(long, value_name = "NAME")]
    userns_uid_map_user: Option<String>,
    /// Map the subordinate group IDs of this name in /etc/subgid
    #[arg(long, value_name = "NAME")]
    userns_gid_map_group: Option<String>,
    /// The pid namespace: private, host or ns:PATH
    #[arg(long, value_name = "MODE")]
    pid: Option<String>,
    /// The ipc namespace: private, host or ns:PATH
    #[arg(long, value_name = "MODE")]
    ipc: Option<String>,
    /// The uts namespace: private, host or ns:PATH
    #[arg(long, value_name = "MODE")]
    uts: Option<String>,
    /// The cgroup namespace: private, host or ns:PATH
    #[arg(long, value_name = "MODE")]
    cgroupns: Option<String>,
}

/// What buildah calls a namespace of its own.
fn mode(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
        .map(|text| if text == "container" { "private".to_owned() } else { text })
}

impl Running {
    /// What a Dockerfile may ask for.
    pub fn allowed(&self) -> Result<Vec<Allowed>, Failure> {
        let allowed = |word: &String| {
            Allowed::of_word(word).ok_or_else(|| {
                Failure::new(format!("--allow \"{word}\": it takes network.host and security.insecure"))
            })
        };
        self.allow.iter().map(allowed).collect()
    }

    /// What they ask for, for every `RUN`.
    pub fn request(&self) -> RunRequest {
        let mut request = RunRequest { passwd: true, read_only_tmpfs: true, ..RunRequest::default() };
        self.limits.fill(&mut request);
        let this = self.clone();
        request.volumes = this.volume;
        request.mounts = this.mount;
        request.shm_size = this.shm_size;
        request.devices = this.device;
        request.networks = mode(this.network).into_iter().collect();
        request.dns = this.dns;
        request.dns_search = this.dns_search;
        request.dns_options = this.dns_option;
        request.add_hosts = this.add_host;
        request.no_hosts = this.no_hosts.unwrap_or(false);
        request.no_hostname = this.no_hostname.unwrap_or(false);
        request.http_proxy = this.http_proxy;
        request.cap_add = this.cap_add;
        request.cap_drop = this.cap_drop;
        request.security_opt = this.security_opt;
        request.ulimits = this.ulimit;
        request.group_add = this.group_add;
        let own = this.userns.as_deref().is_some_and(|text| matches!(text, "" | "container" | "private"));
        let mapped = [&this.userns_uid_map, &this.userns_gid_map].iter().any(|maps| !maps.is_empty())
            || this.userns_uid_map_user.is_some();
        // An ordinary user's containers have one of their own anyway.
        let anyway = own && !mapped && !rustix::process::geteuid().is_root();
        request.userns = mode(this.userns).filter(|_| !anyway);
        request.uidmaps = this.userns_uid_map;
        request.gidmaps = this.userns_gid_map;
        request.subuidname = this.userns_uid_map_user;
        request.subgidname = this.userns_gid_map_group;
        request.pid = mode(this.pid);
        request.ipc = mode(this.ipc);
        request.uts = mode(this.uts);
        request.cgroupns = mode(this.cgroupns);
        request
    }
}
