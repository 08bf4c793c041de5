//! Flags of Podman and Docker of which only the value that asks for nothing is known here.

use clap::Args;

use super::super::Failure;

/// Flags that can only be told what is so anyway.
#[derive(Args, Debug, Clone)]
pub struct Refused {
    /// Whether systemd is expected in the container: only false
    #[arg(long, value_name = "HOW", hide = true)]
    systemd: Option<String>,
    /// Who tells a service manager of readiness: only ignore
    #[arg(long, value_name = "WHO", hide = true)]
    sdnotify: Option<String>,
    /// Docker's old links
    #[arg(long, value_name = "CONTAINER[:ALIAS]", hide = true)]
    link: Vec<String>,
}

impl Refused {
    /// Refuses what cannot be had.
    pub fn check(&self) -> Result<(), Failure> {
        let only = |name: &str, value: &Option<String>, known: &str| match value.as_deref() {
            Some(value) if value != known => {
                Err(Failure::new(format!("--{name} \"{value}\" is not supported yet")))
            }
            _ => Ok(()),
        };
        only("systemd", &self.systemd, "false")?;
        only("sdnotify", &self.sdnotify, "ignore")?;
        match self.link.first() {
            Some(link) => Err(Failure::new(format!("--link \"{link}\": there are no links"))
                .with_hint("containers of one network find each other by name: --network NAME for both")),
            None => Ok(()),
        }
    }
}
