//! The environment of a container's programs: the image's, the user's, and what is ours to set.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::config::{Error, ImageDefaults, Surroundings, flag, read_file};
use super::request::RunRequest;

/// The environment of the first program: defaults, the image's, that of files, that of flags.
pub(super) fn environment(
    request: &RunRequest,
    image: &ImageDefaults,
    around: &Surroundings<'_>,
    hostname: &str,
) -> Result<Vec<String>, Error> {
    let mut env = Environment::default();
    if !request.unsetenv_all {
        env.set("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        env.set("container", "umiak");
        if request.tty {
            env.set("TERM", "xterm");
        }
        env.set("HOSTNAME", hostname);
        // An image may have anything there; what is no NAME=VALUE is of no use to anybody.
        for item in image.env.iter().filter(|item| item.find('=').is_some_and(|at| at > 0)) {
            env.set_item(item);
        }
    }
    for name in &request.unsetenv {
        if name.is_empty() || name.contains('=') {
            return Err(flag("unsetenv", name, "it takes the name of a variable"));
        }
        env.items.retain(|item| item.split('=').next() != Some(name));
    }
    if request.env_host {
        around.env.iter().for_each(|(name, value)| env.set(name, value));
    }
    if request.http_proxy {
        let names = ["http_proxy", "https_proxy", "ftp_proxy", "no_proxy"];
        for name in names.iter().flat_map(|name| [(*name).to_owned(), name.to_ascii_uppercase()]) {
            around.env.get(&name).into_iter().for_each(|value| env.set(&name, value));
        }
    }
    for item in &request.env_merge {
        let bad = || flag("env-merge", item, "it takes NAME=VALUE");
        let (name, value) = item.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(bad)?;
        let merged = expand(value, &|name| {
            let have = env.items.iter().find_map(|item| item.strip_prefix(name)?.strip_prefix('='));
            have.unwrap_or_default().to_owned()
        });
        env.set(name, &merged);
    }
    env.add_asked(&request.env, &request.env_files, around.env)?;
    Ok(env.items)
}

/// Replaces `$NAME` and `${NAME}`; what is no name stays.
pub(super) fn expand(text: &str, value: &dyn Fn(&str) -> String) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let (name, length) = match after.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some((name, _)) if !name.is_empty() && name.chars().all(is_name) => (name, name.len() + 2),
            _ => {
                let end = after.find(|c| !is_name(c)).unwrap_or(after.len());
                (&after[..end], end)
            }
        };
        if name.is_empty() {
            out.push('$');
        } else {
            out.push_str(&value(name));
        }
        rest = &after[length..];
    }
    out + rest
}

/// What a `-e` of `exec` adds to a container's own environment.
pub fn exec_environment(
    base: &[String],
    env: &[String],
    env_files: &[PathBuf],
    host: &BTreeMap<String, String>,
    tty: bool,
) -> Result<Vec<String>, Error> {
    let mut merged = Environment { items: base.to_vec() };
    if tty && !base.iter().any(|item| item.starts_with("TERM=")) {
        merged.set("TERM", "xterm");
    }
    merged.add_asked(env, env_files, host)?;
    Ok(merged.items)
}

#[derive(Default)]
struct Environment {
    items: Vec<String>,
}

impl Environment {
    fn set(&mut self, name: &str, value: &str) {
        self.set_item(&format!("{name}={value}"));
    }

    fn set_item(&mut self, item: &str) {
        let name = item.split('=').next().unwrap_or_default();
        match self.items.iter_mut().find(|have| have.split('=').next() == Some(name)) {
            Some(have) => *have = item.to_owned(),
            None => self.items.push(item.to_owned()),
        }
    }

    /// What `--env-file` and then `--env` ask for.
    fn add_asked(
        &mut self,
        asked: &[String],
        files: &[PathBuf],
        host: &BTreeMap<String, String>,
    ) -> Result<(), Error> {
        for path in files {
            let text = read_file("env-file", path)?;
            for line in
                text.lines().filter(|line| !line.trim_start().starts_with('#') && !line.trim().is_empty())
            {
                let line = line.trim_start();
                let name = line.split('=').next().unwrap_or_default();
                if name.is_empty() || name.contains(char::is_whitespace) {
                    return Err(flag("env-file", line, "a line takes NAME=VALUE or NAME"));
                }
                self.set_or_inherit(line, host);
            }
        }
        for item in asked {
            if item.starts_with('=') || item.is_empty() {
                return Err(flag("env", item, "it takes NAME=VALUE or NAME"));
            }
            self.set_or_inherit(item, host);
        }
        Ok(())
    }

    /// `NAME=VALUE`; `NAME` alone takes the host's value if there is one, `NAME*` all that fit.
    fn set_or_inherit(&mut self, item: &str, host: &BTreeMap<String, String>) {
        if item.contains('=') {
            self.set_item(item);
        } else if let Some(prefix) = item.strip_suffix('*') {
            host.iter().filter(|(name, _)| name.starts_with(prefix)).for_each(|(n, v)| self.set(n, v));
        } else if let Some(value) = host.get(item) {
            self.set(item, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn environment_in_order() {
        let env = ["A=2", "LANG", "MISSING", "LC_*", "PATH=/p"].map(String::from).into();
        let request = RunRequest { env, ..RunRequest::default() };
        let image = ImageDefaults { env: vec!["A=1".into(), "B=1".into()], ..ImageDefaults::default() };
        let host = BTreeMap::from([("LANG".to_owned(), "C".to_owned()), ("LC_A".to_owned(), "1".to_owned())]);
        let around = Surroundings {
            cwd: Path::new("/w"),
            env: &host,
            short_id: "",
            host_name: "",
            root: false,
            find: &|name| Err(name.to_owned()),
        };
        let env = environment(&request, &image, &around, "0123456789ab").unwrap();
        assert_eq!(
            env,
            ["PATH=/p", "container=umiak", "HOSTNAME=0123456789ab", "A=2", "B=1", "LANG=C", "LC_A=1"]
        );
    }

    #[test]
    fn exec_environment_adds_only_what_is_asked() {
        let host = BTreeMap::from([("X".to_owned(), "9".to_owned())]);
        let base = ["PATH=/p".to_owned(), "A=1".to_owned()];
        let env = exec_environment(&base, &["A=2".into(), "X".into()], &[], &host, true).unwrap();
        assert_eq!(env, ["PATH=/p", "A=2", "TERM=xterm", "X=9"]);
    }
}
