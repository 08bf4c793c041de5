//! Namespaces, and what belongs to one.

use clap::Args;

use crate::engine::request::RunRequest;

/// Namespaces, and what belongs to one.
#[derive(Args, Debug, Clone)]
pub struct Namespaces {
    /// The pid namespace: private, host, container:NAME or ns:PATH
    #[arg(long, value_name = "MODE")]
    pid: Option<String>,
    /// The ipc namespace: private, shareable, none, host, container:NAME or ns:PATH
    #[arg(long, value_name = "MODE")]
    ipc: Option<String>,
    /// The uts namespace: private, host, container:NAME or ns:PATH
    #[arg(long, value_name = "MODE")]
    uts: Option<String>,
    /// The cgroup namespace: private, host, container:NAME or ns:PATH
    #[arg(long, value_name = "MODE")]
    cgroupns: Option<String>,
    /// The container's host name
    #[arg(short, long, value_name = "NAME")]
    hostname: Option<String>,
    /// The container's NIS domain name
    #[arg(long, value_name = "NAME")]
    domainname: Option<String>,
    /// Add a line to /etc/hosts
    #[arg(long, value_name = "NAME[;NAME…]:ADDRESS")]
    add_host: Vec<String>,
    /// What /etc/hosts is made of: a file, none or image
    #[arg(long, value_name = "FILE")]
    hosts_file: Option<String>,
    /// Leave the image its own /etc/hosts
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    no_hosts: Option<bool>,
    /// Leave the image its own /etc/hostname
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    no_hostname: Option<bool>,
    /// A kernel parameter of the container's namespaces
    #[arg(long, value_name = "NAME=VALUE")]
    sysctl: Vec<String>,
}

impl Namespaces {
    /// Writes what was asked for into `request`.
    pub fn fill(&self, request: &mut RunRequest) {
        let this = self.clone();
        request.pid = this.pid;
        request.ipc = this.ipc;
        request.uts = this.uts;
        request.cgroupns = this.cgroupns;
        request.hostname = this.hostname;
        request.domainname = this.domainname;
        request.add_hosts = this.add_host;
        request.hosts_file = this.hosts_file;
        request.no_hosts = this.no_hosts.unwrap_or(false);
        request.no_hostname = this.no_hostname.unwrap_or(false);
        request.sysctls = this.sysctl;
    }
}
