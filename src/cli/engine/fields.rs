//! Fields that Podman's templates find even where nothing is in them. In its JSON they are left out then, and
//! so they are here: they are added for a template that speaks of them.

use serde_json::{Map, Value, json};

/// Every field with its value where there is none: `'` the empty text, `0`, `!` false, `[` an empty list, `{` an
/// empty map, `?` nothing.
pub const CONTAINER: &str = "OCIConfigPath' SizeRw? SizeRootFs0 State.Healthcheck.Log[ State.Checkpointed! \
     State.CheckpointLog' State.CheckpointPath' State.RestoreLog' State.Restored! \
     NetworkSettings.AdditionalMacAddresses[ NetworkSettings.SecondaryIPAddresses[ \
     NetworkSettings.SecondaryIPv6Addresses[ NetworkSettings.Ports{ Config.Healthcheck? \
     Config.StartupHealthCheck? Config.Volumes{ Config.OnBuild? Config.Labels{ Config.Cmd[ \
     Config.Entrypoint[ Config.Env[ Config.ExposedPorts{ Config.Timezone' Config.SystemdMode! \
     Config.Secrets[ Config.ChrootDirs[ Config.SdNotifySocket' Config.Umask' \
     Config.HealthcheckOnFailureAction' HostConfig.AutoRemoveImage! HostConfig.HostsFile' HostConfig.Init! \
     HostConfig.VolumesFrom[ HostConfig.Links[ HostConfig.LogConfig.Config{ HostConfig.BlkioWeightDevice[ \
     HostConfig.BlkioDeviceReadBps[ HostConfig.BlkioDeviceWriteBps[ HostConfig.BlkioDeviceReadIOps[ \
     HostConfig.BlkioDeviceWriteIOps[ HostConfig.CgroupConf{ HostConfig.Tmpfs{ HostConfig.IDMappings?";
/// An image's.
pub const IMAGE: &str = "Labels{ Annotations{ RepoTags[ RepoDigests[ HealthCheck? NamesHistory[ History[ \
     Comment' Author' Version' User' Config.User' Config.ExposedPorts{ Config.Env[ Config.Entrypoint[ \
     Config.Cmd[ Config.Volumes{ Config.WorkingDir' Config.Labels{ Config.StopSignal' Config.ArgsEscaped! \
     Config.OnBuild[ Config.Healthcheck?";
/// A volume's.
pub const VOLUME: &str = "Status{ Timeout0 StorageID' LockNumber0";
/// Of `info`: mostly about programs that are no part of this one.
pub const INFO: &str = "host.BuildahVersion' host.Conmon{ host.CPUUtilization{ host.DatabaseBackend' \
     host.FreeLocks0 host.NetworkBackendInfo{ host.Pasta{ host.RuntimeInfo{ host.Variant' store.TransientStore!";

/// Adds to what is inspected the `fields` that a template speaks of. What is `null` prints as the empty list or
/// map that it stands for; as JSON it stays.
pub fn complete(mut value: Value, fields: &str, format: Option<&str>) -> Value {
    let Some(format) = format.filter(|format| format.contains("{{")) else { return value };
    for field in fields.split_whitespace() {
        let (path, kind) = field.split_at(field.len() - 1);
        let (above, name) = path.rsplit_once('.').unwrap_or(("", path));
        let spoken = above.rsplit('.').next().unwrap_or_default();
        if !format.contains(name) || !format.to_lowercase().contains(&spoken.to_lowercase()) {
            continue;
        }
        let mut above = above.split('.').filter(|part| !part.is_empty());
        let object = above.try_fold(&mut value, |value, part| value.get_mut(part));
        let Some(object) = object.and_then(Value::as_object_mut) else { continue };
        let empty = match kind {
            "'" => "".into(),
            "0" => 0.into(),
            "!" => false.into(),
            "[" => json!([]),
            "{" => Map::new().into(),
            _ => Value::Null,
        };
        match object.get_mut(name) {
            Some(Value::Null) if !format.contains("json") => object[name] = empty,
            Some(_) => {}
            None => drop(object.insert(name.to_owned(), empty)),
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_template_speaks_of_is_there() {
        let image = json!({ "Labels": null, "RepoTags": ["a"], "Config": {} });
        let of = |format| complete(image.clone(), IMAGE, Some(format));
        assert_eq!(of("{{.Config.Cmd}}")["Config"], json!({ "Cmd": [] }));
        assert_eq!(
            of("{{with .Config}}{{.User}}{{.Volumes}}{{end}}")["Config"],
            json!({ "User": "", "Volumes": {} })
        );
        assert_eq!(of("{{.Labels}} {{.RepoTags}}"), json!({ "Labels": {}, "RepoTags": ["a"], "Config": {} }));
        assert_eq!(of("{{json .Labels}}"), image);
        assert_eq!(of("json"), image);
        assert_eq!(complete(image.clone(), IMAGE, None), image);
        for field in [CONTAINER, IMAGE, VOLUME, INFO].iter().flat_map(|fields| fields.split_whitespace()) {
            assert!(field.ends_with(|c| "'0!?[{".contains(c)), "{field}");
        }
    }
}
