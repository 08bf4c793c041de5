//! Settings of a group as properties of a systemd unit (systemd.resource-control(5)). Pure.
//!
//! What systemd has no property for is only written into the group's files; so is the exact value of
//! what it rounds. Nothing of this is needed for the limits themselves, but systemd sets the group's
//! files anew from its properties whenever it is reloaded.

use std::collections::BTreeMap;

use super::super::resources::{DEFAULT_PERIOD, Setting};
use super::message::Value;

/// The properties for these settings, sorted by name.
pub(super) fn properties(settings: &[Setting]) -> Vec<(String, Value)> {
    let mut list = BTreeMap::new();
    for setting in settings {
        let value = setting.value.trim();
        let mut set = |name: &str, value: Value| list.insert(name.to_owned(), value);
        let number = || match value {
            "max" | "infinity" => Some(u64::MAX),
            _ => value.parse().ok(),
        };
        let direct = match setting.file.as_str() {
            "memory.max" => "MemoryMax",
            "memory.high" => "MemoryHigh",
            "memory.low" => "MemoryLow",
            "memory.min" => "MemoryMin",
            "memory.swap.max" => "MemorySwapMax",
            "pids.max" => "TasksMax",
            "cpu.weight" => "CPUWeight",
            "cpu.max" => {
                if let Some((quota, period)) = quota(value) {
                    set("CPUQuotaPerSecUSec", Value::U64(quota));
                    if period != DEFAULT_PERIOD {
                        set("CPUQuotaPeriodUSec", Value::U64(period));
                    }
                }
                continue;
            }
            "cpuset.cpus" | "cpuset.mems" => {
                let name = if setting.file == "cpuset.cpus" { "AllowedCPUs" } else { "AllowedMemoryNodes" };
                if let Some(bits) = bits(value) {
                    set(name, Value::Array("y", bits.into_iter().map(Value::Byte).collect()));
                }
                continue;
            }
            "io.bfq.weight" => {
                // systemd works BFQ's own weight out of this one.
                let weight = setting.otherwise.as_ref().and_then(|(_, text)| text.strip_prefix("default "));
                if let Some(weight) = weight.and_then(|weight| weight.parse().ok()) {
                    set("IOWeight", Value::U64(weight));
                }
                continue;
            }
            "io.max" => {
                for (name, path, most) in rates(value) {
                    let pair = Value::Struct(vec![Value::text(path.as_str()), Value::U64(most)]);
                    match list.entry(name.to_owned()).or_insert(Value::Array("(st)", Vec::new())) {
                        Value::Array(_, pairs) => pairs.push(pair),
                        _ => continue,
                    }
                }
                continue;
            }
            _ => continue,
        };
        if let Some(number) = number() {
            set(direct, Value::U64(number));
        }
    }
    list.into_iter().collect()
}

/// `QUOTA [PERIOD]` as microseconds of each second, and the period. systemd knows whole percents only:
/// rounded up, so that what is below can have what it was promised.
fn quota(value: &str) -> Option<(u64, u64)> {
    let mut words = value.split_whitespace();
    let quota = words.next()?;
    let period =
        words.next().map_or(Some(DEFAULT_PERIOD), |period| period.parse().ok()).filter(|p| *p > 0)?;
    if quota == "max" {
        return Some((u64::MAX, period));
    }
    let a_second = u128::from(quota.parse::<u64>().ok()?) * 1_000_000 / u128::from(period);
    Some((u64::try_from(a_second).ok()?.checked_next_multiple_of(10_000)?, period))
}

