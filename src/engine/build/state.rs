//! What a stage has come to: layers, configuration, history, variables. Pure.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::base::digest::Digest;
use crate::image::dockerfile::{Command, Healthcheck, Instruction};
use crate::image::instruction::{self, Instruction as Change};
use crate::image::manifest::{Platform, go_architecture};
use crate::storage::{ImageRecord, LayerRef};

/// The shell of `RUN`, `CMD` and `ENTRYPOINT` where `SHELL` says no other.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// One entry of the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// `created_by`.
    pub by: String,
    /// Nanoseconds since 1970, of a step that made a layer; others were made when the image was.
    pub created: Option<i64>,
    /// There is no layer for it.
    pub empty: bool,
    /// `comment`.
    pub comment: Option<String>,
}

/// What a stage has come to.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    /// Lowest first.
    pub layers: Vec<LayerRef>,
    /// What the manifest says of them.
    pub descriptors: Vec<Value>,
    /// How many are the base's.
    pub inherited: usize,
    /// The configuration but for `rootfs` and `history`.
    pub config: Map<String, Value>,
    /// The base's history, as it stands there.
    pub before: Vec<Value>,
    /// What this build adds.
    pub history: Vec<Entry>,
    /// Of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// Variables of `ARG`s that were met, in their order.
    pub args: Vec<(String, String)>,
    /// The base's name, for people; empty for `scratch`.
    pub base: String,
    /// Its manifest's digest.
    pub base_digest: Option<Digest>,
    /// `CMD` was met in this stage.
    has_command: bool,
}

impl State {
    /// The state after `FROM scratch`.
    pub fn scratch(platform: Platform) -> Self {
        let mut config = Map::new();
        config.insert("architecture".to_owned(), go_architecture(&platform.architecture).into());
        config.insert("os".to_owned(), platform.os.into());
        if let Some(variant) = platform.variant {
            config.insert("variant".to_owned(), variant.into());
        }
        Self { config, ..Self::default() }
    }

    /// The state after `FROM` an image.
    pub fn of_image(image: &ImageRecord, name: &str, descriptors: Vec<Value>) -> Self {
        let mut config = image.config.as_object().cloned().unwrap_or_default();
        let before = match config.remove("history") {
            Some(Value::Array(history)) => history,
            _ => Vec::new(),
        };
        for of_the_base in ["rootfs", "container", "container_config", "docker_version", "id", "parent"] {
            config.remove(of_the_base);
        }
        Self {
            inherited: image.layers.len(),
            layers: image.layers.clone(),
            descriptors,
            config,
            before,
            base: name.to_owned(),
            ..Self::default()
        }
    }

    /// The state after `FROM` another stage: its variables stay behind.
    pub fn of_stage(stage: &Self) -> Self {
        Self { args: Vec::new(), has_command: false, ..stage.clone() }
    }

    /// The member `config` of the configuration.
    pub fn container(&self) -> Option<&Map<String, Value>> {
        self.config.get("config").and_then(Value::as_object)
    }

    pub(super) fn container_mut(&mut self) -> &mut Map<String, Value> {
        let value = self.config.entry("config").or_insert(Value::Null);
        if !value.is_object() {
            *value = json!({});
        }
        match value {
            Value::Object(map) => map,
            _ => unreachable!("it was made a map"),
        }
    }

    fn text(&self, key: &str) -> &str {
        self.container().and_then(|config| config.get(key)?.as_str()).unwrap_or_default()
    }

