//! The flags of `build`: what is built and out of what, and how the image is described.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{ArgAction, Args};

use super::super::Failure;
use crate::engine::build::request::{BuildRequest, CacheUse, ContextSource, SecretSource, Squash, Times};
use crate::image::rewrite::Form;

/// What is built, and out of what.
#[derive(Args, Debug, Clone)]
pub struct Sources {
    /// Read this file rather than Containerfile or Dockerfile of the context; - is standard input, several are one after the other
    #[arg(short, long, value_name = "FILE")]
    pub file: Vec<PathBuf>,
    /// Read this file rather than .containerignore or .dockerignore of the context
    #[arg(long, value_name = "FILE")]
    ignorefile: Option<PathBuf>,
    /// Another place for COPY --from and RUN --mount: a directory, docker-image://IMAGE, or the address of an archive
    #[arg(long, value_name = "NAME=PLACE")]
    build_context: Vec<String>,
    /// Set a variable that the file declares with ARG; without a value it takes ours
    #[arg(long, value_name = "NAME[=VALUE]")]
    build_arg: Vec<String>,
    /// Read such variables from a file; --build-arg goes before them
    #[arg(long, value_name = "FILE")]
    build_arg_file: Vec<PathBuf>,
    /// Take this image in place of the one in the first FROM
    #[arg(long, value_name = "IMAGE")]
    from: Option<String>,
    /// Build up to this stage
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Pass over stages that the image does not need; =false builds them
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "true",
        default_missing_value = "true", action = ArgAction::Set)]
    skip_unused_stages: bool,
    /// A file, or a variable of our environment, for RUN --mount=type=secret
    #[arg(long, value_name = "id=ID[,src=FILE|,env=NAME]")]
    secret: Vec<String>,
    /// The socket of an agent for RUN --mount=type=ssh; of default it is $SSH_AUTH_SOCK
    #[arg(long, value_name = "default|ID[=SOCKET]")]
    ssh: Vec<String>,
    /// Let RUN read our standard input
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    stdin: Option<bool>,
}

/// How the image is described.
#[derive(Args, Debug, Clone)]
pub struct Description {
    /// Attach a label
    #[arg(long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// Leave a label of the base out
    #[arg(long, value_name = "NAME")]
    unsetlabel: Vec<String>,
    /// Have the base's labels
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "true",
        default_missing_value = "true", action = ArgAction::Set)]
    inherit_labels: bool,
    /// Say who built it (the label io.umiak.version)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "true",
        default_missing_value = "true", action = ArgAction::Set)]
    identity_label: bool,
    /// Attach an annotation (of OCI's form only)
    #[arg(long, value_name = "NAME=VALUE")]
    annotation: Vec<String>,
    /// Leave an annotation of the base out
    #[arg(long, value_name = "NAME")]
    unsetannotation: Vec<String>,
    /// Have the base's annotations
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "true",
        default_missing_value = "true", action = ArgAction::Set)]
    inherit_annotations: bool,
    /// Annotate when it was made
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "true",
        default_missing_value = "true", action = ArgAction::Set)]
    created_annotation: bool,
    /// Set a variable of the image's environment; without a value it takes ours
    #[arg(long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Leave a variable of the image's environment out
    #[arg(long, value_name = "NAME")]
    unsetenv: Vec<String>,
    /// How the image is described: oci or docker (default: $BUILDAH_FORMAT, or oci)
    #[arg(id = "form", long = "format", value_name = "FORMAT")]
    format: Option<String>,
    /// Keep no history
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    omit_history: Option<bool>,
    /// When the image and all files of its new layers were made, in seconds since 1970
    #[arg(long, value_name = "SECONDS", conflicts_with = "source_date_epoch")]
    timestamp: Option<u64>,
    /// When the image was made, in seconds since 1970 (default: $SOURCE_DATE_EPOCH)
    #[arg(long, value_name = "SECONDS")]
    source_date_epoch: Option<u64>,
    /// Make no file of a new layer younger than --source-date-epoch
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    rewrite_timestamp: Option<bool>,
}