/// `MAJOR:MINOR rbps=N …` as properties, each with the device's path and the rate.
fn rates(value: &str) -> Vec<(&'static str, String, u64)> {
    let Some((device, rates)) = value.split_once(' ') else { return Vec::new() };
    let one = |rate: &str| {
        let (word, most) = rate.split_once('=')?;
        let name = match word {
            "rbps" => "IOReadBandwidthMax",
            "wbps" => "IOWriteBandwidthMax",
            "riops" => "IOReadIOPSMax",
            "wiops" => "IOWriteIOPSMax",
            _ => return None,
        };
        let most = if most == "max" { u64::MAX } else { most.parse().ok()? };
        // The name that udev has for every block device: systemd wants one.
        Some((name, format!("/dev/block/{device}"), most))
    };
    rates.split_whitespace().filter_map(one).collect()
}

/// `0-2,5` as a bit mask, the lowest byte first.
fn bits(value: &str) -> Option<Vec<u8>> {
    let mut bytes: Vec<u8> = Vec::new();
    for part in value.split(',').map(str::trim) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        // More than any kernel is built for.
        if first > last || last > 65_535 {
            return None;
        }
        for number in first..=last {
            if bytes.len() <= number / 8 {
                bytes.resize(number / 8 + 1, 0);
            }
            bytes[number / 8] |= 1 << (number % 8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> Vec<(String, Value)> {
        properties(
            &super::super::super::resources::settings(Some(&serde_json::from_str(json).unwrap())).unwrap(),
        )
    }

    #[test]
    fn settings_become_properties() {
        let list = of(
            r#"{"memory":{"limit":100,"swap":150,"reservation":-1},"cpu":{"shares":1024,"quota":5050,"period":50000,"cpus":"0,9"},
            "pids":{"limit":-1},"blockIO":{"weight":1000},"unified":{"memory.high":"7","hugetlb.2MB.max":"1"}}"#,
        );
        let names: Vec<&str> = list.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            [
                "AllowedCPUs",
                "CPUQuotaPerSecUSec",
                "CPUQuotaPeriodUSec",
                "CPUWeight",
                "IOWeight",
                "MemoryHigh",
                "MemoryLow",
                "MemoryMax",
                "MemorySwapMax",
                "TasksMax"
            ]
        );
        let value = |name: &str| list.iter().find(|(n, _)| n == name).unwrap().1.clone();
        assert_eq!(value("AllowedCPUs"), Value::Array("y", vec![Value::Byte(1), Value::Byte(2)]));
        // 10.1 percent.
        assert_eq!(value("CPUQuotaPerSecUSec"), Value::U64(110_000));
        assert_eq!(value("MemoryLow"), Value::U64(u64::MAX));
        assert_eq!(value("MemorySwapMax"), Value::U64(50));
        assert_eq!(value("IOWeight"), Value::U64(10_000));
    }

    #[test]
    fn rates_of_devices() {
        let list = of(
            r#"{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":100},{"major":8,"minor":16,"rate":7}],
            "throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":5}]}}"#,
        );
        let pair = |path: &str, most| Value::Struct(vec![Value::text(path), Value::U64(most)]);
        let read = Value::Array("(st)", vec![pair("/dev/block/8:0", 100), pair("/dev/block/8:16", 7)]);
        let write = Value::Array("(st)", vec![pair("/dev/block/8:0", 5)]);
        assert_eq!(list, [("IOReadBandwidthMax".to_owned(), read), ("IOWriteIOPSMax".to_owned(), write)]);
        assert_eq!(rates("8:0 wbps=max"), [("IOWriteBandwidthMax", "/dev/block/8:0".to_owned(), u64::MAX)]);
        assert!(rates("8:0").is_empty() && rates("8:0 what=5 rbps=x").is_empty());
    }

    #[test]
    fn quotas_and_sets() {
        assert_eq!(quota("max 100000"), Some((u64::MAX, 100_000)));
        assert_eq!(quota("50000"), Some((500_000, 100_000)));
        assert_eq!(quota("1 0"), None);
        assert_eq!(bits("0-2,8"), Some(vec![7, 1]));
        assert!(bits("2-1").is_none() && bits("x").is_none() && bits("0-99999999").is_none());
    }
}
