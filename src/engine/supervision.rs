//! What a container's monitor is asked to do with it, from flags and the image: restarts, health checks, a
//! time limit. Pure.

use std::path::PathBuf;

use serde::Deserialize;

use super::config::{Error, ImageDefaults, flag};
use crate::base::time;
use crate::storage::containers::{ContainerConfig, HealthAction, HealthConfig, RestartPolicy, StartupCheck};

/// The flags, as typed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the flags")]
pub struct Wanted {
    pub restart: Option<String>,
    pub timeout: Option<u64>,
    pub no_healthcheck: bool,
    pub health_cmd: Option<String>,
    pub health_interval: Option<String>,
    pub health_timeout: Option<String>,
    pub health_retries: Option<String>,
    pub health_start_period: Option<String>,
    pub health_start_interval: Option<String>,
    pub health_on_failure: Option<String>,
    pub health_log_destination: Option<String>,
    pub health_max_log_count: Option<u32>,
    pub health_max_log_size: Option<u32>,
    pub health_startup_cmd: Option<String>,
    pub health_startup_interval: Option<String>,
    pub health_startup_timeout: Option<String>,
    pub health_startup_retries: Option<u32>,
    pub health_startup_success: Option<u32>,
}

const SECOND: u64 = 1_000_000_000;

/// What Docker and Podman take where nothing is said.
const USUAL: HealthConfig = HealthConfig {
    test: Vec::new(),
    interval: 30 * SECOND,
    timeout: 30 * SECOND,
    retries: 3,
    start_period: 0,
    start_interval: 0,
    startup: None,
    on_failure: HealthAction::None,
    log_count: 5,
    log_size: 500,
    log_destination: None,
};

/// Fills in what the monitor is to do.
pub fn resolve(wanted: &Wanted, image: &ImageDefaults, config: &mut ContainerConfig) -> Result<(), Error> {
    config.restart = wanted.restart.as_deref().map(restart).transpose()?.unwrap_or_default();
    if config.auto_remove && config.restart != RestartPolicy::No {
        let name = config.restart.name();
        return Err(flag(
            "restart",
            name,
            "a container that is removed when it ends (--rm) cannot be restarted",
        ));
    }
    if config.restart != RestartPolicy::No && !config.kernel.preserve_fds.is_empty() {
        let name = config.restart.name();
        return Err(flag(
            "restart",
            name,
            "descriptors of ours (--preserve-fd) can be handed over only once",
        ));
    }
    config.timeout = wanted.timeout.unwrap_or(0);
    let from_image = image.healthcheck.as_ref().map(of_image).transpose()?.flatten();
    config.health = health(wanted, from_image)?;
    Ok(())
}

/// A container's health check as changed by flags; as it was without any.
pub fn change_health(wanted: &Wanted, now: Option<HealthConfig>) -> Result<Option<HealthConfig>, Error> {
    let wanted = Wanted { restart: None, timeout: None, ..wanted.clone() };
    if wanted == Wanted::default() {
        return Ok(now);
    }
    let startup = now.as_ref().and_then(|health| health.startup.clone());
    let changed = health(&wanted, now)?;
    // What is not asked for anew stays.
    Ok(changed.map(|health| HealthConfig { startup: health.startup.clone().or(startup), ..health }))
}

/// `no`, `always`, `unless-stopped`, `on-failure`, `on-failure:N`.
pub fn restart(text: &str) -> Result<RestartPolicy, Error> {
    let (name, bound) = match text.split_once(':') {
        None => (text, None),
        Some((name, bound)) => {
            let bound = bound
                .parse()
                .map_err(|_| flag("restart", text, format!("\"{bound}\" is no number of restarts")))?;
            (name, Some(bound))
        }
    };
    match (name, bound) {
        ("" | "no", None) => Ok(RestartPolicy::No),
        ("always", None) => Ok(RestartPolicy::Always),
        ("unless-stopped", None) => Ok(RestartPolicy::UnlessStopped),
        // As with Docker and Podman 0 is no bound.
        ("on-failure", bound) => Ok(RestartPolicy::OnFailure(bound.filter(|bound| *bound > 0))),
        ("no" | "always" | "unless-stopped", Some(_)) => {
            Err(flag("restart", text, "only on-failure takes a number of restarts"))
        }
        _ => Err(flag("restart", text, "it takes no, on-failure[:N], always or unless-stopped")),
    }
}

