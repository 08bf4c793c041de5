//! `build`.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::access::{Access, Retry};
use super::flags::build::{Cache, Description, Sources};
use super::flags::build_refused::RefusedOfBuild;
use super::flags::build_run::Running;
use super::{Failure, Globals, Outcome};
use crate::base::report;
use crate::cli::{output, progress};
use crate::engine::attach::Outputs;
use crate::engine::build::output::{HandOut, Output};
use crate::engine::build::request::{BuildRequest, CacheUse, ContextSource, Squash, Times};
use crate::engine::build::{Face, Told};
use crate::engine::export::Archive;
use crate::engine::images::{PullOptions, PullPolicy};
use crate::engine::lists::AddOptions;
use crate::engine::{self, Engine, commit};
use crate::image::PushOptions;
use crate::image::rewrite::Form;
use crate::storage::ImageRecord;

/// Build an image out of a Dockerfile.
#[derive(Args, Debug, Clone)]
pub struct BuildArgs {
    #[command(flatten)]
    sources: Sources,
    #[command(flatten)]
    description: Description,
    #[command(flatten)]
    cache: Cache,
    #[command(flatten)]
    results: Results,
    #[command(flatten)]
    bases: Bases,
    #[command(flatten)]
    running: Running,
    #[command(flatten)]
    refused: RefusedOfBuild,
    /// Where COPY and ADD take files from: a directory, - for an archive (or a Dockerfile) on standard input, or an
    /// address of one
    #[arg(value_name = "CONTEXT")]
    context: Option<String>,
}

/// What becomes of the image, and what is told.
#[derive(Args, Debug, Clone)]
struct Results {
    /// The image's name; several may be given
    #[arg(short, long, value_name = "NAME[:TAG]")]
    tag: Vec<String>,
    /// Add the image to this manifest list, which is made if it is not there
    #[arg(long, value_name = "NAME")]
    manifest: Option<String>,
    /// Give the image out, too: a directory for its files, - for an archive of them, or
    /// type=local|tar|oci|docker|image with dest=PATH or name=NAME
    #[arg(short, long, value_name = "WHERE")]
    output: Vec<String>,
    /// Push the image to where its names say
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    push: Option<bool>,
    /// How to compress what goes out: gzip or zstd
    #[arg(long, value_name = "FORMAT")]
    compression_format: Option<String>,
    /// How hard to compress: 1 to 9
    #[arg(long, value_name = "LEVEL")]
    compression_level: Option<u32>,
    /// Compress anew what is compressed in another way than --compression-format says
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    force_compression: Option<bool>,
    /// Write the image's ID to this file
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,
    /// The same, without the "sha256:" before it
    #[arg(long, value_name = "FILE")]
    iidfile_raw: Option<PathBuf>,
    /// Write the image's ID, digest and names to this file, as JSON
    #[arg(long, value_name = "FILE")]
    metadata_file: Option<PathBuf>,
    /// Write what is told, and the output of RUN, to this file
    #[arg(long, value_name = "FILE")]
    logfile: Option<PathBuf>,
    /// Tell nothing but the ID
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    quiet: Option<bool>,
    /// How it is told: auto, plain or quiet
    #[arg(long, value_name = "HOW")]
    progress: Option<String>,
}

/// Where base images come from.
#[derive(Args, Debug, Clone)]
struct Bases {
    /// When to pull base images: missing (the default), always, newer or never; without a value: always
    #[arg(long, value_name = "POLICY", num_args = 0..=1, require_equals = true, default_missing_value = "always")]
    pull: Option<String>,
    /// As --pull=always
    #[arg(long, hide = true, conflicts_with = "pull")]
    pull_always: bool,
    /// As --pull=never
    #[arg(long, hide = true, conflicts_with_all = ["pull", "pull_always"])]
    pull_never: bool,
    /// Build for this platform: OS/ARCH[/VARIANT]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Build for this architecture
    #[arg(long, value_name = "ARCH")]
    arch: Option<String>,
    /// Build for this operating system
    #[arg(long, value_name = "OS")]
    os: Option<String>,
    /// Build for this variant of the architecture
    #[arg(long, value_name = "VARIANT")]
    variant: Option<String>,
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    retry: Retry,
    /// The policy that says which images may be pulled
    #[arg(long, value_name = "FILE", hide = true)]
    signature_policy: Option<PathBuf>,
}

