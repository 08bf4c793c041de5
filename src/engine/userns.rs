//! Which ids a container has: `--userns`, `--uidmap` and their like. Everything but the look at other
//! containers and at the image's users is pure.

use super::config::{Error, Surroundings, flag};
use super::request::RunRequest;
use crate::base::idmap::{self, IdMapping, IdRange};
use crate::security::idmap::{Rung, RungKind};
use crate::storage::containers::UsernsMode;

/// What `--userns` was told beside its mode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Details {
    uid: Option<u32>,
    gid: Option<u32>,
    size: Option<u32>,
    uids: Vec<IdRange>,
    gids: Vec<IdRange>,
}

/// Of whom the host's ids are that a container may get.
#[derive(Clone)]
pub(super) struct Ids<'a> {
    /// The rung of the ladder.
    pub rung: &'a Rung,
    /// The user's own ids.
    pub own: (u32, u32),
    /// The subordinate ids of a name (`/etc/subuid`, `/etc/subgid`).
    pub subordinate: &'a dyn Fn(&str, &str) -> Vec<IdRange>,
    /// The mappings of other containers that must not be met.
    pub taken: &'a [IdMapping],
    /// How many ids the image needs.
    pub needed: u32,
}

/// The mode that a request chooses.
pub(super) fn mode(request: &RunRequest, around: &Surroundings<'_>) -> Result<UsernsMode, Error> {
    let mapped = request.uidmaps.first().or(request.gidmaps.first());
    let named = request.subuidname.as_ref().or(request.subgidname.as_ref());
    let text = request.userns.as_deref().unwrap_or_default();
    let (word, rest) = text.split_once(':').map_or((text, None), |(word, rest)| (word, Some(rest)));
    if let (Some(name), Some(_)) = (named, mapped) {
        return Err(flag("subuidname", name, "it cannot be used together with --uidmap and --gidmap"));
    }
    if let (Some(one), false) = (mapped.or(named), matches!(word, "" | "private" | "keep-id" | "nomap")) {
        let name = if mapped.is_some() { "uidmap" } else { "subuidname" };
        return Err(flag(name, one, format!("it cannot be used together with --userns {text}")));
    }
    if let (Some(name), "keep-id" | "nomap") = (named, word) {
        return Err(flag("subuidname", name, format!("it cannot be used together with --userns {text}")));
    }
    match (word, rest) {
        ("" | "private", None) if mapped.or(named).is_some() => Ok(UsernsMode::Private),
        ("", None) | ("host", None) => Ok(UsernsMode::Default),
        ("private", None) if !around.root => Ok(UsernsMode::Default),
        ("private", None) => Err(flag("userns", text, "it needs --uidmap or --subuidname as well")),
        ("keep-id" | "nomap", _) if around.root => {
            Err(flag("userns", text, "only for users: root has no id to keep"))
        }
        ("nomap", None) => Ok(UsernsMode::Nomap),
        ("keep-id", _) => details(text).map(|_| UsernsMode::KeepId),
        ("auto", _) => details(text).map(|_| UsernsMode::Auto),
        ("container", Some(other)) => match (around.find)(other) {
            Ok(record) => Ok(UsernsMode::Container(record.id)),
            Err(why) => Err(flag("userns", text, why)),
        },
        ("ns", Some(path)) if path.starts_with('/') => Ok(UsernsMode::Path(path.into())),
        ("ns", _) => Err(flag("userns", text, "the path of a namespace is absolute")),
        _ => {
            let known = "it takes host, keep-id, auto, nomap, private, container:NAME or ns:PATH";
            Err(flag("userns", text, known))
        }
    }
}