/// The `Healthcheck` of an image: what it does not say is 0. None if it says that there is none.
fn of_image(value: &serde_json::Value) -> Result<Option<HealthConfig>, Error> {
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "PascalCase", default)]
    struct Said {
        test: Option<Vec<String>>,
        interval: Option<i64>,
        timeout: Option<i64>,
        start_period: Option<i64>,
        start_interval: Option<i64>,
        retries: Option<i64>,
    }
    let said = Said::deserialize(value).map_err(Error::ImageHealth)?;
    let test = said.test.unwrap_or_default();
    let usable = match test.first().map(String::as_str) {
        Some("CMD" | "CMD-SHELL") => test.len() > 1,
        _ => false,
    };
    let or = |said: Option<i64>, usual: u64| {
        said.and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0).unwrap_or(usual)
    };
    Ok(usable.then(|| HealthConfig {
        test,
        interval: or(said.interval, USUAL.interval),
        timeout: or(said.timeout, USUAL.timeout),
        retries: u32::try_from(or(said.retries, USUAL.retries.into())).unwrap_or(u32::MAX),
        start_period: or(said.start_period, 0),
        start_interval: or(said.start_interval, 0),
        ..USUAL
    }))
}

/// The words of a check's command: a JSON list of words, or a line for the shell. None for `none`.
fn command(name: &'static str, text: &str) -> Result<Option<Vec<String>>, Error> {
    let list: Option<Vec<String>> = serde_json::from_str(text).ok();
    let mut words = match list {
        Some(words) => words,
        // As Docker's files write it.
        None if text.starts_with("CMD ") => text.split_whitespace().map(String::from).collect(),
        None if text.starts_with("CMD-SHELL ") => {
            let line = text.strip_prefix("CMD-SHELL").unwrap_or_default().trim_start();
            vec!["CMD-SHELL".into(), line.into()]
        }
        None => vec![text.to_owned()],
    };
    match words.first().map(String::as_str) {
        Some(word) if word.eq_ignore_ascii_case("none") && words.len() == 1 => return Ok(None),
        Some("CMD") if words.len() > 1 => {}
        Some("CMD-SHELL") if words.len() == 2 => {}
        None | Some("" | "CMD" | "CMD-SHELL") => return Err(flag(name, text, "it names no command")),
        Some(_) if words.len() == 1 => words.insert(0, "CMD-SHELL".into()),
        Some(_) => words.insert(0, "CMD".into()),
    }
    Ok(Some(words))
}

/// A Go duration of at least `least` nanoseconds.
fn duration(name: &'static str, text: Option<&String>, least: u64) -> Result<Option<u64>, Error> {
    let Some(text) = text else { return Ok(None) };
    let parsed = time::parse_duration(text).map_err(|error| flag(name, text, error.to_string()))?;
    match u64::try_from(parsed.as_nanos()) {
        Ok(nanoseconds) if nanoseconds >= least => Ok(Some(nanoseconds)),
        _ if least >= SECOND => Err(flag(name, text, "it must be at least 1 second")),
        _ => Err(flag(name, text, "it must not be negative")),
    }
}

fn interval(name: &'static str, text: Option<&String>) -> Result<Option<u64>, Error> {
    if text.is_some_and(|text| text == "disable") { Ok(Some(0)) } else { duration(name, text, 0) }
}

