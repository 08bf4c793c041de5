//! The thread in the host's network namespace: it dials what the container wants to reach, and serves these
//! connections and flows wholly.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;

use super::echo::{Icmp, reason_of_refusal};
use super::factory::Factory;
use super::frames::Lane;
use super::inner::{News, Outbound, Reply};
use super::log::Log;
use super::names::Names;
use super::orders::{Orders, Rewired};
use super::pairs::Pairs;
use super::poll::{Poll, Token};
use super::tcp::{ACCEPTED, Around, Dials, Hold};
use super::udp::{Ends, Flows};
use super::{Error, Limits};
use crate::network::plan::{NetworkPlan, Protocol, Wiring};
use crate::network::policy::{Decision, Policy};
use crate::sys::inet::Batch;
use crate::sys::{daemon, socket};

const CONTROL: u8 = 0;
const LISTENER: u8 = 1;
const QUEUE: u8 = 2;
const DIAL: u8 = 3;
const PAIR: u8 = 4;
const DATAGRAMS: u8 = 5;
const FLOW: u8 = 6;
const FILLED: u8 = 7;
const QUESTION: u8 = 8;
const STREAM: u8 = 9;
const RAW: u8 = 10;
const ECHO: u8 = 11;
const REWIRED: u8 = 12;
/// Datagrams that come by a lane.
const CARRIED: u8 = 13;
/// Listeners that were made for single ports.
const PORT: u8 = 14;

/// How often flows are looked at for their age, if there are any.
const SWEEP: Duration = Duration::from_secs(10);
/// A container that has nothing to send for so long at its beginning will be quiet for some time.
const QUIET: Duration = Duration::from_secs(1);

pub(super) struct Loop<'a> {
    plan: NetworkPlan,
    control: &'a OwnedFd,
    orders: Option<Orders>,
    /// The numbers of what was ordered.
    ordered: VecDeque<Number>,
    tell: mpsc::Sender<News>,
    factory: Arc<Factory>,
    poll: Poll,
    policy: Policy,
    pairs: Pairs,
    dials: Dials,
    flows: Flows,
    names: Names,
    icmp: Icmp,
    log: Log,
    batch: Batch,
    listeners: [Option<OwnedFd>; 2],
    datagrams: [Option<OwnedFd>; 2],
    /// Listeners for single ports.
    ports: Vec<OwnedFd>,
    /// So many connections may there be.
    limit: usize,
    /// How many turned away are known of.
    told: u64,
}

/// By which an order and its answer belong together.
type Number = [u8; 8];