/// What stands behind `keep-id:` and `auto:`.
fn details(text: &str) -> Result<Details, Error> {
    let bad = |why: String| flag("userns", text, why);
    let mut details = Details::default();
    let (word, rest) = text.split_once(':').unwrap_or((text, ""));
    let number = |value: &str| {
        let number = value.parse::<u32>().ok().filter(|n| *n < u32::MAX);
        number.ok_or_else(|| bad(format!("\"{value}\" is no id or number of ids")))
    };
    for item in rest.split(',').filter(|item| !item.is_empty()) {
        let (key, value) = item.split_once('=').ok_or_else(|| bad(format!("\"{item}\" has no value")))?;
        let range = || {
            let numbers: Vec<u32> = value.split(':').map(number).collect::<Result<_, _>>()?;
            match numbers[..] {
                [container, host] => Ok(IdRange { container, host, size: 1 }),
                [container, host, size] if size > 0 => Ok(IdRange { container, host, size }),
                _ => Err(bad(format!("\"{value}\" is not CONTAINER:HOST:COUNT"))),
            }
        };
        match (word, key) {
            ("keep-id", "uid") => details.uid = Some(number(value)?),
            ("keep-id", "gid") => details.gid = Some(number(value)?),
            (_, "size") => match number(value)? {
                0 => return Err(bad("a size of 0 leaves no id".to_owned())),
                size => details.size = Some(size),
            },
            ("auto", "uidmapping") => details.uids.push(range()?),
            ("auto", "gidmapping") => details.gids.push(range()?),
            _ => return Err(bad(format!("there is no option \"{key}\""))),
        }
    }
    Ok(details)
}

/// The mapping of a container of these modes; others' come from elsewhere.
pub(super) fn mapping(
    request: &RunRequest,
    mode: &UsernsMode,
    ids: &Ids<'_>,
) -> Result<Option<IdMapping>, Error> {
    let root = ids.rung.kind == RungKind::Root;
    let default = || (!root).then(|| ids.rung.mapping.clone());
    let text = request.userns.as_deref().unwrap_or_default();
    let base = match mode {
        UsernsMode::KeepId => keep_id(&details(text)?, ids),
        UsernsMode::Nomap => nomap(text, ids)?,
        UsernsMode::Auto => return auto(text, &details(text)?, ids).map(Some),
        UsernsMode::Private if request.subuidname.is_some() || request.subgidname.is_some() => {
            by_name(request, ids)?
        }
        UsernsMode::Private => IdMapping::default(),
        UsernsMode::Default | UsernsMode::Container(_) | UsernsMode::Path(_) => return Ok(default()),
    };
    if request.uidmaps.is_empty() && request.gidmaps.is_empty() {
        return Ok(Some(base));
    }
    told(request, base, ids).map(Some)
}

fn keep_id(details: &Details, ids: &Ids<'_>) -> IdMapping {
    let kept = |ranges: &[IdRange], own: u32, inside: Option<u32>| {
        let mut kept = idmap::keeping_as(ranges, own, inside.unwrap_or(own));
        if let Some(size) = details.size {
            kept.retain_mut(|range| {
                range.size =
                    range.size.min(size.saturating_sub(range.container).max(u32::from(range.host == own)));
                range.size > 0
            });
        }
        kept
    };
    IdMapping {
        uids: kept(&ids.rung.mapping.uids, ids.own.0, details.uid),
        gids: kept(&ids.rung.mapping.gids, ids.own.1, details.gid),
    }
}

/// The ranges but for one id, from 0 on.
fn without(ranges: &[IdRange], own: u32) -> Vec<IdRange> {
    let mut next = 0;
    let mut rest = Vec::new();
    for range in ranges.iter().filter(|range| !(range.host == own && range.size == 1)) {
        rest.push(IdRange { container: next, ..*range });
        next += range.size;
    }
    rest
}

fn nomap(text: &str, ids: &Ids<'_>) -> Result<IdMapping, Error> {
    if ids.rung.kind != RungKind::Subordinate {
        return Err(flag("userns", text, "without subordinate ids there is none but the user's own"));
    }
    let of = &ids.rung.mapping;
    Ok(IdMapping { uids: without(&of.uids, ids.own.0), gids: without(&of.gids, ids.own.1) })
}