impl Bases {
    fn policy(&self) -> Result<PullPolicy, Failure> {
        match self.pull.as_deref() {
            _ if self.pull_always => Ok(PullPolicy::Always),
            _ if self.pull_never => Ok(PullPolicy::Never),
            // Docker's word for what is so anyway; `run` has another meaning for it.
            None | Some("false") => Ok(PullPolicy::Missing),
            Some(text) => text.parse().map_err(Failure::new),
        }
    }

    fn options(&self) -> Result<PullOptions, Failure> {
        if let Some(several) = self.platform.as_deref().filter(|platform| platform.contains(',')) {
            return Err(Failure::new(format!(
                "--platform \"{several}\": several platforms are not supported yet"
            ))
            .with_hint("build for each, with --manifest NAME, which puts them into one list"));
        }
        let this = self.clone();
        let options = PullOptions {
            platform: this.platform.filter(|platform| !platform.is_empty()),
            os: this.os,
            arch: this.arch,
            variant: this.variant,
            reach: this.access.reach(Some(&self.retry))?,
            signature_policy: this.signature_policy,
        };
        options.platform().map_err(engine::Error::from)?;
        Ok(options)
    }
}

/// Why programs of this architecture do not run here; `None` if they do.
fn foreign(architecture: &str) -> Option<String> {
    let name = crate::image::manifest::go_architecture(architecture);
    let own = crate::image::manifest::own_architecture();
    let runs_anyway = [("amd64", "386"), ("arm64", "arm")].contains(&(own, name));
    // The number of the machine in an ELF header (elf(5), `e_machine`).
    let machine: u16 = match name {
        "386" => 3,
        "mips" | "mipsle" | "mips64" | "mips64le" => 8,
        "ppc64" | "ppc64le" => 21,
        "s390x" => 22,
        "arm" => 40,
        "amd64" => 62,
        "arm64" => 183,
        "riscv64" => 243,
        "loong64" => 258,
        _ => return None,
    };
    if name == own || runs_anyway || is_emulated(machine) {
        return None;
    }
    Some(format!(
        "nothing here runs programs for {name}: RUN will fail; qemu-user-static (or binfmt-support with it) makes \
         this machine run them"
    ))
}

/// Whether the kernel knows an interpreter for programs of this machine (binfmt_misc).
fn is_emulated(machine: u16) -> bool {
    let Ok(entries) = std::fs::read_dir("/proc/sys/fs/binfmt_misc") else { return false };
    let texts = entries.flatten().filter_map(|entry| std::fs::read_to_string(entry.path()).ok());
    texts.into_iter().any(|text| interprets(&text, machine))
}

/// Whether an entry of binfmt_misc is for ELF files of this machine.
fn interprets(entry: &str, machine: u16) -> bool {
    let Some(magic) = entry.lines().find_map(|line| line.strip_prefix("magic ")) else { return false };
    let byte = |at: usize| magic.get(2 * at..2 * at + 2).and_then(|text| u8::from_str_radix(text, 16).ok());
    let (Some(first), Some(second), Some(order)) = (byte(18), byte(19), byte(5)) else { return false };
    // The fifth byte says which byte comes first.
    let found =
        if order == 2 { u16::from_be_bytes([first, second]) } else { u16::from_le_bytes([first, second]) };
    entry.starts_with("enabled") && magic.starts_with("7f454c46") && found == machine
}