impl<'a> Loop<'a> {
    pub(super) fn new(
        plan: NetworkPlan,
        outbound: Outbound,
        log: Log,
        (control, orders): (&'a OwnedFd, Option<Orders>),
        limits: Limits,
    ) -> Result<Self, Error> {
        let poll = Poll::new().map_err(Error::Poll)?;
        let Outbound { listeners, datagrams, hold: queue, factory, replies, raw, tell } = outbound;
        let carried = matches!(queue, Some(Hold::Carrier(_)));
        let wait = |fd: &dyn AsFd, kind, side| {
            poll.add(fd.as_fd(), Token { side, ..Token::single(kind) }, EventFlags::IN).map_err(Error::Poll)
        };
        for side in 0..2_u8 {
            if let Some(listener) = &listeners[usize::from(side)] {
                wait(listener, LISTENER, side)?;
            }
            if let Some(socket) = &datagrams[usize::from(side)] {
                wait(socket, DATAGRAMS, side)?;
            }
            if let Some(socket) = &raw[usize::from(side)] {
                wait(socket, RAW, side)?;
            }
        }
        wait(control, CONTROL, 0)?;
        if let Some(orders) = &orders {
            wait(&orders.done(), REWIRED, 0)?;
        }
        wait(&factory.filled(), FILLED, 0)?;
        if let Some(queue) = &queue {
            wait(queue, QUEUE, 0)?;
        }
        if let Some(Hold::Carrier(lane)) = &queue {
            wait(&lane.other_bell(), CARRIED, 0)?;
        }
        Ok(Self {
            policy: Policy::new(&plan),
            pairs: Pairs::new(PAIR),
            dials: Dials::new(DIAL, queue, limits.connections),
            flows: Flows::new(FLOW, Arc::clone(&factory), limits.flows, carried),
            names: Names::new(&plan, replies, [QUESTION, STREAM]),
            icmp: Icmp::new(&plan, raw, ECHO),
            plan,
            control,
            orders,
            ordered: VecDeque::new(),
            tell,
            factory,
            log,
            batch: Batch::default(),
            listeners,
            datagrams,
            ports: Vec::new(),
            limit: limits.connections,
            told: 0,
            poll,
        })
    }

    /// Serves until the control socket is closed at its other end.
    pub(super) fn run(&mut self) -> Result<(), Error> {
        let mut events = Vec::new();
        let mut more = false;
        let mut swept = Instant::now();
        let mut settled = false;
        loop {
            let timeout = match self.patience() {
                _ if more => Some(Duration::ZERO),
                None if !settled => Some(QUIET),
                patience => patience,
            };
            let waited = match timeout {
                Some(Duration::ZERO) => self.poll.wait(timeout, &mut events),
                _ if self.pairs.busy() => self.poll.wait(timeout, &mut events),
                _ => self.poll.wait_eagerly(timeout, &mut events, || self.dials.prepare()),
            };
            waited.map_err(Error::Poll)?;
            if timeout == Some(QUIET) && events.is_empty() && !settled {
                // Once, and not at the start, when there is more to do: what the process was born with.
                settled = true;
                daemon::release_memory();
            }
            let now = Instant::now();
            let mut dialled = false;
            for (token, flags) in &events {
                dialled |= matches!(token.kind, QUEUE | DIAL);
                match token.kind {
                    CONTROL if !self.order() => return Ok(()),
                    CONTROL => {}
                    REWIRED => self.rewired(),
                    _ => self.event(*token, *flags, now),
                }
            }
            more = self.pairs.turn(&self.poll);
            if !dialled {
                // What a new connection says first goes before; its server has something to do now.
                self.dials.prepare();
            }
            let turned_away = super::TURNED_AWAY.load(Ordering::Relaxed);
            if turned_away > self.told {
                self.told = turned_away;
                self.log.full(self.limit, now);
            }
            if now.duration_since(swept) >= SWEEP {
                swept = now;
                self.flows.expire(now);
                self.dials.expire(now);
                self.icmp.expire(now);
            }
            if self.names.deadline().is_some_and(|deadline| deadline <= now) {
                self.names.expire(&self.poll, now);
            }
        }
    }

    /// Takes an order; false if there will be none any more.
    fn order(&mut self) -> bool {
        let Ok((message, _)) = socket::receive(self.control) else { return false };
        let Some((number, wiring)) = message.split_first_chunk() else { return false };
        match serde_json::from_slice::<Wiring>(wiring) {
            Err(error) => self.answer(*number, &format!("reading the new networks: {error}"), ""),
            Ok(wiring) => {
                let plan = self.plan.rewired(wiring);
                match &self.orders {
                    Some(orders) => {
                        self.ordered.push_back(*number);
                        orders.order(plan);
                    }
                    // The devices of a private network are what they are.
                    None => {
                        self.use_plan(
                            NetworkPlan { interfaces: self.plan.interfaces.clone(), ..plan },
                            None,
                            &[],
                        );
                        self.answer(*number, "", "");
                    }
                }
            }
        }
        true
    }

    fn answer(&self, number: Number, message: &str, hint: &str) {
        // Whoever would hear it ends us when it ends.
        let _ = socket::send(
            self.control,
            &[&number[..], message.as_bytes(), &[0], hint.as_bytes()].concat(),
            None,
        );
    }

    /// Orders were carried out.
    fn rewired(&mut self) {
        for outcome in self.orders.as_ref().map(Orders::outcomes).unwrap_or_default() {
            let (message, hint) = match outcome {
                Ok(Rewired { plan, replies, lost }) => {
                    self.use_plan(plan, Some(replies), &lost);
                    Default::default()
                }
                Err(told) => told,
            };
            if let Some(number) = self.ordered.pop_front() {
                self.answer(number, &message, &hint);
            }
        }
    }

    /// Goes on with another plan; nobody has these addresses any more.
    fn use_plan(&mut self, plan: NetworkPlan, replies: Option<Vec<Reply>>, lost: &[IpAddr]) {
        self.policy = self.policy.rewired(&plan);
        self.names.rewire(&plan, replies);
        self.icmp.rewire(&plan);
        if !lost.is_empty() {
            self.pairs.cut(lost);
            self.flows.cut(lost);
        }
        if self.tell.send(News::Rewired(Box::new(plan.clone()), lost.to_vec())).is_ok() {
            self.factory.want();
        }
        self.plan = plan;
    }

    /// How long nothing has to be done by itself.
    fn patience(&self) -> Option<Duration> {
        let sweep = (self.flows.any() || self.dials.any() || self.icmp.any()).then_some(SWEEP);
        // Rounded up to what epoll counts in.
        let names = self
            .names
            .deadline()
            .map(|deadline| deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(1));
        sweep.into_iter().chain(names).min()
    }

    fn event(&mut self, token: Token, flags: EventFlags, now: Instant) {
        let Self { poll, policy, pairs, dials, flows, names, icmp, log, batch, .. } = self;
        let (listeners, datagrams, ports) = (&self.listeners, &self.datagrams, &mut self.ports);
        let mut around = Around {
            poll,
            pairs,
            decide: &mut |to| {
                let decision = policy.decide(Protocol::Tcp, to);
                if let Decision::Refuse(refusal) = decision {
                    log.refused("tcp", to, refusal, now);
                }
                decision
            },
            now,
        };
        let side = usize::from(token.side);
        match token.kind {
            PAIR => around.pairs.event(token, flags),
            QUEUE | DIAL => {
                if token.kind == QUEUE {
                    dials.held(&mut around);
                    for listener in dials.lane().map(Lane::listeners).unwrap_or_default() {
                        let port = Token::numbered(PORT, ports.len());
                        // One that cannot be waited for is as good as none: whoever came to it gives up.
                        let _ = around.poll.add(&listener, port, EventFlags::IN);
                        ports.push(listener);
                    }
                } else {
                    dials.event(token, &mut around);
                }
                for (count, listener) in dials.released().into_iter().zip(listeners) {
                    if let Some(listener) = listener.as_ref().filter(|_| count > 0) {
                        for socket in dials.accept(listener, count, &mut around) {
                            names.connection(socket, poll, now);
                        }
                    }
                }
            }
            LISTENER => {
                if let Some(listener) = &listeners[side] {
                    for socket in dials.accept(listener, ACCEPTED, &mut around) {
                        names.connection(socket, poll, now);
                    }
                }
            }
            PORT => {
                if let Some(listener) = ports.get(token.place.number()) {
                    for socket in dials.accept(listener, ACCEPTED, &mut around) {
                        names.connection(socket, poll, now);
                    }
                }
            }
            FLOW => flows.event(token, flags, batch, icmp, now),
            DATAGRAMS | CARRIED => {
                let decide = |ends: Ends, bytes: &[u8]| {
                    match policy.decide(Protocol::Udp, ends.1) {
                        Decision::Dial(to) => return Some(to),
                        Decision::Local(_) => names.datagram(ends, bytes, poll, now),
                        Decision::Refuse(refusal) => {
                            log.refused("udp", ends.1, refusal, now);
                            icmp.undelivered(ends, reason_of_refusal(refusal), None);
                        }
                    }
                    None
                };
                match (dials.lane(), &datagrams[side]) {
                    (Some(lane), _) => flows.carried(lane.datagrams(), poll, icmp, now, decide),
                    (None, Some(socket)) => flows.first(socket, batch, poll, icmp, now, decide),
                    (None, None) => {}
                }
            }
            FILLED => flows.filled(poll, icmp, now),
            RAW => icmp.requests(side == 1, batch, poll, policy, log, now),
            ECHO => icmp.replies(token, flags, batch),
            QUESTION | STREAM => names.event(token, poll, policy, now),
            _ => {}
        }
    }
}