fn by_name(request: &RunRequest, ids: &Ids<'_>) -> Result<IdMapping, Error> {
    let names = [&request.subuidname, &request.subgidname];
    let either_flag = if names[0].is_some() { "subuidname" } else { "subgidname" };
    let either = names.iter().find_map(|name| name.as_deref()).unwrap_or_default();
    let of = |name: &Option<String>, flag_name, file| {
        let flag_name = if name.is_some() { flag_name } else { either_flag };
        let name = name.as_deref().unwrap_or(either);
        let mut next = 0;
        let mut ranges = (ids.subordinate)(name, file);
        if ranges.is_empty() {
            return Err(flag(flag_name, name, format!("it has no range in {file}")));
        }
        for range in &mut ranges {
            range.container = next;
            next += range.size;
        }
        Ok(ranges)
    };
    Ok(IdMapping {
        uids: of(&request.subuidname, "subuidname", "/etc/subuid")?,
        gids: of(&request.subgidname, "subgidname", "/etc/subgid")?,
    })
}

/// Ids that no other container has, as many as are asked for or the image needs.
fn auto(text: &str, details: &Details, ids: &Ids<'_>) -> Result<IdMapping, Error> {
    let size = details.size.unwrap_or(ids.needed);
    let of = |fixed: &[IdRange], own: u32, file: &str, taken: &dyn Fn(&IdMapping) -> &[IdRange]| {
        let ranges = match ids.rung.kind {
            RungKind::Root => (ids.subordinate)("containers", file),
            _ => {
                let mapping = &ids.rung.mapping;
                let ranges = if file == "/etc/subuid" { &mapping.uids } else { &mapping.gids };
                without(ranges, own)
            }
        };
        if ranges.is_empty() {
            let who = if ids.rung.kind == RungKind::Root { "\"containers\"" } else { "the user" };
            return Err(flag("userns", text, format!("{who} has no range in {file}")));
        }
        let mut used: Vec<IdRange> = ids.taken.iter().flat_map(taken).copied().collect();
        used.extend(fixed);
        let mut free = Vec::new();
        for range in &ranges {
            free.extend(subtract(*range, &used));
        }
        // The ids inside that are not fixed, from 0 on.
        let wanted = subtract_inside(IdRange { container: 0, host: 0, size }, fixed);
        let mut mapped: Vec<IdRange> = fixed.to_vec();
        let mut free = free.into_iter();
        let mut have: Option<IdRange> = None;
        for mut hole in wanted {
            while hole.size > 0 {
                let Some(mut from) = have.take().or_else(|| free.next()) else {
                    let why = format!("there are no {size} ids left in {file} that no other container has");
                    return Err(flag("userns", text, why));
                };
                let count = from.size.min(hole.size);
                mapped.push(IdRange { container: hole.container, host: from.host, size: count });
                hole.container += count;
                hole.size -= count;
                from.host += count;
                from.size -= count;
                have = (from.size > 0).then_some(from);
            }
        }
        mapped.sort_by_key(|range| range.container);
        Ok(mapped)
    };
    let rung = &ids.rung;
    let fixed = |fixed: &[IdRange], of: fn(&IdMapping) -> &Vec<IdRange>| -> Result<Vec<IdRange>, Error> {
        let mut all = Vec::new();
        for range in fixed {
            all.extend(outside(range, rung, of(&rung.mapping)).ok_or_else(|| {
                flag("userns", text, format!("{} ids from {} on are not the user's", range.size, range.host))
            })?);
        }
        Ok(all)
    };
    Ok(IdMapping {
        uids: of(&fixed(&details.uids, |m| &m.uids)?, ids.own.0, "/etc/subuid", &|m| &m.uids)?,
        gids: of(&fixed(&details.gids, |m| &m.gids)?, ids.own.1, "/etc/subgid", &|m| &m.gids)?,
    })
}