impl BuildArgs {
    fn request(&self, globals: &Globals) -> Result<BuildRequest, Failure> {
        let mut request = BuildRequest {
            context: ContextSource::Stdin,
            files: Vec::new(),
            ignore_file: None,
            contexts: Vec::new(),
            args: Vec::new(),
            from: None,
            target: None,
            tags: self.results.tag.clone(),
            labels: Vec::new(),
            annotations: Vec::new(),
            unset_annotations: Vec::new(),
            env: Vec::new(),
            unset_env: Vec::new(),
            unset_labels: Vec::new(),
            inherit_labels: true,
            inherit_annotations: true,
            identity_label: true,
            created_annotation: true,
            format: Form::Oci,
            run: self.running.request(),
            pull: self.bases.policy()?,
            pull_options: self.bases.options()?,
            cache: CacheUse { read: true, ttl: None },
            squash: Squash::None,
            omit_history: false,
            times: Times::default(),
            secrets: Vec::new(),
            ssh: Vec::new(),
            skip_unused_stages: true,
            allow: self.running.allowed()?,
            stdin: false,
        };
        self.sources.fill(self.context.as_deref(), &mut request)?;
        self.description.fill(&mut request)?;
        self.cache.fill(&mut request)?;
        request.run.limits.manager = globals.manager;
        request.run.create_command = globals.command_line.clone();
        request.run.check()?;
        Ok(request)
    }
}

impl Results {
    /// Whether only the ID is told.
    fn quiet(&self) -> Result<bool, Failure> {
        match self.progress.as_deref() {
            None | Some("auto" | "plain" | "") => Ok(self.quiet.unwrap_or(false)),
            Some("quiet") => Ok(true),
            Some(other) => Err(Failure::new(format!("--progress \"{other}\" is not supported yet"))
                .with_hint("there are auto, plain and quiet")),
        }
    }

    /// What becomes of the image; the names that it gets in addition go to `tags`.
    fn outputs(&self, tags: &mut Vec<String>) -> Result<Vec<Output>, Failure> {
        let parsed = self.output.iter().map(|text| Output::parse(text));
        let mut outputs = parsed.collect::<Result<Vec<_>, _>>().map_err(|error| put(&error))?;
        for output in &outputs {
            if let Output::Image { names, .. } = output {
                tags.extend(names.iter().cloned());
            }
        }
        let pushed = |output: &Output| matches!(output, Output::Image { push: true, .. });
        if self.push.unwrap_or(false) && !outputs.iter().any(pushed) {
            outputs.push(Output::Image { names: Vec::new(), push: true });
        }
        if outputs.iter().any(pushed) && tags.is_empty() {
            return Err(Failure::new("pushing the image: it has no name")
                .with_hint("--tag REGISTRY/NAME gives it one"));
        }
        let streams = outputs.iter().filter(|output| output.is_stdout()).count();
        if streams > 1 {
            return Err(Failure::new("--output: only one can go to standard output"));
        }
        if streams == 1 && std::io::stdout().is_terminal() {
            return Err(Failure::new("an archive is not written to a terminal")
                .with_hint("name a file, or redirect the output"));
        }
        Ok(outputs)
    }

    fn push_options(&self, outputs: &[Output]) -> Result<PushOptions, Failure> {
        let compression =
            super::push::compression(self.compression_format.as_deref(), self.compression_level)?;
        let goes_out = |output: &Output| {
            matches!(output, Output::Image { push: true, .. } | Output::Archive(..) | Output::Layout(_))
        };
        let told = compression.is_some() || self.force_compression.is_some();
        if told && !outputs.iter().any(goes_out) {
            let flag = match (&self.compression_format, self.compression_level) {
                (Some(_), _) => "--compression-format",
                (None, Some(_)) => "--compression-level",
                (None, None) => "--force-compression",
            };
            return Err(Failure::new(format!("{flag}: layers in the store are not compressed"))
                .with_hint("it is for --push and --output type=oci"));
        }
        Ok(PushOptions {
            compression,
            force_compression: self.force_compression.unwrap_or(self.compression_format.is_some()),
            ..PushOptions::default()
        })
    }
}

fn put(error: &engine::build::output::Error) -> Failure {
    Failure { hint: error.hint(), ..Failure::new(report::chain(error)) }
}

/// Where standard output and standard error lead while it is built. Dropped, they lead where they did before.
struct Streams {
    stdout: File,
    stderr: File,
}

