//! A container's part of a shared router, for as long as its relay lives: its devices, the rules that guard them,
//! and the door by which others are given the router. Carries out what [`super::change`] has planned.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};

use super::change::{self, Difference, TooMany};
use super::ids::RelayIds;
use super::nft::QueueKind;
use super::plan::{Network, NetworkPlan};
use super::relay::{self, Duty, Rewired};
use super::router::{Error, carry_out, doing, with_queue};
use super::setup::{self, Device};
use super::shared::{self, Place};
use crate::base::report;
use crate::sys::atomic;
use crate::sys::lock::Lock;
use crate::sys::netlink::{self, Refused, Request, Socket};

/// How long a relay that is ending may still have its rules.
const ENDING: (u32, std::time::Duration) = (100, std::time::Duration::from_millis(10));

/// What it takes to change a container's networks. The sockets belong to the namespaces that they were opened in.
pub struct Keeper {
    /// Its place in the router.
    pub place: Place,
    /// Devices of the router.
    pub router: Socket,
    /// Devices of the container.
    pub inside: Socket,
    /// The rules, which go with it.
    pub nft: Socket,
    /// The container's network namespace.
    pub container: OwnedFd,
    /// The router's.
    pub net: OwnedFd,
    /// What the rules hand packets to.
    pub ids: RelayIds,
    /// The kind of queue that the kernel has.
    pub queue: QueueKind,
    /// What there is now.
    pub plan: NetworkPlan,
    /// The devices of it.
    pub devices: Vec<Device>,
}

/// The relay's part of a shared router at its beginning.
pub(super) fn open(
    (plan, place): (&NetworkPlan, &Place),
    container: &OwnedFd,
    router: &mut Socket,
    nft: &mut Socket,
    known: Option<QueueKind>,
) -> Result<(RelayIds, QueueKind, Vec<Device>), Error> {
    let mut devices = difference(&[], plan)?.added;
    address(&mut devices)?;
    // Before there is a port that could send what it should not.
    guarded(nft, &setup::guard_rules(&devices, place.slot, false))?;
    connect(plan, place, container, router, &mut devices)?;
    let ids = RelayIds::of_slot(place.slot);
    let rules = |queue| setup::shared_rules(&devices, ids, place.slot, queue, false);
    let (ids, kind) = with_queue(nft, ids, &QueueKind::ways(known, false), rules)?;
    Ok((ids, kind, devices))
}

fn difference(present: &[Device], plan: &NetworkPlan) -> Result<Difference, Error> {
    let failed = |error: TooMany| doing("numbering the devices")(io::Error::other(error));
    Difference::between(present, &plan.interfaces).map_err(failed)
}

/// Gives hardware addresses to those that have none: of nobody's (IEEE 802: locally administered, of one device).
fn address(devices: &mut [Device]) -> Result<(), Error> {
    for device in devices.iter_mut().filter(|device| device.interface.mac.is_none()) {
        atomic::fill_random(&mut device.mac).map_err(doing("choosing a hardware address"))?;
        device.mac[0] = device.mac[0] & 0xfc | 2;
    }
    Ok(())
}

/// Makes devices, on bridges that are made where they are missing.
fn connect(
    plan: &NetworkPlan,
    place: &Place,
    container: &OwnedFd,
    router: &mut Socket,
    devices: &mut [Device],
) -> Result<(), Error> {
    let _lock = Lock::exclusive(&place.bridges).map_err(doing("locking the bridges"))?;
    bridges(plan, router, devices)?;
    carry_out(router, setup::shared_devices(devices, place.slot, container.as_raw_fd()))
}

/// The bridges of devices, which are made if nobody is on them. Others that nobody is on any more go.
fn bridges(plan: &NetworkPlan, router: &mut Socket, devices: &mut [Device]) -> Result<(), Error> {
    let refused = |Refused { source, .. }| doing("listing the bridges of the router")(source);
    let links = super::netlink::links(router.exchange(&[super::netlink::list_links()]).map_err(refused)?);
    let used = |link: &&super::netlink::Link| links.iter().any(|port| port.master == Some(link.index));
    let (used, idle): (Vec<_>, Vec<_>) =
        links.iter().filter(|link| setup::is_bridge(link.index)).partition(used);
    carry_out(router, setup::without(idle.iter().map(|link| link.name.as_str())))?;
    let mut taken: Vec<u32> = used.iter().map(|link| link.index).collect();
    for device in devices {
        let Network::Shared(shared) = &device.interface.network else { continue };
        device.bridge = match used.iter().find(|link| link.name == shared.bridge) {
            Some(bridge) => bridge.index,
            None => {
                let index = setup::free_bridge(&taken);
                taken.push(index);
                carry_out(router, setup::bridge(plan, &device.interface, &shared.bridge, index))?;
                index
            }
        };
    }
    Ok(())
}

/// Makes rules. Those of a relay that had this place before may be about to go.
fn guarded(nft: &mut Socket, batch: &[Request]) -> Result<(), Error> {
    let (mut tries, pause) = ENDING;
    loop {
        match nft.send(batch) {
            Ok(()) => return Ok(()),
            Err(Refused { source, .. }) if tries > 0 && is_anothers(&source) => tries -= 1,
            Err(Refused { source, .. }) => return Err(doing("making the rules of the bridges")(source)),
        }
        std::thread::sleep(pause);
    }
}

