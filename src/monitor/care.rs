//! What a monitor does to a running program at its own times: health checks, the end of a time limit, the
//! end of its patience with one that was asked to end.

use std::cell::RefCell;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use super::Executor;
use super::health::Course;
use super::oom::OomWatch;
use super::probe::Probe;
use super::protocol::Event;
use crate::storage::containers::{HealthAction, HealthRecord, HealthRun, RunState};
use crate::sys::process;

/// Told of each check: what is known now, and the check itself if there was one.
pub type Note<'a> = dyn FnMut(&Course, Option<&HealthRun>) + 'a;

/// Makes checks anew where others are asked for.
pub type Renew<'a> = dyn FnMut() -> Option<Option<Checks<'a>>> + 'a;

/// Changes the container's networks as a request says; the error with what may be done about it.
pub type Change<'a> = dyn FnMut(&[u8]) -> Result<(), (String, String)> + 'a;

/// One run's times.
#[derive(Default)]
pub struct Care<'a> {
    /// When the program is killed.
    pub kill_at: Option<Instant>,
    /// How a program is asked to end: by this signal, and killed so long after.
    pub stop: (i32, Duration),
    /// Health checks, if there are any.
    pub checks: Option<Checks<'a>>,
    /// The checks after the container's record was changed; none if they are the same.
    pub renew: Option<Box<Renew<'a>>>,
    /// Killings for want of memory, where there can be any.
    pub memory: Option<OomWatch>,
    /// Begins to look out for them, when limits have changed.
    pub watch: Option<Box<dyn Fn() -> Option<OomWatch> + 'a>>,
    /// Told of them.
    pub oom: Option<Box<dyn FnMut() + 'a>>,
    /// Changes the container's networks, if it has a relay.
    pub networks: Option<Box<Change<'a>>>,
    /// Whether the program ends when nobody is attached any more.
    pub bound: bool,
    /// Whether the container is to be started again whatever its restart policy says.
    pub restart: bool,
    /// Whether it is to end for good whatever its restart policy says.
    pub end: bool,
}

/// The health checks of one run.
pub struct Checks<'a> {
    course: Course,
    executor: &'a Executor,
    /// It may get a group while it runs.
    state: &'a RefCell<RunState>,
    note: Box<Note<'a>>,
    started: Instant,
    due: Option<Instant>,
    probe: Option<Probe>,
}

impl<'a> Checks<'a> {
    /// The checks of a run that has just begun. The first one is due at once if any is due by itself.
    pub fn new(
        course: Course,
        executor: &'a Executor,
        state: &'a RefCell<RunState>,
        mut note: Box<Note<'a>>,
    ) -> Self {
        note(&course, None);
        let started = Instant::now();
        let due = course.interval(Duration::ZERO).map(|_| started);
        Self { course, executor, state, note, started, due, probe: None }
    }

    fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// What is known.
    pub fn record(&self) -> &HealthRecord {
        self.course.record()
    }

    fn begin(&mut self) {
        self.due = None;
        let state = self.state.borrow();
        let frozen = state.cgroup.as_deref().is_some_and(crate::cgroup::freeze::is_frozen);
        if !frozen {
            // One that cannot be begun is tried again when the next one is due.
            self.probe = Probe::start(self.executor, &state, self.course.test(), self.age()).ok();
        }
        drop(state);
        if self.probe.is_none() {
            self.wait();
        }
    }

    fn wait(&mut self) {
        self.due = self.course.interval(self.age()).map(|interval| Instant::now() + interval);
    }

    fn finish(&mut self, probe: Probe) -> (HealthAction, i32) {
        let age = probe.age;
        let run = probe.finish();
        let code = run.code;
        let action = self.course.note(run.clone(), age);
        (self.note)(&self.course, Some(&run));
        self.wait();
        (action, code)
    }
}

impl Care<'_> {
    /// When something is to be done.
    pub fn due(&self) -> Option<Instant> {
        let check = self.checks.as_ref().and_then(|checks| checks.due);
        [self.kill_at, check].into_iter().flatten().min()
    }

    /// What becomes readable when a check has ended.
    pub fn probe(&self) -> Option<BorrowedFd<'_>> {
        self.checks.as_ref()?.probe.as_ref().map(|probe| probe.socket.as_fd())
    }

    /// What has POLLPRI when a process may have been killed for want of memory.
    pub fn memory(&self) -> Option<BorrowedFd<'_>> {
        self.memory.as_ref()?.fd()
    }

    /// Looks whether one was.
    pub fn look_at_memory(&mut self) {
        if self.memory.as_mut().is_some_and(OomWatch::look)
            && let Some(oom) = &mut self.oom
        {
            oom();
        }
    }

    /// Whether any was in this run.
    pub fn killed_for_memory(&self) -> bool {
        self.memory.as_ref().is_some_and(OomWatch::any)
    }

    /// Does what is due.
    pub fn tick(&mut self, pidfd: BorrowedFd<'_>) {
        let Some(due) = self.due() else { return };
        let now = Instant::now();
        if due > now {
            return;
        }
        if self.kill_at.is_some_and(|at| at <= now) {
            self.kill_at = None;
            let _ = process::pidfd_signal(pidfd, libc::SIGKILL);
        }
        if let Some(checks) = &mut self.checks
            && checks.due.is_some_and(|at| at <= now)
        {
            checks.begin();
        }
    }

    /// Takes the result of a check, and does what follows from it.
    pub fn checked(&mut self, pidfd: BorrowedFd<'_>) -> Option<Event<'static>> {
        let checks = self.checks.as_mut()?;
        let probe = checks.probe.take()?;
        let (action, code) = checks.finish(probe);
        let status = checks.record().status;
        match action {
            HealthAction::None => {}
            HealthAction::Stop => {
                self.end = true;
                let (signal, patience) = self.stop;
                let _ = process::pidfd_signal(pidfd, signal);
                let at = Instant::now() + patience;
                self.kill_at = Some(self.kill_at.map_or(at, |earlier| earlier.min(at)));
            }
            HealthAction::Kill | HealthAction::Restart => {
                self.restart = action == HealthAction::Restart;
                let _ = process::pidfd_signal(pidfd, libc::SIGKILL);
            }
        }
        Some(Event::Checked(status, code))
    }

    /// The container's record was changed.
    pub fn renew(&mut self) {
        if let (None, Some(watch)) = (&self.memory, &self.watch) {
            self.memory = watch();
        }
        if let Some(checks) = self.renew.as_mut().and_then(|renew| renew()) {
            self.abandon();
            self.checks = checks;
        }
    }

    fn abandon(&mut self) {
        if let Some(probe) = self.checks.as_mut().and_then(|checks| checks.probe.take()) {
            probe.abandon();
        }
    }

    /// A check that somebody asks for: at once, if none is on its way.
    pub fn check_now(&mut self) {
        if let Some(checks) = &mut self.checks
            && checks.probe.is_none()
        {
            checks.due = Some(Instant::now());
        }
    }

    /// The program has ended: there is nothing more to check.
    pub fn ended(&mut self) {
        self.kill_at = None;
        self.abandon();
        if let Some(checks) = &mut self.checks {
            checks.due = None;
        }
    }
}