    fn list(&self, key: &str) -> Vec<String> {
        let list = self.container().and_then(|config| config.get(key)?.as_array());
        list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// `NAME=value`, in their order.
    pub fn env(&self) -> Vec<String> {
        self.list("Env")
    }

    /// `user[:group]`.
    pub fn user(&self) -> &str {
        self.text("User")
    }

    /// Absolute.
    pub fn workdir(&self) -> &str {
        match self.text("WorkingDir") {
            "" => "/",
            dir => dir,
        }
    }

    /// The words before a line for the shell.
    pub fn shell(&self) -> Vec<String> {
        match self.list("Shell") {
            shell if shell.is_empty() => SHELL.map(str::to_owned).to_vec(),
            shell => shell,
        }
    }

    /// The words of a command.
    pub fn words(&self, command: &Command) -> Vec<String> {
        match command {
            Command::Exec(words) => words.clone(),
            Command::Shell(line) => self.shell().into_iter().chain([line.clone()]).collect(),
        }
    }

    /// Takes the instructions out that wait for who builds upon this.
    pub fn take_triggers(&mut self) -> Vec<String> {
        let triggers = self.list("OnBuild");
        if !triggers.is_empty() {
            self.container_mut().remove("OnBuild");
        }
        triggers
    }

    /// The value of a variable: `ENV` hides `ARG`.
    pub fn lookup(&self, name: &str) -> Option<String> {
        let of_env = |item: String| item.strip_prefix(name)?.strip_prefix('=').map(str::to_owned);
        let of_args = || self.args.iter().find(|(arg, _)| arg == name).map(|(_, value)| value.clone());
        self.env().into_iter().find_map(of_env).or_else(of_args)
    }

    /// Gives an `ARG` its value. One that is told again without any keeps what it had.
    pub fn set_arg(&mut self, name: &str, value: Option<String>) {
        if let Some(value) = value {
            self.args.retain(|(known, _)| known != name);
            self.args.push((name.to_owned(), value));
        }
    }

    /// The variables of `ARG`s that a command sees, as `NAME=value`.
    pub fn visible_args(&self) -> Vec<String> {
        let env = self.env();
        let hidden = |name: &str| env.iter().any(|item| item.split('=').next() == Some(name));
        let args = self.args.iter().filter(|(name, _)| !hidden(name));
        args.map(|(name, value)| format!("{name}={value}")).collect()
    }

    /// Carries an instruction out that changes nothing but the configuration; whether it was one.
    pub fn configure(&mut self, instruction: &Instruction) -> Result<bool, instruction::Error> {
        let change = match instruction {
            Instruction::Env(pairs) => Change::Env(pairs.clone()),
            Instruction::Label(pairs) => Change::Label(pairs.clone()),
            Instruction::Cmd(command) => {
                self.has_command = true;
                Change::Cmd(self.words(command))
            }
            Instruction::Entrypoint(command) => {
                if !self.has_command {
                    // What were arguments of the base's own entrypoint are none of this one.
                    self.container_mut().remove("Cmd");
                }
                Change::Entrypoint(self.words(command))
            }
            Instruction::Expose(ports) => Change::parse(&format!("EXPOSE {}", ports.join(" ")))?,
            Instruction::Volume(paths) => Change::Volume(paths.clone()),
            Instruction::User(user) => Change::User(user.clone()),
            Instruction::Workdir(path) => Change::Workdir(path.clone()),
            Instruction::StopSignal(signal) => Change::parse(&format!("STOPSIGNAL {signal}"))?,
            Instruction::OnBuild(text) => Change::OnBuild(text.clone()),
            Instruction::Shell(words) => {
                self.container_mut().insert("Shell".to_owned(), json!(words));
                return Ok(true);
            }
            Instruction::Healthcheck(check) => {
                let check = self.health(check);
                self.container_mut().insert("Healthcheck".to_owned(), check);
                return Ok(true);
            }
            Instruction::Maintainer(name) => {
                self.config.insert("author".to_owned(), json!(name));
                return Ok(true);
            }
            Instruction::Arg(_) | Instruction::Run(_) | Instruction::Copy(_) => return Ok(false),
        };
        change.apply(self.container_mut());
        Ok(true)
    }

    /// Docker's `Healthcheck`: the command, and times in nanoseconds.
    fn health(&self, check: &Healthcheck) -> Value {
        let Healthcheck::Command { command, interval, timeout, start_period, start_interval, retries } =
            check
        else {
            return json!({ "Test": ["NONE"] });
        };
        let test = match command {
            Command::Shell(line) => vec!["CMD-SHELL".to_owned(), line.clone()],
            Command::Exec(words) => [&["CMD".to_owned()], &**words].concat(),
        };
        let mut health = json!({ "Test": test });
        let times = [
            ("Interval", interval),
            ("Timeout", timeout),
            ("StartPeriod", start_period),
            ("StartInterval", start_interval),
        ];
        for (key, time) in times {
            if let Some(time) = time {
                health[key] = json!(time);
            }
        }
        if let Some(retries) = retries {
            health["Retries"] = json!(retries);
        }
        health
    }

    /// Adds to the history what gave no layer.
    pub fn note(&mut self, text: &str) {
        let by = format!("{} #(nop) {text}", SHELL.join(" "));
        self.history.push(Entry { by, created: None, empty: true, comment: None });
    }

    /// Adds a layer, and what it came of.
    pub fn add(
        &mut self,
        layer: Option<LayerRef>,
        descriptor: impl FnOnce(&LayerRef) -> Value,
        entry: Entry,
    ) {
        let empty = layer.is_none();
        if let Some(layer) = layer {
            self.descriptors.push(descriptor(&layer));
            self.layers.push(layer);
        }
        self.history.push(Entry { empty, ..entry });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(instructions: &[Instruction]) -> State {
        let mut state = State::scratch("linux/amd64".parse().unwrap());
        state.container_mut().insert("Cmd".into(), json!(["old"]));
        state.container_mut().insert("Env".into(), json!(["A=1"]));
        for instruction in instructions {
            assert!(state.configure(instruction).unwrap());
        }
        state
    }

    #[test]
    fn instructions_change_the_configuration() {
        let shell = |line: &str| Command::Shell(line.into());
        let state = after(&[
            Instruction::Entrypoint(Command::Exec(vec!["/x".into()])),
            Instruction::Shell(vec!["/bin/bash".into(), "-ec".into()]),
            Instruction::Cmd(shell("a b")),
            Instruction::Expose(vec!["80".into(), "53/udp".into()]),
            Instruction::Workdir("w".into()),
            Instruction::Healthcheck(Healthcheck::Command {
                command: shell("ok"),
                interval: Some(5),
                timeout: None,
                start_period: None,
                start_interval: None,
                retries: Some(2),
            }),
            Instruction::Maintainer("me".into()),
        ]);
        assert_eq!(state.config["author"], "me");
        assert_eq!(
            state.config["config"],
            json!({
                "Entrypoint": ["/x"], "Cmd": ["/bin/bash", "-ec", "a b"], "Shell": ["/bin/bash", "-ec"],
                "Env": ["A=1"], "ExposedPorts": { "80/tcp": {}, "53/udp": {} }, "WorkingDir": "/w",
                "Healthcheck": { "Test": ["CMD-SHELL", "ok"], "Interval": 5, "Retries": 2 },
            })
        );
        let state =
            after(&[Instruction::Entrypoint(shell("x")), Instruction::Healthcheck(Healthcheck::None)]);
        assert_eq!(
            state.config["config"],
            json!({ "Entrypoint": ["/bin/sh", "-c", "x"], "Env": ["A=1"], "Healthcheck": { "Test": ["NONE"] } })
        );
        let wrong = after(&[]).configure(&Instruction::Expose(vec!["0".into()])).unwrap_err();
        assert!(wrong.to_string().contains("EXPOSE"), "{wrong}");
    }

    #[test]
    fn env_hides_arg() {
        let mut state = after(&[]);
        state.set_arg("A", Some("2".into()));
        state.set_arg("B", Some("3".into()));
        state.set_arg("C", None);
        assert_eq!(state.lookup("A").as_deref(), Some("1"));
        assert_eq!(state.lookup("B").as_deref(), Some("3"));
        assert_eq!(state.lookup("C"), None);
        assert_eq!(state.visible_args(), ["B=3"]);
        state.set_arg("B", None);
        assert_eq!(state.visible_args(), ["B=3"], "it is told again, and has what it had");
        assert!(State::of_stage(&state).args.is_empty());
    }

    #[test]
    fn triggers_are_for_the_next_build_only() {
        let mut state = after(&[Instruction::OnBuild("RUN x".into())]);
        assert_eq!(state.take_triggers(), ["RUN x"]);
        assert!(state.take_triggers().is_empty());
        assert!(state.container().is_some_and(|config| !config.contains_key("OnBuild")));
    }
}
