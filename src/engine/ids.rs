//! Whose ids a container has, and what it has of other containers and images: what is asked of the store
//! when it is made.

use std::ffi::CStr;

use rustix::fs::FileType;

use super::files::{of_image, with_ids};
use super::request::RunRequest;
use super::userns::{self, Ids};
use super::{Engine, Error, attach, sources};
use crate::base::idmap::IdMapping;
use crate::security::idmap::{self, RungKind};
use crate::security::passwd;
use crate::storage::containers::{
    ContainerConfig, ContainerRecord, NamespaceMode, NetworkMode, OneId, SeccompChoice, UsernsMode,
};
use crate::storage::images::ImageRecord;
use crate::sys::atomic;
use crate::sys::host;
use crate::sys::lock::Lock;
use crate::sys::merged::{self, Level, Tree};
use crate::sys::owners::{self, Owner};

/// As many ids a container gets at least, and what no image can want more of (Podman's numbers).
const FEWEST: u32 = 1024;
const MOST: u32 = 65_536;
/// "nobody" needs no id of its own.
const NOBODY: u32 = 65_534;

/// Where a container with one id that has apt finds its configuration, which the environment names.
pub(super) const APT_CONFIG: &str = "/run/.apt.conf";

impl Engine {
    /// What is done for a container if it has one id only. Where there are real ids nothing is.
    pub(super) fn one_id(&self, record: &ContainerRecord) -> Result<OneId, Error> {
        let chosen = record.config.security_opt.iter().rev().find_map(|option| {
            let (key, value) = option.split_once(['=', ':'])?;
            (key == "ownership").then_some(value)
        });
        let single = record.mapping.as_ref().is_some_and(IdMapping::is_single);
        match chosen {
            Some("real") => return Ok(OneId::default()),
            Some(word) if !single => return Err(Error::RealIds(word.to_owned())),
            None if !single || self.rung().kind != RungKind::Single => return Ok(OneId::default()),
            // No filter was asked for.
            None if record.config.seccomp == SeccompChoice::Unconfined => return Ok(OneId::default()),
            _ => {}
        }
        let files = self.files(record);
        // One that is being made has written nothing yet.
        let trees = std::iter::once(files.upper).filter(|upper| upper.path.exists());
        let trees: Vec<Tree> = trees.chain(files.lower).collect();
        let apt = with_ids(record.mapping.as_ref(), ("reading a file of", &record.name), || {
            Ok(has_directory(&trees, &[c"etc", c"apt"]))
        })?;
        let remembered = chosen == Some("remembered");
        if remembered {
            self.check_attributes()?;
        }
        Ok(OneId { emulated: true, apt, remembered })
    }

    /// That owners can be kept beside the files of this store.
    fn check_attributes(&self) -> Result<(), Error> {
        let dir = self
            .paths
            .root
            .join("staging")
            .join(format!("attributes-{:016x}", atomic::random().map_err(Error::Random)?));
        let failed = |source| Error::NoAttributes { path: self.paths.root.clone(), source };
        // While it is locked nobody takes it for rubbish.
        let _lock = Lock::new_directory(&dir, 0o700).map_err(failed)?;
        let owner = Owner { uid: 1, gid: 1, device: None };
        let kept = owners::set(&dir, &owner);
        std::fs::remove_dir(&dir).map_err(failed)?;
        kept.map_err(failed)
    }

    /// With one id, who is to run as somebody else is mapped to that id instead of root: all files are his then.
    pub(super) fn as_its_user(
        &self,
        mapping: Option<IdMapping>,
        config: &ContainerConfig,
        request: &RunRequest,
        image: Option<&ImageRecord>,
    ) -> Option<IdMapping> {
        let asked = request.userns.as_deref().unwrap_or_default();
        let plain = config.userns == UsernsMode::Default && asked.is_empty() && !config.user.is_empty();
        if self.rung().kind != RungKind::Single || !plain {
            return mapping;
        }
        let trees = match image {
            Some(image) => of_image(&self.store.clone().with_ownership(self.ownership()), &image.layers),
            None => vec![Tree { path: request.image.clone().into(), plain: false }],
        };
        let read = |name| merged::read(&trees, &["etc", name], 4 << 20).ok().flatten().unwrap_or_default();
        // Who is not known is told by who starts the program.
        match passwd::resolve(&config.user, &read("passwd"), &read("group")) {
            Ok(user) if user.uid != 0 => {
                Some(IdMapping::single(user.uid, host::uid(), user.gid, host::gid()))
            }
            _ => mapping,
        }
    }