/// What of former builds is used, and what layers come of this one.
#[derive(Args, Debug, Clone)]
pub struct Cache {
    /// Use nothing of former builds
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    no_cache: Option<bool>,
    /// Use nothing that is older: 30m, 12h
    #[arg(long, value_name = "DURATION")]
    cache_ttl: Option<String>,
    /// Make a layer of each step, and keep it for later builds; =false makes one of all
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "true",
        default_missing_value = "true", action = ArgAction::Set)]
    layers: bool,
    /// Make the new layers one
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    squash: Option<bool>,
    /// Make all layers one, the base's too
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    squash_all: Option<bool>,
}

fn pair(text: &str) -> (String, String) {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    (name.to_owned(), value.to_owned())
}

fn pairs(texts: &[String]) -> Vec<(String, String)> {
    texts.iter().map(|text| pair(text)).collect()
}

/// `NAME=VALUE`, or `NAME` for our own variable of that name; none if there is no such.
fn variable(text: &str) -> Option<(String, String)> {
    match text.split_once('=') {
        Some((name, value)) => Some((name.to_owned(), value.to_owned())),
        None => std::env::var(text).ok().map(|value| (text.to_owned(), value)),
    }
}

impl Sources {
    /// Writes what was asked for into `request`; `context` is the argument that names where files are.
    pub fn fill(&self, context: Option<&str>, request: &mut BuildRequest) -> Result<(), Failure> {
        let this = self.clone();
        request.context = self.context(context)?;
        let of_stdin = |file: &&PathBuf| file.as_path() == Path::new("-");
        let from_input =
            usize::from(request.context == ContextSource::Stdin) + this.file.iter().filter(of_stdin).count();
        if from_input > 1 {
            return Err(Failure::new("only one of the context and the file can be standard input"));
        }
        request.stdin = this.stdin.unwrap_or(false);
        if request.stdin && from_input > 0 {
            return Err(Failure::new("--stdin: standard input is read for the build itself"));
        }
        request.files = this.file;
        request.ignore_file = this.ignorefile;
        request.contexts = this.build_context.iter().map(|text| further(text)).collect::<Result<_, _>>()?;
        request.args = arguments(&this.build_arg_file, &this.build_arg)?;
        request.from = this.from;
        request.target = this.target.filter(|name| !name.is_empty());
        request.skip_unused_stages = this.skip_unused_stages;
        request.secrets = this.secret.iter().map(|text| secret(text)).collect::<Result<_, _>>()?;
        request.ssh = this.ssh.iter().map(|text| agent(text)).collect::<Result<_, _>>()?;
        Ok(())
    }

    /// Where files are: what was said, else the directory of the first file, else this one.
    fn context(&self, text: Option<&str>) -> Result<ContextSource, Failure> {
        let Some(text) = text else {
            let local =
                self.file.iter().find(|file| !crate::image::registry::is_address(&file.to_string_lossy()));
            let parent = local.and_then(|file| file.parent()).filter(|dir| !dir.as_os_str().is_empty());
            return Ok(ContextSource::Directory(parent.unwrap_or(Path::new(".")).to_owned()));
        };
        if text == "-" {
            return Ok(ContextSource::Stdin);
        }
        if is_repository(text) {
            return Err(Failure::new(format!(
                "the context \"{text}\": a Git repository is not supported yet"
            ))
            .with_hint("clone it, and name the directory"));
        }
        if crate::image::registry::is_address(text) {
            return Ok(ContextSource::Url(text.to_owned()));
        }
        let failed = |why: &str| Failure::new(format!("the context \"{text}\": {why}"));
        match std::fs::metadata(text) {
            Ok(found) if found.is_dir() => Ok(ContextSource::Directory(text.into())),
            Ok(_) => Err(failed("it is no directory")
                .with_hint(format!("umiak build -f {text} names the file to be read"))),
            Err(error) => Err(failed(&error.to_string())),
        }
    }
}