/// What is left of a range's ids outside.
fn subtract(range: IdRange, used: &[IdRange]) -> Vec<IdRange> {
    let mut left = vec![range];
    for other in used {
        left = left.into_iter().flat_map(|range| cut(range, range.host, other.host, other.size)).collect();
    }
    left
}

/// What is left of a range's ids inside.
fn subtract_inside(range: IdRange, used: &[IdRange]) -> Vec<IdRange> {
    let mut left = vec![range];
    for other in used {
        left = left
            .into_iter()
            .flat_map(|range| cut(range, range.container, other.container, other.size))
            .collect();
    }
    left
}

/// A range without those of its ids that lie in `size` from `first` on, on the side where its own begin
/// with `start`.
fn cut(range: IdRange, start: u32, first: u32, size: u32) -> Vec<IdRange> {
    let (start, end) = (u64::from(start), u64::from(start) + u64::from(range.size));
    let (first, last) = (u64::from(first).max(start), (u64::from(first) + u64::from(size)).min(end));
    if first >= last {
        return vec![range];
    }
    let part = |from: u64, to: u64| IdRange {
        container: range.container + (from - start) as u32,
        host: range.host + (from - start) as u32,
        size: (to - from) as u32,
    };
    [part(start, first), part(last, end)].into_iter().filter(|range| range.size > 0).collect()
}

/// A range of the user's own numbering (0 the user, 1 and up the subordinate ids) in the host's.
fn outside(range: &IdRange, rung: &Rung, ranges: &[IdRange]) -> Option<Vec<IdRange>> {
    if rung.kind == RungKind::Root {
        return Some(vec![*range]);
    }
    let mut parts = Vec::new();
    let (mut inside, mut from, mut left) = (range.container, range.host, range.size);
    while left > 0 {
        let part = ranges.iter().find(|r| from >= r.container && from - r.container < r.size)?;
        let skip = from - part.container;
        let count = left.min(part.size - skip);
        parts.push(IdRange { container: inside, host: part.host + skip, size: count });
        inside = inside.checked_add(count)?;
        from += count;
        left -= count;
    }
    Some(parts)
}

/// One `--uidmap` or `--gidmap`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    range: IdRange,
    /// `from` is an id of the host, not of the user's own numbering.
    host: bool,
    /// It changes what is there already.
    extends: bool,
    uids: bool,
    gids: bool,
}

fn entry(name: &'static str, text: &str) -> Result<Entry, Error> {
    let bad = || flag(name, text, "it takes [FLAGS]CONTAINER:[@]FROM[:COUNT]");
    let body = text.trim_start_matches(['u', 'g', '+']);
    let flags = &text[..text.len() - body.len()];
    let parts: Vec<&str> = body.split(':').collect();
    let (container, from, size) = match parts[..] {
        [container, from] => (container, from, "1"),
        [container, from, size] => (container, from, size),
        _ => return Err(bad()),
    };
    let number = |text: &str| text.parse::<u32>().ok().filter(|n| *n < u32::MAX).ok_or_else(bad);
    let range = IdRange {
        container: number(container)?,
        host: number(from.strip_prefix('@').unwrap_or(from))?,
        size: number(size)?,
    };
    if range.size == 0 {
        return Err(flag(name, text, "it maps no id"));
    }
    if range.container.checked_add(range.size).is_none() || range.host.checked_add(range.size).is_none() {
        return Err(flag(name, text, "so many ids are there not"));
    }
    let (u, g) = (flags.contains('u'), flags.contains('g'));
    Ok(Entry {
        range,
        host: from.starts_with('@'),
        extends: flags.contains('+'),
        uids: u || !g,
        gids: g || !u,
    })
}

