//! What has to be done when a container that runs joins or leaves networks, as data. Pure.

use std::net::IpAddr;

use super::netlink;
use super::plan::Interface;
use super::setup::{self, DEVICES, Device, Requests};

/// The way from the devices that are there to those of a new plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// They stay.
    pub kept: Vec<Device>,
    /// They go.
    pub gone: Vec<Device>,
    /// They come; numbers are theirs that nobody has. Their bridges are not known yet, nor are the hardware
    /// addresses of those that nobody has chosen one for.
    pub added: Vec<Device>,
    /// Those that go have to be gone before the others come: they have their names or addresses.
    pub in_the_way: bool,
}

/// A container cannot have so many devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a container has at most {DEVICES} networks")]
pub struct TooMany;

impl Difference {
    /// Between the devices that are there and those that shall be.
    pub fn between(present: &[Device], wanted: &[Interface]) -> Result<Self, TooMany> {
        let is_wanted = |device: &&Device| wanted.iter().any(|interface| is_same(device, interface));
        let (kept, gone): (Vec<Device>, Vec<Device>) = {
            let (kept, gone): (Vec<&Device>, Vec<&Device>) = present.iter().partition(is_wanted);
            (kept.into_iter().cloned().collect(), gone.into_iter().cloned().collect())
        };
        let is_new = |interface: &&Interface| !present.iter().any(|device| is_same(device, interface));
        let mut numbers = (0..DEVICES).filter(|number| present.iter().all(|device| device.number != *number));
        let mut added = Vec::new();
        for interface in wanted.iter().filter(is_new) {
            let number = numbers.next().ok_or(TooMany)?;
            let mac = interface.mac.unwrap_or_default();
            added.push(Device { number, interface: interface.clone(), mac, bridge: 0 });
        }
        let in_the_way =
            gone.iter().any(|old| added.iter().any(|new| collide(&old.interface, &new.interface)));
        Ok(Self { kept, gone, added, in_the_way })
    }

    /// Those that are there in the end.
    pub fn all(&self) -> Vec<Device> {
        [&self.kept[..], &self.added].concat()
    }

    /// The addresses that the container no longer has.
    pub fn lost(&self) -> Vec<IpAddr> {
        let of = |devices: &[Device]| -> Vec<IpAddr> {
            let all = devices.iter().flat_map(|device| &device.interface.addresses);
            all.map(|(address, _)| *address).collect()
        };
        let still = of(&self.all());
        of(&self.gone).into_iter().filter(|address| !still.contains(address)).collect()
    }
}

/// Whether a device is what is asked for; which of them has the default route is not its own matter.
fn is_same(device: &Device, wanted: &Interface) -> bool {
    let routed = device.interface.routed.clone();
    let mac = wanted.mac.or(device.interface.mac);
    device.interface == Interface { routed, mac, ..wanted.clone() }
}

fn collide(old: &Interface, new: &Interface) -> bool {
    old.name == new.name || old.addresses.iter().any(|address| new.addresses.contains(address))
}

/// In the container's network namespace: addresses of devices that have come.
pub fn inside(added: &[Device]) -> Requests {
    let mut list = Requests::default();
    for device in added {
        setup::lengthen(&mut list, &device.interface, device.number);
        setup::inside(&mut list, &device.interface, device.number);
    }
    list
}

