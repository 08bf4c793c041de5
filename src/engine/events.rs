//! `events`: what has happened, and what goes on to happen.

use std::io;
use std::time::Duration;

use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use serde_json::{Value, json};

use super::list::timestamp;
use super::{Engine, Error};
use crate::base::time;
use crate::storage::events::{Event, EventLog};

/// Which events, and how.
#[derive(Debug, Default)]
pub struct EventOptions {
    /// Nothing before.
    pub since: Option<Timestamp>,
    /// Nothing after; one that is still to come ends the command.
    pub until: Option<Timestamp>,
    /// Those that fit.
    pub filter: EventFilter,
    /// Go on with what is still to happen.
    pub stream: bool,
}

/// `--filter`: values of one key are alternatives, those of different keys must all fit.
#[derive(Debug, Default)]
pub struct EventFilter(Vec<(Key, Vec<String>)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Container,
    Status,
    Image,
    Label,
    Volume,
    Kind,
}

/// A label counts for its own: all that are asked for must be there.
impl EventFilter {
    /// `KEY=VALUE`, several times.
    pub fn parse(texts: &[String]) -> Result<Self, Error> {
        let mut filter = Self::default();
        for text in texts {
            let bad = |why: String| Error::EventFilter(why);
            let (key, value) = text
                .split_once('=')
                .ok_or_else(|| bad(format!("the filter \"{text}\" is not of the form KEY=VALUE")))?;
            let key = match key {
                "container" => Key::Container,
                "event" | "status" => Key::Status,
                "image" => Key::Image,
                "label" => Key::Label,
                "volume" => Key::Volume,
                "type" => Key::Kind,
                "pod" => return Err(bad("the filter \"pod\" is not supported yet".into())),
                _ => return Err(bad(format!("there is no filter \"{key}\""))),
            };
            match filter.0.iter_mut().find(|(known, _)| *known == key && key != Key::Label) {
                Some((_, values)) => values.push(value.to_owned()),
                None => filter.0.push((key, vec![value.to_owned()])),
            }
        }
        Ok(filter)
    }

    fn fits(&self, event: &Event) -> bool {
        let named = |kind: &str, value: &str| {
            event.kind == kind && (event.name == value || (!value.is_empty() && event.id.starts_with(value)))
        };
        let bare = |name: &str| name.rsplit('/').next().unwrap_or(name).to_owned();
        let is_image = |name: &str, value: &str| {
            let (name, value) = if value.contains('/') { (name.into(), value) } else { (bare(name), value) };
            name == value || name.split(':').next() == Some(value)
        };
        self.0.iter().all(|(key, values)| {
            values.iter().any(|value| match key {
                Key::Container => named("container", value),
                Key::Status => event.status == *value,
                Key::Image => {
                    is_image(&event.image, value)
                        || named("image", value)
                        || (event.kind == "image" && is_image(&event.name, value))
                }
                Key::Label => match value.split_once('=') {
                    Some((name, wanted)) => event.attributes.get(name).is_some_and(|has| has == wanted),
                    None => event.attributes.contains_key(value),
                },
                Key::Volume => named("volume", value),
                Key::Kind => event.kind == *value,
            })
        })
    }
}

/// How an event is told: Podman's line for people.
pub fn line(event: &Event, truncate: bool) -> String {
    let moment = time::go(timestamp(event.time), &jiff::tz::TimeZone::system());
    let id = if truncate { &event.id[..event.id.len().min(12)] } else { &event.id };
    let Event { kind, status, name, image, .. } = event;
    match kind.as_str() {
        "container" => {
            let mut line = format!("{moment} {kind} {status} {id} (image={image}, name={name}");
            if let Some(health) = &event.health {
                line.push_str(&format!(", health_status={health}"));
            }
            for (label, value) in &event.attributes {
                line.push_str(&format!(", {label}={value}"));
            }
            line.push(')');
            line
        }
        "image" => format!("{moment} {kind} {status} {id} {name}"),
        _ if name.is_empty() => format!("{moment} {kind} {status}"),
        _ => format!("{moment} {kind} {status} {name}"),
    }
}

/// The same in Podman's JSON; `template`: with all fields that a template may name.
pub fn fields(event: &Event, truncate: bool, template: bool) -> Value {
    let when = timestamp(event.time);
    let zone = jiff::tz::TimeZone::system();
    let id = if truncate { &event.id[..event.id.len().min(12)] } else { &event.id };
    let mut value = json!({
        "Name": event.name,
        "Status": event.status,
        "Time": if template { time::go(when, &zone) } else { time::rfc3339(when, &zone) },
        "TimeNano": event.time,
        "Type": event.kind,
        "Attributes": if event.attributes.is_empty() { Value::Null } else { json!(event.attributes) },
    });
    for (name, text) in [("ID", id), ("Image", event.image.as_str())] {
        if template || !text.is_empty() {
            value[name] = text.into();
        }
    }
    if template || event.exit_code.is_some() {
        value["ContainerExitCode"] = event.exit_code.unwrap_or(0).into();
    }
    if template || event.health.is_some() {
        value["HealthStatus"] = event.health.as_deref().unwrap_or_default().into();
    }
    if template {
        for none in ["Network", "PodID", "Details", "Error"] {
            value[none] = "".into();
        }
    }
    value
}