/// The mapping that `--uidmap` and `--gidmap` tell; of one alone both are made.
fn told(request: &RunRequest, base: IdMapping, ids: &Ids<'_>) -> Result<IdMapping, Error> {
    let read =
        |name, list: &[String]| list.iter().map(|text| entry(name, text)).collect::<Result<Vec<_>, _>>();
    let (uid, gid) = (read("uidmap", &request.uidmaps)?, read("gidmap", &request.gidmaps)?);
    let either = |own: &[Entry], other: &[Entry], fits: fn(&Entry) -> bool| -> Vec<Entry> {
        let from = if own.is_empty() { other } else { own };
        from.iter().filter(|entry| fits(entry)).cloned().collect()
    };
    let (uids, gids) = (either(&uid, &gid, |e| e.uids), either(&gid, &uid, |e| e.gids));
    let rung = ids.rung;
    Ok(IdMapping {
        uids: extend(("uidmap", &request.uidmaps), base.uids, uids, rung, &rung.mapping.uids)?,
        gids: extend(("gidmap", &request.gidmaps), base.gids, gids, rung, &rung.mapping.gids)?,
    })
}

fn extend(
    (name, values): (&'static str, &[String]),
    base: Vec<IdRange>,
    entries: Vec<Entry>,
    rung: &Rung,
    own: &[IdRange],
) -> Result<Vec<IdRange>, Error> {
    let text = values.join(" ");
    let usual = || match rung.kind {
        RungKind::Root => vec![IdRange { container: 0, host: 0, size: u32::MAX }],
        _ => own.to_vec(),
    };
    // What only extends, extends the mode's mapping or the usual one; nothing told at all is the latter.
    let mut ranges = match (base.is_empty(), entries.first()) {
        (false, _) => base,
        (true, Some(first)) if !first.extends => Vec::new(),
        (true, _) => usual(),
    };
    for entry in entries {
        let parts = if entry.host && rung.kind != RungKind::Root {
            // The kernel and its helpers decide whose they are.
            Some(vec![entry.range])
        } else {
            outside(&entry.range, rung, own)
        };
        let parts = parts.ok_or_else(|| {
            let range = entry.range;
            flag(name, &text, format!("{} ids from {} on are not the user's", range.size, range.host))
        })?;
        for part in parts {
            if entry.extends {
                ranges = ranges
                    .into_iter()
                    .flat_map(|range| cut(range, range.container, part.container, part.size))
                    .collect();
                ranges = ranges
                    .into_iter()
                    .flat_map(|range| cut(range, range.host, part.host, part.size))
                    .collect();
            } else if ranges.iter().any(|range| overlap(range, &part)) {
                return Err(flag(name, &text, "an id is there twice; \"+\" replaces what was there before"));
            }
            ranges.push(part);
        }
    }
    ranges.sort_by_key(|range| range.container);
    Ok(ranges)
}

fn overlap(a: &IdRange, b: &IdRange) -> bool {
    let meets = |a: u32, a_size: u32, b: u32, b_size: u32| {
        u64::from(a) < u64::from(b) + u64::from(b_size) && u64::from(b) < u64::from(a) + u64::from(a_size)
    };
    meets(a.container, a.size, b.container, b.size) || meets(a.host, a.size, b.host, b.size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(container: u32, host: u32, size: u32) -> IdRange {
        IdRange { container, host, size }
    }

    fn rung(kind: RungKind) -> Rung {
        let ranges = || vec![range(0, 1000, 1), range(1, 100_000, 65_536)];
        let mapping = match kind {
            RungKind::Root => IdMapping::default(),
            RungKind::Subordinate => IdMapping { uids: ranges(), gids: ranges() },
            RungKind::Single => IdMapping::single(0, 1000, 0, 1000),
        };
        Rung { kind, mapping, why: String::new(), hint: None }
    }

    fn mapped(kind: RungKind, request: &RunRequest, mode: &UsernsMode) -> Result<IdMapping, String> {
        let rung = rung(kind);
        let taken = [IdMapping { uids: vec![range(0, 100_000, 1024)], gids: vec![range(0, 100_000, 1024)] }];
        let subordinate = |_: &str, _: &str| vec![range(0, 500_000, 100_000)];
        let ids =
            Ids { rung: &rung, own: (1000, 1000), subordinate: &subordinate, taken: &taken, needed: 1024 };
        mapping(request, mode, &ids).map(Option::unwrap).map_err(|error| error.to_string())
    }

    fn request(userns: &str, uidmaps: &[&str], gidmaps: &[&str]) -> RunRequest {
        let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        RunRequest {
            userns: Some(userns.to_owned()),
            uidmaps: own(uidmaps),
            gidmaps: own(gidmaps),
            ..RunRequest::default()
        }
    }

    #[test]
    fn kept_ids() {
        let of = |text: &str| {
            mapped(RungKind::Subordinate, &request(text, &[], &[]), &UsernsMode::KeepId).unwrap()
        };
        assert_eq!(
            of("keep-id").uids,
            [range(0, 100_000, 1000), range(1000, 1000, 1), range(1001, 101_000, 64_536)]
        );
        let other = of("keep-id:uid=200,gid=210");
        assert_eq!(IdMapping::to_container(&other.uids, 1000), Some(200));
        assert_eq!(IdMapping::to_container(&other.gids, 1000), Some(210));
        let small = of("keep-id:size=2000");
        assert_eq!(IdMapping::to_host(&small.uids, 1999), Some(101_998));
        assert_eq!(IdMapping::to_host(&small.uids, 2000), None);
        assert!(details("keep-id:nope=1").is_err() && details("keep-id:uid=x").is_err());
    }

    #[test]
    fn ids_of_its_own() {
        let of = |kind, text: &str| mapped(kind, &request(text, &[], &[]), &UsernsMode::Auto);
        assert_eq!(of(RungKind::Subordinate, "auto").unwrap().uids, [range(0, 101_024, 1024)]);
        assert_eq!(of(RungKind::Root, "auto:size=10").unwrap().gids, [range(0, 500_000, 10)]);
        let fixed = of(RungKind::Subordinate, "auto:size=4,uidmapping=2:0:1").unwrap();
        assert_eq!(fixed.uids, [range(0, 101_024, 2), range(2, 1000, 1), range(3, 101_026, 1)]);
        assert!(of(RungKind::Subordinate, "auto:size=65000").is_err());
        assert!(of(RungKind::Single, "auto").is_err());
        let nomap = mapped(RungKind::Subordinate, &request("nomap", &[], &[]), &UsernsMode::Nomap).unwrap();
        assert_eq!(nomap.uids, [range(0, 100_000, 65_536)]);
    }

    #[test]
    fn told_mappings() {
        let of = |uidmaps: &[&str], gidmaps: &[&str]| {
            mapped(RungKind::Subordinate, &request("", uidmaps, gidmaps), &UsernsMode::Private)
        };
        let both = of(&["0:1:1000"], &[]).unwrap();
        assert_eq!((both.uids.clone(), both.gids), (vec![range(0, 100_000, 1000)], both.uids));
        assert_eq!(of(&["0:0:2"], &[]).unwrap().uids, [range(0, 1000, 1), range(1, 100_000, 1)]);
        assert_eq!(of(&["0:@1000:1"], &["0:1:5"]).unwrap().gids, [range(0, 100_000, 5)]);
        let plus = of(&["+5:0:1"], &[]).unwrap();
        assert_eq!(plus.uids, [range(1, 100_000, 4), range(5, 1000, 1), range(6, 100_005, 65_531)]);
        // One kind alone leaves the other as it is.
        assert_eq!(of(&["u0:1:10"], &[]).unwrap().gids, rung(RungKind::Subordinate).mapping.gids);
        for bad in ["", "0", "0:0:0", "0:x", "x0:0", "0:70000:1", "0:0:1 0:1:1", "0:0:4294967295", "-1:0:1"] {
            let list: Vec<&str> = bad.split(' ').collect();
            assert!(of(&list, &[]).is_err(), "{bad}");
        }
    }
}