/// Whether Docker and Podman would clone it.
fn is_repository(text: &str) -> bool {
    let place = text.split('#').next().unwrap_or(text);
    let schemes = ["git://", "ssh://", "git@", "github.com/"];
    schemes.iter().any(|scheme| text.starts_with(scheme))
        || (crate::image::registry::is_address(text) && place.ends_with(".git"))
}

fn further(text: &str) -> Result<(String, String), Failure> {
    match text.split_once('=') {
        Some((name, place)) if !name.is_empty() && !place.is_empty() => {
            Ok((name.to_owned(), place.to_owned()))
        }
        _ => Err(Failure::new(format!("--build-context \"{text}\": write NAME=PLACE"))),
    }
}

/// The variables of files, then those of flags; of several values for one the last counts.
fn arguments(files: &[PathBuf], flags: &[String]) -> Result<Vec<(String, String)>, Failure> {
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    for path in files {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Failure::new(format!("reading the variables of --build-arg-file \"{}\": {error}", path.display()))
        })?;
        let lines = text.lines().map(str::trim);
        found.extend(lines.filter(|line| !line.is_empty() && !line.starts_with('#')).filter_map(variable));
    }
    for text in flags {
        let name = text.split('=').next().unwrap_or_default();
        if name.is_empty() {
            return Err(Failure::new(format!("--build-arg \"{text}\": write NAME=VALUE")));
        }
        match variable(text) {
            Some((name, value)) => drop(found.insert(name, value)),
            // It has none with us: the file's default counts.
            None => drop(found.remove(name)),
        }
    }
    Ok(found.into_iter().collect())
}

/// `id=ID[,src=FILE][,env=NAME][,type=file|env]`
fn secret(text: &str) -> Result<(String, SecretSource), Failure> {
    let wrong = |why: &str| Failure::new(format!("--secret \"{text}\": {why}"));
    let (mut id, mut source, mut env, mut kind) = (None, None, None, None);
    for part in text.split(',') {
        match part.split_once('=') {
            Some(("id", value)) if !value.is_empty() => id = Some(value),
            Some(("src" | "source", value)) if !value.is_empty() => source = Some(value),
            Some(("env", value)) if !value.is_empty() => env = Some(value),
            Some(("type", value @ ("file" | "env"))) => kind = Some(value),
            _ => return Err(wrong("write id=ID,src=FILE or id=ID,env=NAME")),
        }
    }
    let id = id.ok_or_else(|| wrong("it has no id"))?;
    let of_env = match (kind, source, env) {
        (Some("file"), _, Some(_)) | (None, Some(_), Some(_)) => {
            return Err(wrong("it is a file or a variable, not both"));
        }
        (Some(kind), ..) => kind == "env",
        (None, None, Some(_)) => true,
        (None, Some(_), None) => false,
        // Nothing but the name is told: a variable that is called so, else a file.
        (None, None, None) => std::env::var_os(id).is_some(),
    };
    if of_env {
        let name = env.or(source).unwrap_or(id);
        if std::env::var_os(name).is_none() {
            return Err(wrong(&format!("there is no variable {name} in our environment")));
        }
        return Ok((id.to_owned(), SecretSource::Env(name.to_owned())));
    }
    let path = PathBuf::from(source.unwrap_or(id));
    match std::fs::metadata(&path) {
        Ok(found) if found.is_dir() => Err(wrong("it is a directory")),
        Ok(_) => Ok((id.to_owned(), SecretSource::File(path))),
        Err(error) => Err(wrong(&format!("reading \"{}\": {error}", path.display()))),
    }
}

/// `ID[=SOCKET]`
fn agent(text: &str) -> Result<(String, PathBuf), Failure> {
    use std::os::unix::fs::FileTypeExt;
    let (id, socket) = match text.split_once('=') {
        Some((id, socket)) => (id, Some(PathBuf::from(socket))),
        None => {
            (text, std::env::var_os("SSH_AUTH_SOCK").filter(|value| !value.is_empty()).map(PathBuf::from))
        }
    };
    let wrong = |why: &str| Failure::new(format!("--ssh \"{text}\": {why}"));
    let socket = socket.ok_or_else(|| {
        wrong("there is no agent: SSH_AUTH_SOCK is not set")
            .with_hint("eval \"$(ssh-agent)\" && ssh-add starts one")
    })?;
    match std::fs::metadata(&socket) {
        Ok(found) if found.file_type().is_socket() => Ok((id.to_owned(), socket)),
        Ok(_) => Err(wrong("only the socket of an agent is supported yet, no key")
            .with_hint("ssh-add FILE gives the key to the agent")),
        Err(error) => Err(wrong(&format!("\"{}\": {error}", socket.display()))),
    }
}