fn health(wanted: &Wanted, from_image: Option<HealthConfig>) -> Result<Option<HealthConfig>, Error> {
    let details = Wanted { restart: None, timeout: None, no_healthcheck: false, ..wanted.clone() };
    if wanted.no_healthcheck {
        if details != Wanted::default() {
            return Err(flag("no-healthcheck", "true", "it cannot be used together with --health-…"));
        }
        return Ok(None);
    }
    let mut config = match &wanted.health_cmd {
        None => from_image,
        Some(text) => match command("health-cmd", text)? {
            Some(test) => Some(HealthConfig { test, ..from_image.unwrap_or(USUAL) }),
            None => return Ok(None),
        },
    };
    let Some(config) = &mut config else {
        if details != Wanted::default() {
            return Err(Error::NoHealthCheck);
        }
        return Ok(None);
    };
    let set = |slot: &mut u64, value: Option<u64>| *slot = value.unwrap_or(*slot);
    set(&mut config.interval, interval("health-interval", wanted.health_interval.as_ref())?);
    set(&mut config.timeout, duration("health-timeout", wanted.health_timeout.as_ref(), SECOND)?);
    set(&mut config.start_period, duration("health-start-period", wanted.health_start_period.as_ref(), 0)?);
    let start_interval = duration("health-start-interval", wanted.health_start_interval.as_ref(), 0)?;
    set(&mut config.start_interval, start_interval);
    if let Some(text) = &wanted.health_retries {
        config.retries = match text.parse() {
            Ok(retries @ 1..) => retries,
            _ => return Err(flag("health-retries", text, "it takes a number greater than 0")),
        };
    }
    if let Some(text) = &wanted.health_on_failure {
        config.on_failure = match text.as_str() {
            "none" => HealthAction::None,
            "kill" => HealthAction::Kill,
            "restart" => HealthAction::Restart,
            "stop" => HealthAction::Stop,
            _ => return Err(flag("health-on-failure", text, "it takes none, kill, restart or stop")),
        };
    }
    config.log_count = wanted.health_max_log_count.unwrap_or(config.log_count);
    config.log_size = wanted.health_max_log_size.unwrap_or(config.log_size);
    if wanted.health_log_destination.is_some() {
        config.log_destination = None;
    }
    config.log_destination = match wanted.health_log_destination.as_deref() {
        None => config.log_destination.clone(),
        Some("" | "local") => None,
        Some("events_logger") => {
            let value = "events_logger".into();
            return Err(Error::Unsupported { flag: "health-log-destination", value });
        }
        Some(dir) if dir.starts_with('/') => Some(PathBuf::from(dir)),
        Some(other) => {
            let why = "it takes local or the absolute path of a directory";
            return Err(flag("health-log-destination", other, why));
        }
    };
    config.startup = startup(wanted)?;
    Ok(Some(config.clone()))
}

