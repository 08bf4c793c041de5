//! `container exists`, `image exists`, `volume exists`: the exit code is the answer.

use clap::Args;

use super::selection::is_missing;
use super::{Globals, Outcome};
use crate::engine;

/// Tell by the exit code whether a container is there.
#[derive(Args, Debug, Clone)]
pub struct ContainerArgs {
    /// Look for containers of other programs in the store, too, of which there are none
    #[arg(long)]
    external: bool,
    /// The container, by name or ID
    container: String,
}

/// Tell by the exit code whether an image is there.
#[derive(Args, Debug, Clone)]
pub struct ImageArgs {
    /// The image, by name or ID
    image: String,
}

/// Tell by the exit code whether a volume is there.
#[derive(Args, Debug, Clone)]
pub struct VolumeArgs {
    /// The volume's name
    volume: String,
}

/// Tell by the exit code whether a network is there.
#[derive(Args, Debug, Clone)]
pub struct NetworkArgs {
    /// The network's name
    network: String,
}

/// `network exists`: 0 or 1.
pub fn network(args: NetworkArgs, globals: &Globals) -> Outcome {
    match globals.engine()?.find_network(&args.network) {
        Ok(_) => Ok(0),
        Err(engine::Error::Network(engine::network::Error::Unknown(_))) => Ok(1),
        Err(error) => Err(error.into()),
    }
}

/// `container exists`: 0 or 1.
pub fn container(args: ContainerArgs, globals: &Globals) -> Outcome {
    let _ = args.external;
    match globals.engine()?.lookup(&args.container) {
        Ok(_) => Ok(0),
        Err(error) if is_missing(&error) => Ok(1),
        Err(error) => Err(error.into()),
    }
}

/// `image exists`: 0 or 1.
pub fn image(args: ImageArgs, globals: &Globals) -> Outcome {
    let engine = globals.engine()?;
    let found = engine::images::inspect(&engine.store, &args.image).map_err(engine::Error::from)?;
    Ok(u8::from(found.is_none()))
}

/// `volume exists`: 0 or 1.
pub fn volume(args: VolumeArgs, globals: &Globals) -> Outcome {
    match globals.engine()?.volume(&args.volume) {
        Ok(_) => Ok(0),
        Err(engine::Error::NoVolume(_)) => Ok(1),
        Err(error) => Err(error.into()),
    }
}