impl Description {
    /// Writes what was asked for into `request`.
    pub fn fill(&self, request: &mut BuildRequest) -> Result<(), Failure> {
        let this = self.clone();
        request.labels = pairs(&this.label);
        request.unset_labels = this.unsetlabel;
        request.inherit_labels = this.inherit_labels;
        request.identity_label = this.identity_label;
        request.annotations = pairs(&this.annotation);
        if let Some(text) = this.annotation.iter().find(|text| !text.contains('=')) {
            return Err(Failure::new(format!("--annotation \"{text}\": write NAME=VALUE")));
        }
        request.unset_annotations = this.unsetannotation;
        request.inherit_annotations = this.inherit_annotations;
        request.created_annotation = this.created_annotation;
        request.env = this.env.iter().filter_map(|text| variable(text)).collect();
        request.unset_env = this.unsetenv;
        request.format = form(this.format)?;
        request.omit_history = this.omit_history.unwrap_or(false);
        request.times = self.times()?;
        Ok(())
    }

    fn times(&self) -> Result<Times, Failure> {
        let rewrite = self.rewrite_timestamp.unwrap_or(false);
        if let Some(seconds) = self.timestamp {
            return Ok(Times { created: Some(seconds), clamp: Some(seconds), exact: true });
        }
        let text = std::env::var("SOURCE_DATE_EPOCH").ok().filter(|text| !text.is_empty());
        let epoch = match (self.source_date_epoch, text) {
            (Some(seconds), _) => Some(seconds),
            (None, Some(text)) => {
                let wrong =
                    |_| Failure::new(format!("SOURCE_DATE_EPOCH is \"{text}\", not seconds since 1970"));
                Some(text.parse().map_err(wrong)?)
            }
            (None, None) if rewrite => {
                return Err(Failure::new("--rewrite-timestamp: it is not said which time is the latest")
                    .with_hint("--source-date-epoch SECONDS says it"));
            }
            (None, None) => None,
        };
        Ok(Times { created: epoch, clamp: epoch.filter(|_| rewrite), exact: false })
    }
}

fn form(text: Option<String>) -> Result<Form, Failure> {
    let (text, of) = match text {
        Some(text) => (text, "--format"),
        None => (std::env::var("BUILDAH_FORMAT").unwrap_or_default(), "BUILDAH_FORMAT"),
    };
    match text.as_str() {
        "oci" | "" => Ok(Form::Oci),
        "docker" => Ok(Form::Docker),
        other => Err(Failure::new(format!("{of} \"{other}\": choose oci or docker"))),
    }
}

impl Cache {
    /// Writes what was asked for into `request`.
    pub fn fill(&self, request: &mut BuildRequest) -> Result<(), Failure> {
        let ttl = self.cache_ttl.as_deref().map(|text| {
            let parsed = crate::base::time::parse_duration(text).ok();
            let span = parsed.and_then(|span| std::time::Duration::try_from(span).ok());
            span.ok_or_else(|| {
                Failure::new(format!("--cache-ttl \"{text}\": write a duration such as 30m or 12h"))
            })
        });
        let ttl = ttl.transpose()?;
        let read = !self.no_cache.unwrap_or(false) && self.layers && ttl.is_none_or(|ttl| !ttl.is_zero());
        request.cache = CacheUse { read, ttl };
        request.squash =
            match (self.squash_all.unwrap_or(false), self.squash.unwrap_or(false) || !self.layers) {
                (true, _) => Squash::All,
                (false, true) => Squash::New,
                (false, false) => Squash::None,
            };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Command, FromArgMatches};