    /// The ids that containers have which asked for nothing; none for root's.
    pub(super) fn default_mapping(&self) -> Option<IdMapping> {
        (self.rung().kind != RungKind::Root).then(|| self.rung().mapping.clone())
    }

    /// Whether a container's ids are others than those that layers are unpacked with.
    pub(super) fn has_other_ids(&self, record: &ContainerRecord) -> bool {
        if record.config.userns == UsernsMode::Default {
            return false;
        }
        record.mapping.as_ref().is_some_and(|own| !own.is_single())
            && record.mapping != self.default_mapping()
    }

    /// Whom a file belongs to, as seen from where the container's files are read
    /// ([`Engine::files_mapping`]), that in the container belongs to `uid` and `gid`; `None` if they are not
    /// mapped.
    pub(super) fn owner_outside(&self, record: &ContainerRecord, uid: u32, gid: u32) -> Option<(u32, u32)> {
        let (Some(own), true) = (&record.mapping, self.has_other_ids(record)) else {
            return Some((uid, gid));
        };
        let here = self.files_mapping(record);
        let translate = |id, own: &[_], here: Option<&[_]>| {
            let host = IdMapping::to_host(own, id)?;
            here.map_or(Some(host), |here| IdMapping::to_container(here, host))
        };
        let here = here.as_ref();
        Some((
            translate(uid, &own.uids, here.map(|here| &here.uids[..]))?,
            translate(gid, &own.gids, here.map(|here| &here.gids[..]))?,
        ))
    }

    /// A container by name or id, for flags; what went wrong in words.
    pub(super) fn find_record(&self, text: &str) -> Result<ContainerRecord, String> {
        let found = self.containers.find(text).and_then(|id| self.containers.record(&id));
        found.map_err(|error| crate::base::report::chain(&error))
    }

    /// Who looks for ids that no other container has must not do so at the same time as another.
    pub(super) fn lock_ids(&self, config: &ContainerConfig) -> Result<Option<Lock>, Error> {
        if config.userns != UsernsMode::Auto {
            return Ok(None);
        }
        let path = self.paths.root.join("ids.lock");
        let lock = Lock::exclusive(&path);
        lock.map(Some).map_err(|source| Error::File { action: "locking", path, source })
    }

    /// The mapping of a container that is being made. One that shares other namespaces of a container has
    /// to share the user namespace that these belong to.
    pub(super) fn resolve_mapping(
        &self,
        request: &RunRequest,
        config: &mut ContainerConfig,
        image: Option<&ImageRecord>,
    ) -> Result<Option<IdMapping>, Error> {
        let network = match &config.network {
            NetworkMode::Container(id) => NamespaceMode::Container(id.clone()),
            _ => NamespaceMode::Private,
        };
        let shared = [&config.pid, &config.ipc, &config.uts, &config.cgroupns, &network];
        for mode in shared.map(Clone::clone) {
            let NamespaceMode::Container(id) = mode else { continue };
            let other = self.containers.record(&id)?;
            if other.mapping.is_none() {
                continue;
            }
            // What it has joined itself counts.
            let owner = match &other.config.userns {
                UsernsMode::Container(owner) => owner.clone(),
                _ => id,
            };
            match &config.userns {
                UsernsMode::Container(chosen) if *chosen == owner => {}
                UsernsMode::Default if request.userns.as_deref().unwrap_or_default().is_empty() => {
                    config.userns = UsernsMode::Container(owner);
                }
                _ => return Err(Error::OtherUserNamespace(other.name)),
            }
        }
        match &config.userns {
            UsernsMode::Default => Ok(self.default_mapping()),
            UsernsMode::Container(id) => Ok(self.containers.record(id)?.mapping),
            UsernsMode::Path(path) => {
                let failed = |source| Error::File { action: "joining", path: path.clone(), source };
                Ok(Some(sources::mapping_of(path).map_err(failed)?))
            }
            mode => {
                let auto = *mode == UsernsMode::Auto;
                let taken = if auto { self.automatic_mappings()? } else { Vec::new() };
                let ids = Ids {
                    rung: self.rung(),
                    own: (host::uid(), host::gid()),
                    subordinate: &|name, file| idmap::subordinate_of(name, file),
                    taken: &taken,
                    needed: if auto { self.needed_ids(image, &config.user) } else { 0 },
                };
                Ok(userns::mapping(request, mode, &ids)?)
            }
        }
    }

