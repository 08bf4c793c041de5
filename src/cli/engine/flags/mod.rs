//! The flags of `run` and `create`, by what they are about.

pub mod build;
pub mod build_refused;
pub mod build_run;
mod image;
mod life;
pub mod limits;
mod mounting;
mod namespaces;
mod network;
mod program;
mod refused;
mod security;
mod users;

use clap::Args;

use crate::engine::request::RunRequest;

/// All of them.
#[derive(Args, Debug, Clone)]
pub struct Flags {
    #[command(flatten)]
    life: life::Life,
    #[command(flatten)]
    program: program::Program,
    #[command(flatten)]
    users: users::Users,
    #[command(flatten)]
    mounting: mounting::Mounting,
    #[command(flatten)]
    namespaces: namespaces::Namespaces,
    #[command(flatten)]
    network: network::Network,
    #[command(flatten)]
    security: security::Security,
    #[command(flatten)]
    limits: limits::Limits,
    /// Where the image comes from.
    #[command(flatten)]
    pub image: image::Image,
    /// What is refused.
    #[command(flatten)]
    pub refused: refused::Refused,
}

impl Flags {
    /// What they ask for.
    pub fn request(&self) -> RunRequest {
        let mut request = RunRequest::default();
        self.life.fill(&mut request);
        self.program.fill(&mut request);
        self.users.fill(&mut request);
        self.mounting.fill(&mut request);
        self.namespaces.fill(&mut request);
        self.network.fill(&mut request);
        self.security.fill(&mut request);
        self.limits.fill(&mut request);
        request
    }
}
