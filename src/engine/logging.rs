//! `--log-driver` and `--log-opt`: who keeps a container's output, and how. Pure.

use std::path::PathBuf;

use super::config::{Error, flag};
use crate::base::size;
use crate::base::template::Template;
use crate::storage::containers::{LogConfig, LogDriver};

/// What the flags ask for.
pub fn resolve(driver: Option<&str>, options: &[String]) -> Result<LogConfig, Error> {
    let driver = match driver {
        None | Some("" | "k8s-file") => LogDriver::K8sFile,
        Some("json-file") => LogDriver::JsonFile,
        Some("journald") => LogDriver::Journald,
        Some("passthrough") => LogDriver::Passthrough,
        Some("none") => LogDriver::None,
        Some(other @ "passthrough-tty") => {
            return Err(Error::Unsupported { flag: "log-driver", value: other.into() });
        }
        Some(other) => {
            let why = "it takes k8s-file, json-file, journald, passthrough or none";
            return Err(flag("log-driver", other, why));
        }
    };
    let mut log =
        LogConfig { driver, path: None, size_max: None, file_max: None, tag: None, labels: Vec::new() };
    for item in options {
        let (key, value) =
            item.split_once('=').ok_or_else(|| flag("log-opt", item, "it takes NAME=VALUE"))?;
        let of_files = matches!(key, "path" | "max-size" | "max-file");
        let of_the_journal = matches!(key, "tag" | "label" | "labels");
        if !of_files && !of_the_journal {
            return Err(flag("log-opt", item, format!("there is no option \"{key}\"")));
        }
        if (of_files && !driver.is_file()) || (of_the_journal && driver != LogDriver::Journald) {
            let why = format!("it has no meaning with --log-driver {}", driver.name());
            return Err(flag("log-opt", item, why));
        }
        match key {
            "path" if value.is_empty() => return Err(flag("log-opt", item, "a file is missing")),
            "path" => log.path = Some(std::path::absolute(value).unwrap_or_else(|_| PathBuf::from(value))),
            "max-size" => {
                let bytes = size::parse(value).map_err(|error| flag("log-opt", item, error.to_string()))?;
                // As with Podman 0 is no bound.
                log.size_max = Some(bytes).filter(|bytes| *bytes > 0);
            }
            "max-file" => match value.parse() {
                Ok(files @ 1..=1000) => log.file_max = Some(files),
                _ => return Err(flag("log-opt", item, "it takes a number from 1 to 1000")),
            },
            "tag" => {
                Template::parse(value)
                    .map_err(|error| flag("log-opt", item, crate::base::report::chain(&error)))?;
                log.tag = Some(value.to_owned());
            }
            _ => log.labels.extend(value.split(',').filter(|label| !label.is_empty()).map(String::from)),
        }
    }
    if log.file_max.is_some_and(|files| files > 1) && log.size_max.is_none() {
        return Err(flag("log-opt", "max-file", "it needs a max-size, or there is never a second file"));
    }
    Ok(log)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(driver: &str, options: &[&str]) -> Result<LogConfig, Error> {
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        resolve(Some(driver), &options)
    }

    #[test]
    fn options() {
        let log = with("json-file", &["path=/var/log/x", "max-size=1k", "max-file=3"]).unwrap();
        assert_eq!((log.size_max, log.file_max, log.driver.name()), (Some(1024), Some(3), "json-file"));
        assert_eq!(with("", &["max-size=0"]).unwrap().size_max, None);
        let log = with("journald", &["tag={{.Name}}", "labels=a,b", "label=c"]).unwrap();
        assert_eq!((log.tag.as_deref(), log.labels.join(" ").as_str()), (Some("{{.Name}}"), "a b c"));
        for (driver, options) in [
            ("syslog", &[][..]),
            ("passthrough-tty", &[]),
            ("k8s-file", &["path"]),
            ("k8s-file", &["path="]),
            ("k8s-file", &["max-size=many"]),
            ("k8s-file", &["max-size=1k", "max-file=0"]),
            ("k8s-file", &["max-file=2"]),
            ("k8s-file", &["tag=x"]),
            ("k8s-file", &["colour=red"]),
            ("journald", &["path=/x"]),
            ("journald", &["tag={{"]),
            ("none", &["max-size=1k"]),
        ] {
            assert!(with(driver, options).is_err(), "{driver} {options:?}");
        }
    }
}