impl Streams {
    fn failed(error: &dyn std::fmt::Display) -> Failure {
        Failure::new(format!("using the standard streams: {error}"))
    }

    /// What is told goes to `log`; if `stdout` has the image, to standard error; nowhere if it is `quiet`.
    fn lead(log: Option<&Path>, stdout_taken: bool, quiet: bool) -> Result<Self, Failure> {
        let dup = |fd: std::os::fd::BorrowedFd<'_>| {
            fd.try_clone_to_owned().map(File::from).map_err(|error| Self::failed(&error))
        };
        let own = Self { stdout: dup(std::io::stdout().as_fd())?, stderr: dup(std::io::stderr().as_fd())? };
        let failed = |error: rustix::io::Errno| Self::failed(&error);
        if let Some(path) = log {
            let file = File::create(path)
                .map_err(|error| Failure::new(format!("writing \"{}\": {error}", path.display())))?;
            rustix::stdio::dup2_stdout(&file)
                .and_then(|()| rustix::stdio::dup2_stderr(&file))
                .map_err(failed)?;
        } else if quiet {
            let null = File::options().write(true).open("/dev/null").map_err(|error| Self::failed(&error))?;
            rustix::stdio::dup2_stdout(&null).map_err(failed)?;
        } else if stdout_taken {
            rustix::stdio::dup2_stdout(&own.stderr).map_err(failed)?;
        }
        Ok(own)
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        // What cannot be led back is told nowhere.
        let _ = rustix::stdio::dup2_stdout(&self.stdout);
        let _ = rustix::stdio::dup2_stderr(&self.stderr);
    }
}

/// Tells how far it is, in the lines that scripts know from Podman.
#[derive(Default)]
struct Teller {
    /// The image's first name, as it was typed.
    name: String,
    /// Nobody reads any more.
    broken: Option<output::Error>,
}

impl Teller {
    fn told(&mut self, told: Told) {
        let line = match told {
            Told::Step { stage, step, of, text } => {
                let stage = stage.map_or_else(String::new, |(stage, of)| format!("[{stage}/{of}] "));
                format!("{stage}STEP {step}/{of}: {}", output::one_line(&text))
            }
            Told::Layer { id, cached: true } => format!("--> Using cache {id}\n--> {id}"),
            Told::Layer { id, .. } => format!("--> {id}"),
            Told::Commit(_) => format!("COMMIT {}", self.name).trim_end().to_owned(),
            Told::Warning(text) => return output::warning(&text),
        };
        if let (Err(error), None) = (output::println(&line), &self.broken) {
            self.broken = Some(error);
        }
    }
}

/// Files that are told what came of it; made before, so that nothing is built that could not be told.
struct Files {
    iidfile: Option<(Archive, PathBuf)>,
    raw: Option<(Archive, PathBuf)>,
    metadata: Option<(Archive, PathBuf)>,
}

impl Files {
    fn create(results: &Results) -> Result<Self, Failure> {
        let create = |path: &Option<PathBuf>| -> Result<Option<(Archive, PathBuf)>, Failure> {
            let Some(path) = path else { return Ok(None) };
            Ok(Some((Archive::create(path)?, path.clone())))
        };
        Ok(Self {
            iidfile: create(&results.iidfile)?,
            raw: create(&results.iidfile_raw)?,
            metadata: create(&results.metadata_file)?,
        })
    }

    fn write(self, engine: &Engine, image: &ImageRecord, names: &[String]) -> Result<(), Failure> {
        let manifest = engine.store.read_blob(&image.manifest).map_err(engine::Error::from)?;
        let metadata = json!({
            "containerimage.config.digest": image.id,
            "containerimage.descriptor": {
                "mediaType": image.media_type, "digest": image.manifest, "size": manifest.map_or(0, |bytes| bytes.len()),
            },
            "containerimage.digest": image.manifest,
            "image.name": names.join(","),
        });
        for (file, text) in [
            (self.iidfile, image.id.to_string()),
            (self.raw, image.id.hex()),
            (self.metadata, output::json(&metadata)),
        ] {
            let Some((mut archive, path)) = file else { continue };
            archive
                .file
                .write_all(text.as_bytes())
                .map_err(|error| Failure::new(format!("writing \"{}\": {error}", path.display())))?;
            archive.finish();
        }
        Ok(())
    }
}

