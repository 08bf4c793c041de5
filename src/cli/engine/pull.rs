//! stub
#[derive(clap::Args, Debug, Clone)]
pub struct PullArgs {}
pub fn run(_: PullArgs, _: &super::Globals) -> super::Outcome {
    Ok(0)
}
