pub fn main(_: Vec<std::ffi::OsString>) -> std::process::ExitCode {
    0.into()
}