/// Whether a table of this name belongs to another socket.
fn is_anothers(error: &io::Error) -> bool {
    matches!(netlink::errno(error), Some(libc::EPERM | libc::EEXIST | libc::EBUSY))
}

impl Keeper {
    /// Gives the router to whoever comes, and changes the container's networks when that is ordered, for as long
    /// as the process lives. The calling thread is in the router.
    pub fn run(mut self, duty: &Duty) -> io::Result<()> {
        loop {
            let mut wait = [
                PollFd::new(&self.place.door, PollFlags::IN),
                PollFd::from_borrowed_fd(duty.ordered(), PollFlags::IN),
            ];
            match poll(&mut wait, None) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other?,
            };
            let [knocked, ordered] = [0, 1].map(|at: usize| !wait[at].revents().is_empty());
            if knocked {
                shared::answer_door(&self.place, &self.net)?;
            }
            if ordered {
                for plan in duty.orders() {
                    let told = |error: Error| (report::chain(&error), error.hint().unwrap_or_default());
                    duty.tell(self.rewire(plan).map_err(told));
                }
            }
        }
    }

    /// Makes the network another one. If that fails, it is as before.
    fn rewire(&mut self, plan: NetworkPlan) -> Result<Rewired, Error> {
        let mut difference = difference(&self.devices, &plan)?;
        let mut left = false;
        match self.attempt(&plan, &mut difference, &mut left) {
            Ok(replies) => {
                let lost = difference.lost();
                self.devices = difference.all();
                self.plan = plan;
                Ok(Rewired { plan: self.plan.clone(), replies, lost })
            }
            Err(error) => {
                self.restore(&plan, &difference, left);
                Err(error)
            }
        }
    }

    /// The steps of [`Self::rewire`]; `left` becomes true when the first device may have gone.
    fn attempt(
        &mut self,
        plan: &NetworkPlan,
        difference: &mut Difference,
        left: &mut bool,
    ) -> Result<Vec<relay::Reply>, Error> {
        if difference.in_the_way {
            // Two cannot have the same name: whoever wants that sees it go and come.
            *left = true;
            self.leave(&difference.gone)?;
            self.devices = difference.kept.clone();
        }
        let replies = self.join(plan, difference)?;
        carry_out(&mut self.inside, change::routes(&self.plan.interfaces, &plan.interfaces))?;
        if !difference.in_the_way && !difference.gone.is_empty() {
            // Last of all, for who goes loses connections even if it comes back.
            *left = true;
            self.leave(&difference.gone)?;
        }
        if !difference.gone.is_empty() {
            self.rules(&difference.all())?;
        }
        Ok(replies)
    }

    /// After an attempt that failed: what was there before. What cannot be undone goes when the place is taken the
    /// next time.
    fn restore(&mut self, plan: &NetworkPlan, difference: &Difference, left: bool) {
        let slot = self.place.slot;
        let _ = carry_out(&mut self.router, setup::without_devices(&difference.added, slot));
        let before = self.plan.clone();
        if left {
            for device in &difference.gone {
                // It may be one that has not gone yet.
                let _ =
                    carry_out(&mut self.router, setup::without_devices(std::slice::from_ref(device), slot));
            }
            self.devices = difference.kept.clone();
            let mut back = Difference {
                added: difference.gone.clone(),
                kept: difference.kept.clone(),
                ..Difference::default()
            };
            if self.join(&before, &mut back).is_ok() {
                self.devices = back.all();
            }
        }
        let _ = carry_out(&mut self.inside, change::routes(&plan.interfaces, &before.interfaces));
        let _ = self.rules(&self.devices.clone());
    }

    /// Adds devices, with everything that they need.
    fn join(&mut self, plan: &NetworkPlan, difference: &mut Difference) -> Result<Vec<relay::Reply>, Error> {
        carry_out(&mut self.router, setup::router(plan))?;
        if !difference.added.is_empty() {
            address(&mut difference.added)?;
            let all = [&self.devices[..], &difference.added].concat();
            // Before there is a port that could send what it should not.
            guarded(&mut self.nft, &setup::guard_rules(&all, self.place.slot, true))?;
            let Self { place, container, router, .. } = self;
            connect(plan, place, container, router, &mut difference.added)?;
            let all = [&self.devices[..], &difference.added].concat();
            self.rules(&all)?;
            carry_out(&mut self.inside, change::inside(&difference.added))?;
        }
        Ok(relay::replies(plan)?)
    }

    /// Has the rules be those of these devices.
    fn rules(&mut self, devices: &[Device]) -> Result<(), Error> {
        let slot = self.place.slot;
        guarded(&mut self.nft, &setup::guard_rules(devices, slot, true))?;
        let queue = self.ids.queue.and_then(|number| self.queue.queue(number));
        let rules = setup::shared_rules(devices, self.ids, slot, queue, true);
        self.nft
            .send(&rules)
            .map_err(|Refused { source, .. }| doing("making the rules of the router")(source))
    }

    /// Removes devices, and bridges that nobody is on any more.
    fn leave(&mut self, devices: &[Device]) -> Result<(), Error> {
        if devices.is_empty() {
            return Ok(());
        }
        carry_out(&mut self.router, setup::without_devices(devices, self.place.slot))?;
        let _lock = Lock::exclusive(&self.place.bridges).map_err(doing("locking the bridges"))?;
        bridges(&self.plan, &mut self.router, &mut [])
    }
}