/// The full names that the image gets.
fn full_names(tags: &[String]) -> Result<Vec<String>, Failure> {
    let mut names: Vec<String> = Vec::new();
    for tag in tags {
        let full = commit::full_name(Some(tag)).map_err(engine::Error::from)?;
        names.extend(full.into_iter().filter(|name| !names.contains(name)).collect::<Vec<_>>());
    }
    Ok(names)
}

/// `build`.
pub fn run(args: BuildArgs, globals: &Globals) -> Outcome {
    args.refused.check()?;
    let quiet = args.results.quiet()?;
    let mut request = args.request(globals)?;
    let outputs = args.results.outputs(&mut request.tags)?;
    let push = args.results.push_options(&outputs)?;
    let names = full_names(&request.tags)?;
    if let Some(name) = &args.results.manifest {
        commit::full_name(Some(name)).map_err(engine::Error::from)?;
    }
    // Only RUN suffers from it.
    let platform = request.pull_options.platform().map_err(engine::Error::from)?;
    foreign(&platform.architecture).inspect(|missing| output::warning(missing));
    let engine = globals.engine()?;
    let files = Files::create(&args.results)?;
    let stdout_taken = outputs.iter().any(Output::is_stdout);
    let streams = Streams::lead(args.results.logfile.as_deref(), stdout_taken, quiet)?;
    let name = request.tags.first().cloned().unwrap_or_default();
    let mut teller = Teller { name, broken: None };
    let face = Face {
        tell: &mut |told| teller.told(told),
        progress: &|| Box::new(progress::for_pull(quiet)),
        outputs: Outputs { stdout: !quiet, stderr: true },
    };
    let image = engine.build(&request, face)?;
    let tagged = names.iter().map(|name| format!("Successfully tagged {name}\n"));
    let text = format!("--> {}\n{}", image.id.short(), tagged.collect::<String>());
    if let (Err(error), None) = (output::print(&text), &teller.broken) {
        teller.broken = Some(error);
    }
    if let Some(name) = &args.results.manifest {
        add_to_list(&engine, name, &image)?;
    }
    let progress = progress::for_push(quiet || args.results.logfile.is_some());
    let how = HandOut {
        push: &push,
        reach: &request.pull_options.reach,
        progress: &progress,
        stdout: &streams.stdout,
    };
    for output in &outputs {
        let written = engine.put_out(&image, &names, output, &how).map_err(|error| put(&error))?;
        if written.devices > 0 {
            output::warning(&format!("{} device files were left out", written.devices));
        }
    }
    files.write(&engine, &image, &names)?;
    drop(streams);
    if let Some(error) = teller.broken {
        return Err(error.into());
    }
    if !stdout_taken {
        output::println(&image.id.hex())?;
    }
    Ok(0)
}

/// Adds the image to a list, made where it is missing; one for the same platform gives way to it.
fn add_to_list(engine: &Engine, name: &str, image: &ImageRecord) -> Result<(), Failure> {
    engine.create_list(name, true)?;
    engine.add_to_list(name, &image.id.hex(), &AddOptions::default())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpreters_are_found_by_their_machine() {
        let arm64 = "enabled\ninterpreter /usr/bin/qemu-aarch64-static\nflags: OCF\noffset 0\nmagic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n";
        assert!(interprets(arm64, 183));
        assert!(!interprets(arm64, 62));
        assert!(!interprets(&arm64.replace("enabled", "disabled"), 183));
        let s390x = "enabled\nmagic 7f454c4602020100000000000000000000020016\n";
        assert!(interprets(s390x, 22));
        assert!(!interprets("enabled\nextension .py\n", 22));
        assert_eq!(foreign(crate::image::manifest::own_architecture()), None);
    }
}