impl Engine {
    /// The store's event log.
    pub fn event_log(&self) -> EventLog {
        EventLog::new(&self.paths.root)
    }

    /// Notes something that happened.
    pub fn note(&self, event: Event) {
        self.event_log().write(&[event]);
    }

    /// Hands events to `sink` until the last one that is asked for, or until `sink` says false.
    pub fn events(
        &self,
        options: &EventOptions,
        sink: &mut dyn FnMut(&Event) -> Result<bool, io::Error>,
    ) -> Result<(), Error> {
        let log = self.event_log();
        let failed = |source| Error::File { action: "reading", path: log.dir().to_owned(), source };
        let now = Timestamp::now();
        let follows = options.stream && options.until.is_none_or(|until| until > now);
        let watch = if follows {
            match std::fs::create_dir(log.dir()) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
                _ => {}
            }
            let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
                .map_err(|error| failed(error.into()))?;
            inotify::add_watch(&watch, log.dir(), WatchFlags::MODIFY | WatchFlags::CREATE)
                .map_err(|error| failed(error.into()))?;
            Some(watch)
        } else {
            None
        };
        // Without a word about when, what streams begins now.
        let since = options.since.or((follows && options.until.is_none()).then_some(now));
        let since = since.map_or(i128::MIN, Timestamp::as_nanosecond);
        let until = options.until.map_or(i128::MAX, Timestamp::as_nanosecond);
        let mut reader = log.read().map_err(failed)?;
        loop {
            while let Some(event) = reader.read().map_err(failed)? {
                let time = i128::from(event.time);
                if (since..=until).contains(&time)
                    && options.filter.fits(&event)
                    && !sink(&event).map_err(Error::Relay)?
                {
                    return Ok(());
                }
            }
            let Some(watch) = &watch else { return Ok(()) };
            let left = options.until.map(|until| until.duration_since(Timestamp::now()));
            let left = match left.map(Duration::try_from) {
                Some(Err(_)) => return Ok(()),
                Some(Ok(left)) if left.is_zero() => return Ok(()),
                Some(Ok(left)) => Some(Timespec {
                    tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
                    tv_nsec: left.subsec_nanos().into(),
                }),
                None => None,
            };
            match poll(&mut [PollFd::new(watch, PollFlags::IN)], left.as_ref()) {
                Err(rustix::io::Errno::INTR) | Ok(_) => {}
                Err(error) => return Err(failed(error.into())),
            }
            let mut buffer = [0; 4096];
            while matches!(rustix::io::read(watch, &mut buffer), Ok(1..)) {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn event() -> Event {
        Event {
            time: 0,
            kind: "container".into(),
            status: "died".into(),
            id: "0123456789abcdef".into(),
            name: "web".into(),
            image: "localhost/busybox:latest".into(),
            attributes: BTreeMap::from([("a".into(), "b".into())]),
            exit_code: Some(3),
            health: None,
        }
    }

    #[test]
    fn filters() {
        let fits = |texts: &[&str]| {
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            EventFilter::parse(&texts).unwrap().fits(&event())
        };
        for texts in [
            &["container=web"][..],
            &["container=0123"],
            &["event=start", "event=died"],
            &["image=busybox", "type=container"],
            &["image=localhost/busybox:latest"],
            &["label=a", "label=a=b"],
            &[],
        ] {
            assert!(fits(texts), "{texts:?}");
        }
        for texts in [
            &["container=we"][..],
            &["container="],
            &["event=died", "type=image"],
            &["image=busy"],
            &["label=a", "label=c"],
            &["volume=web"],
        ] {
            assert!(!fits(texts), "{texts:?}");
        }
        for text in ["nonsense", "pod=x", "colour=red"] {
            assert!(EventFilter::parse(&[text.to_owned()]).is_err(), "{text}");
        }
    }

    #[test]
    fn lines() {
        let text = line(&event(), true);
        let expected = "container died 0123456789ab (image=localhost/busybox:latest, name=web, a=b)";
        assert!(text.ends_with(expected), "{text}");
        let volume = Event::new("volume", "create", "data");
        assert!(line(&volume, false).ends_with(" volume create data"));
        assert_eq!(fields(&event(), false, false)["ContainerExitCode"], 3);
        assert!(fields(&volume, false, false).get("ID").is_none());
    }
}