    fn sources(line: &[&str]) -> Result<Sources, clap::Error> {
        let words = std::iter::once("build").chain(line.iter().copied());
        Sources::from_arg_matches(&Sources::augment_args(Command::new("build")).try_get_matches_from(words)?)
    }

    #[test]
    fn contexts() {
        let none = sources(&[]).unwrap();
        assert_eq!(none.context(None).unwrap(), ContextSource::Directory(".".into()));
        assert_eq!(none.context(Some("-")).unwrap(), ContextSource::Stdin);
        assert_eq!(none.context(Some("/")).unwrap(), ContextSource::Directory("/".into()));
        let url = "https://x.test/a.tar.gz";
        assert_eq!(none.context(Some(url)).unwrap(), ContextSource::Url(url.into()));
        for git in ["https://x.test/a.git", "https://x.test/a.git#main:dir", "git@x.test:a", "github.com/a/b"]
        {
            assert!(none.context(Some(git)).unwrap_err().message.contains("Git"), "{git}");
        }
        assert!(none.context(Some("/nowhere")).is_err());
        assert!(none.context(Some("/etc/passwd")).unwrap_err().hint.unwrap().contains("-f /etc/passwd"));
        let file = sources(&["-f", "https://x.test/D", "-f", "/some/where/D"]).unwrap();
        assert_eq!(file.context(None).unwrap(), ContextSource::Directory("/some/where".into()));
        let input = sources(&["-f", "-"]).unwrap();
        assert_eq!(input.context(None).unwrap(), ContextSource::Directory(".".into()));
    }

    #[test]
    fn arguments_come_from_flags_files_and_the_environment() {
        let dir = std::env::temp_dir().join(format!("umiak-args-{}", std::process::id()));
        std::fs::write(&dir, "# a word\n\nA=1\n B=2=3\nUMIAK_SURELY_UNSET\n").unwrap();
        let flags = ["A=9", "C=", "PATH"].map(str::to_owned);
        let found = arguments(std::slice::from_ref(&dir), &flags).unwrap();
        std::fs::remove_file(&dir).unwrap();
        let path = std::env::var("PATH").unwrap();
        let expected = [("A", "9"), ("B", "2=3"), ("C", ""), ("PATH", &*path)];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert!(arguments(&[], &["=x".to_owned()]).is_err());
        assert!(arguments(&["/nowhere".into()], &[]).unwrap_err().message.contains("/nowhere"));
    }

    #[test]
    fn secrets() {
        let file = |id: &str, path: &str| (id.to_owned(), SecretSource::File(path.into()));
        let env = |id: &str, name: &str| (id.to_owned(), SecretSource::Env(name.to_owned()));
        for (text, expected) in [
            ("id=a,src=/etc/passwd", file("a", "/etc/passwd")),
            ("id=a,source=/etc/passwd,type=file", file("a", "/etc/passwd")),
            ("id=a,env=PATH", env("a", "PATH")),
            ("id=a,type=env,src=PATH", env("a", "PATH")),
            ("type=env,id=PATH", env("PATH", "PATH")),
            ("id=PATH", env("PATH", "PATH")),
        ] {
            assert_eq!(secret(text).unwrap(), expected, "{text}");
        }
        for (text, why) in [
            ("src=/etc/passwd", "it has no id"),
            ("id=a,src=/nowhere", "\"/nowhere\": No such file"),
            ("id=a,src=/", "a directory"),
            ("id=a,env=UMIAK_SURELY_UNSET", "no variable UMIAK_SURELY_UNSET"),
            ("id=a,src=/etc/passwd,env=PATH", "not both"),
            ("id=a,kind=file", "write id=ID"),
            ("/etc/passwd", "write id=ID"),
        ] {
            let message = secret(text).unwrap_err().message;
            assert!(message.contains(why), "{text}: {message}");
        }
        assert!(agent("a=/etc/passwd").unwrap_err().message.contains("no key"));
        assert!(agent("a=/nowhere").unwrap_err().message.contains("/nowhere"));
    }
}