    /// The mappings of the containers whose ids are nobody else's.
    fn automatic_mappings(&self) -> Result<Vec<IdMapping>, Error> {
        let mut taken = Vec::new();
        for id in self.containers.ids()? {
            match self.containers.record(&id) {
                Ok(record) if record.config.userns == UsernsMode::Auto => taken.extend(record.mapping),
                // Gone since, or unreadable: then so are its files for others.
                _ => {}
            }
        }
        Ok(taken)
    }

    /// How many ids an image's users and groups need.
    fn needed_ids(&self, image: Option<&ImageRecord>, user: &str) -> u32 {
        let trees = image.map(|image| of_image(&self.store, &image.layers)).unwrap_or_default();
        let read = |name| merged::read(&trees, &["etc", name], 4 << 20).ok().flatten().unwrap_or_default();
        let (passwd, group) = (read("passwd"), read("group"));
        let known = passwd::users(&passwd).flat_map(|user| [user.uid, user.gid]);
        let known = known.chain(passwd::groups(&group).map(|group| group.gid));
        let told = user.split(':').filter_map(|part| part.parse::<u32>().ok());
        let highest = known.chain(told).filter(|id| *id != NOBODY).max().unwrap_or(0);
        highest.saturating_add(1).clamp(FEWEST, MOST)
    }

    /// Finds the images that are mounted, and their layers.
    pub(super) fn resolve_images(&self, config: &mut ContainerConfig) -> Result<(), Error> {
        if !config.mounts.iter().any(|mount| mount.kind == "image") {
            return Ok(());
        }
        let store = self.store.clone().with_ownership(self.ownership());
        for mount in config.mounts.iter_mut().filter(|mount| mount.kind == "image" && mount.layers.is_empty())
        {
            let found = store.image(&mount.source)?;
            let image = found.ok_or_else(|| super::images::Error::NoSuchImage(mount.source.clone()))?;
            mount.name = Some(image.id.to_string());
            mount.layers = image.layers.iter().map(|layer| layer.chain_id).collect();
            for chain_id in &mount.layers {
                if store.layer_dir(chain_id) != store.layer_tree(chain_id) {
                    return Err(super::images::Error::NoOverlay(mount.source.clone()).into());
                }
            }
        }
        Ok(())
    }

    /// Starts what a container requires.
    pub(super) fn start_required(&self, record: &ContainerRecord) -> Result<(), Error> {
        for id in &record.config.requires {
            let Some(lock) = self.charge_unless_running(id)? else { continue };
            let required = self.containers.record(id)?;
            let name = required.name.clone();
            let started = self.start(required, lock, false)?;
            let told = attach::wait_started(std::os::fd::AsFd::as_fd(&started.socket));
            match told.map_err(Error::Relay)? {
                Ok(_) => {}
                Err(attach::Ending::Failed { message, .. }) => {
                    return Err(Error::Required { name, message });
                }
                Err(_) => return Err(Error::MonitorGone(name)),
            }
        }
        Ok(())
    }
}

/// Whether there is a directory below merged trees. What cannot be read is not there.
fn has_directory(trees: &[Tree], path: &[&CStr]) -> bool {
    let mut level = Level::open(trees).ok();
    for name in path {
        level = level.and_then(|level| {
            let entry = level.find(name).ok()??;
            (entry.kind() == FileType::Directory).then(|| level.enter(name, &entry).ok())?
        });
    }
    level.is_some()
}