fn startup(wanted: &Wanted) -> Result<Option<StartupCheck>, Error> {
    let test = match &wanted.health_startup_cmd {
        Some(text) => command("health-startup-cmd", text)?,
        None => None,
    };
    let Some(test) = test else {
        let given = [
            ("health-startup-interval", wanted.health_startup_interval.is_some()),
            ("health-startup-timeout", wanted.health_startup_timeout.is_some()),
            ("health-startup-retries", wanted.health_startup_retries.is_some()),
            ("health-startup-success", wanted.health_startup_success.is_some()),
        ];
        return match given.iter().find(|(_, given)| *given) {
            Some((name, _)) => Err(flag(name, "", "it needs a --health-startup-cmd")),
            None => Ok(None),
        };
    };
    let every = interval("health-startup-interval", wanted.health_startup_interval.as_ref())?;
    let timeout = duration("health-startup-timeout", wanted.health_startup_timeout.as_ref(), SECOND)?;
    Ok(Some(StartupCheck {
        test,
        interval: every.unwrap_or(USUAL.interval),
        timeout: timeout.unwrap_or(USUAL.timeout),
        retries: wanted.health_startup_retries.unwrap_or(0),
        success: wanted.health_startup_success.unwrap_or(0),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn with_command(text: &str) -> Wanted {
        Wanted { health_cmd: Some(text.into()), ..Wanted::default() }
    }

    #[test]
    fn restart_policies() {
        for (text, expected) in [
            ("no", RestartPolicy::No),
            ("", RestartPolicy::No),
            ("always", RestartPolicy::Always),
            ("unless-stopped", RestartPolicy::UnlessStopped),
            ("on-failure", RestartPolicy::OnFailure(None)),
            ("on-failure:0", RestartPolicy::OnFailure(None)),
            ("on-failure:7", RestartPolicy::OnFailure(Some(7))),
        ] {
            assert_eq!(restart(text).unwrap(), expected, "{text}");
        }
        for text in
            ["never", "always:3", "no:1", "on-failure:", "on-failure:-1", "on-failure:x", "On-Failure"]
        {
            assert!(restart(text).is_err(), "{text}");
        }
    }

    #[test]
    fn commands() {
        for (text, words) in [
            ("curl -f localhost", &["CMD-SHELL", "curl -f localhost"][..]),
            ("CMD curl -f  localhost", &["CMD", "curl", "-f", "localhost"]),
            ("CMD-SHELL curl | cat", &["CMD-SHELL", "curl | cat"]),
            (r#"["curl", "-f", "a b"]"#, &["CMD", "curl", "-f", "a b"]),
            (r#"["CMD", "true"]"#, &["CMD", "true"]),
            (r#"["true || false"]"#, &["CMD-SHELL", "true || false"]),
        ] {
            assert_eq!(command("health-cmd", text).unwrap().unwrap(), words, "{text}");
        }
        assert_eq!(command("health-cmd", "none").unwrap(), None);
        assert_eq!(command("health-cmd", r#"["NONE"]"#).unwrap(), None);
        for text in ["", "[]", "CMD", r#"["CMD"]"#] {
            assert!(command("health-cmd", text).is_err(), "{text}");
        }
    }

    #[test]
    fn flags_go_before_the_image() {
        let image = json!({"Test": ["CMD", "true"], "Interval": 5 * SECOND, "Retries": 7, "Timeout": 0});
        let image = || of_image(&image).unwrap();
        let plain = health(&Wanted::default(), image()).unwrap().unwrap();
        assert_eq!((plain.interval, plain.retries, plain.timeout), (5 * SECOND, 7, 30 * SECOND));
        let wanted = Wanted { health_interval: Some("disable".into()), ..Wanted::default() };
        assert_eq!(health(&wanted, image()).unwrap().unwrap().interval, 0);
        let wanted = Wanted { health_retries: Some("2".into()), ..with_command("false") };
        let both = health(&wanted, image()).unwrap().unwrap();
        assert_eq!((both.test[1].as_str(), both.retries, both.interval), ("false", 2, 5 * SECOND));
        assert_eq!(health(&with_command("none"), image()).unwrap(), None);
        let none = Wanted { no_healthcheck: true, ..Wanted::default() };
        assert_eq!(health(&none, image()).unwrap(), None);
        assert_eq!(of_image(&json!({"Test": ["NONE"]})).unwrap(), None);
        assert!(of_image(&json!({"Test": 3})).is_err());
    }

    #[test]
    fn nonsense_is_refused() {
        let bad = [
            Wanted { no_healthcheck: true, ..with_command("true") },
            Wanted { health_interval: Some("1s".into()), ..Wanted::default() },
            Wanted { health_interval: Some("-1s".into()), ..with_command("true") },
            Wanted { health_interval: Some("often".into()), ..with_command("true") },
            Wanted { health_timeout: Some("500ms".into()), ..with_command("true") },
            Wanted { health_retries: Some("0".into()), ..with_command("true") },
            Wanted { health_on_failure: Some("explode".into()), ..with_command("true") },
            Wanted { health_log_destination: Some("here".into()), ..with_command("true") },
            Wanted { health_startup_retries: Some(1), ..with_command("true") },
        ];
        for wanted in bad {
            assert!(health(&wanted, None).is_err(), "{wanted:?}");
        }
    }
}
