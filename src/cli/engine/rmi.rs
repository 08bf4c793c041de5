//! stub
#[derive(clap::Args, Debug, Clone)]
pub struct RmiArgs {}
pub fn run(_: RmiArgs, _: &super::Globals) -> super::Outcome {
    Ok(0)
}