/// In the container's network namespace: the default routes, once the devices are those of the new plan.
pub fn routes(old: &[Interface], new: &[Interface]) -> Requests {
    let mut list = Requests::default();
    for (before, after) in setup::default_gateways(old).into_iter().zip(setup::default_gateways(new)) {
        if before == after {
            continue;
        }
        if let Some(gateway) = before {
            // It went with its device, or the container has done without.
            let what = format!("removing the route by {gateway}");
            list.push_unless(libc::ESRCH, what, netlink::without_default_route(gateway));
        }
        if let Some(gateway) = after {
            let what = format!("adding the route by {gateway}");
            list.push_unless(libc::EEXIST, what, netlink::default_route(gateway));
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::plan::{Network, Shared};

    fn interface(name: &str, network: &str, third: u8, routed: bool) -> Interface {
        let shared = Shared {
            name: network.into(),
            bridge: network.into(),
            dir: "/n".into(),
            internal: !routed,
            isolated: false,
        };
        Interface {
            name: name.into(),
            network: Network::Shared(shared),
            addresses: vec![(IpAddr::from([10, 89, third, 5]), 24)],
            gateways: vec![IpAddr::from([10, 89, third, 1])],
            routed: vec![routed],
            mac: None,
            mtu: None,
        }
    }

    fn device(number: u32, interface: Interface) -> Device {
        Device { number, interface, mac: [2, 0, 0, 0, 0, number as u8], bridge: 7 }
    }

    #[test]
    fn what_stays_is_not_touched() {
        let [a, b, c] = [("eth0", "a", 0), ("eth1", "b", 1), ("eth2", "c", 2)]
            .map(|(name, network, third)| interface(name, network, third, true));
        let present = [device(0, a.clone()), device(1, b.clone())];
        let nothing = Difference::between(&present, &[a.clone(), b.clone()]).unwrap();
        assert_eq!((nothing.gone.len(), nothing.added.len()), (0, 0));
        let joined = Difference::between(&present, &[a.clone(), b.clone(), c.clone()]).unwrap();
        assert_eq!(joined.kept, present);
        assert_eq!((joined.added[0].number, &joined.added[0].interface), (2, &c));
        let left = Difference::between(&present, std::slice::from_ref(&b)).unwrap();
        assert_eq!((&left.kept[..], &left.gone[..]), (&present[1..], &present[..1]));
        assert_eq!(left.lost(), [IpAddr::from([10, 89, 0, 5])]);
        // The number of the one that goes is free only when it has gone.
        let moved = Difference::between(&present, &[b, c]).unwrap();
        assert_eq!((moved.added[0].number, moved.in_the_way), (2, false));
    }

    #[test]
    fn another_device_of_the_same_name_waits_for_the_first_ones_end() {
        let a = interface("eth0", "a", 0, true);
        let present = [device(0, a.clone())];
        let other = Interface { mtu: Some(1400), ..a.clone() };
        let difference = Difference::between(&present, std::slice::from_ref(&other)).unwrap();
        assert!(difference.in_the_way && difference.lost().is_empty());
        // Only the route has become another one's.
        let same = Interface { routed: vec![false], ..a };
        assert_eq!(Difference::between(&present, &[same]).unwrap().kept, present);
    }

    #[test]
    fn there_is_an_end_to_it() {
        let many: Vec<Interface> =
            (0..=DEVICES as u8).map(|n| interface(&format!("eth{n}"), "a", n, true)).collect();
        assert!(Difference::between(&[], &many[1..]).is_ok());
        assert_eq!(Difference::between(&[], &many), Err(TooMany));
    }

    #[test]
    fn the_default_route_follows() {
        let (a, b) = (interface("eth0", "a", 0, true), interface("eth1", "b", 1, true));
        let inner = interface("eth2", "c", 2, false);
        let what = |old: &[Interface], new: &[Interface]| routes(old, new).what;
        assert!(what(std::slice::from_ref(&a), &[a.clone(), b.clone()]).is_empty());
        assert_eq!(
            what(&[a.clone(), b.clone()], std::slice::from_ref(&b)),
            ["removing the route by 10.89.0.1", "adding the route by 10.89.1.1"]
        );
        assert_eq!(
            what(std::slice::from_ref(&inner), &[inner.clone(), a.clone()]),
            ["adding the route by 10.89.0.1"]
        );
        assert_eq!(what(&[a], &[inner]), ["removing the route by 10.89.0.1"]);
    }
}
