//! stub
#[derive(clap::Args, Debug, Clone)]
pub struct ImagesArgs {}
pub fn run(_: ImagesArgs, _: &super::Globals) -> super::Outcome {
    Ok(0)
}
