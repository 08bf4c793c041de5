//! The course of a container's health: which check comes when, and what follows from its result. Pure.

use std::time::Duration;

use crate::storage::containers::{HealthAction, HealthConfig, HealthRecord, HealthRun, HealthStatus};

/// Docker's interval in a start period for which none was given.
const START_INTERVAL: Duration = Duration::from_secs(5);

/// What is known, and what is still to be learnt, of one run of a container.
#[derive(Debug)]
pub struct Course {
    config: HealthConfig,
    record: HealthRecord,
    /// Successes and failures in a row of the checks that come first; none when they are over.
    startup: Option<(u32, u32)>,
}

impl Course {
    /// The course of a run that begins now.
    pub fn new(config: HealthConfig) -> Self {
        let startup = config.startup.as_ref().map(|_| (0, 0));
        Self { config, record: HealthRecord::default(), startup }
    }

    /// What is known.
    pub fn record(&self) -> &HealthRecord {
        &self.record
    }

    /// Where results go besides.
    pub fn config(&self) -> &HealthConfig {
        &self.config
    }

    /// The command of the next check (`CMD` or `CMD-SHELL` first), and how long it may take.
    pub fn test(&self) -> (&[String], Duration) {
        match (&self.config.startup, self.startup) {
            (Some(startup), Some(_)) => (&startup.test, Duration::from_nanos(startup.timeout)),
            _ => (&self.config.test, Duration::from_nanos(self.config.timeout)),
        }
    }

    /// How long after this moment, `age` after the start, the next check is due; none if only what is
    /// asked for is checked.
    pub fn interval(&self, age: Duration) -> Option<Duration> {
        let nanoseconds = match (&self.config.startup, self.startup) {
            (Some(startup), Some(_)) => startup.interval,
            _ => self.config.interval,
        };
        if nanoseconds == 0 {
            return None;
        }
        let interval = Duration::from_nanos(nanoseconds);
        let starting = self.startup.is_none()
            && self.record.status == HealthStatus::Starting
            && age < Duration::from_nanos(self.config.start_period);
        Some(match self.config.start_interval {
            _ if !starting => interval,
            0 => interval.min(START_INTERVAL),
            given => Duration::from_nanos(given),
        })
    }

    /// Notes the result of a check that began `age` after the start; what is to be done then.
    pub fn note(&mut self, mut run: HealthRun, age: Duration) -> HealthAction {
        if self.config.log_size > 0
            && let Some((end, _)) = run.output.char_indices().nth(self.config.log_size as usize)
        {
            run.output.truncate(end);
        }
        let good = run.code == 0;
        self.record.log.push(run);
        let most = self.config.log_count as usize;
        if most > 0 && self.record.log.len() > most {
            self.record.log.drain(..self.record.log.len() - most);
        }
        if self.startup.is_some() { self.note_startup(good) } else { self.note_regular(good, age) }
    }

    fn note_startup(&mut self, good: bool) -> HealthAction {
        let (Some(config), Some((successes, failures))) = (&self.config.startup, &mut self.startup) else {
            return HealthAction::None;
        };
        if !good {
            (*successes, *failures) = (0, *failures + 1);
            let over = config.retries > 0 && *failures >= config.retries;
            return if over { HealthAction::Restart } else { HealthAction::None };
        }
        (*successes, *failures) = (*successes + 1, 0);
        if *successes >= config.success.max(1) {
            self.startup = None;
        }
        HealthAction::None
    }

    fn note_regular(&mut self, good: bool, age: Duration) -> HealthAction {
        let before = self.record.status;
        if good {
            self.record.status = HealthStatus::Healthy;
            self.record.streak = 0;
        } else if before != HealthStatus::Starting || age >= Duration::from_nanos(self.config.start_period) {
            self.record.streak += 1;
            if self.record.streak >= self.config.retries {
                self.record.status = HealthStatus::Unhealthy;
            }
        }
        let fell = self.record.status == HealthStatus::Unhealthy && before != HealthStatus::Unhealthy;
        if fell { self.config.on_failure } else { HealthAction::None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::containers::StartupCheck;

    const SECOND: u64 = 1_000_000_000;

    fn config() -> HealthConfig {
        HealthConfig {
            test: vec!["CMD".into(), "true".into()],
            interval: 30 * SECOND,
            timeout: 2 * SECOND,
            retries: 2,
            start_period: 0,
            start_interval: 0,
            startup: None,
            on_failure: HealthAction::Kill,
            log_count: 3,
            log_size: 4,
            log_destination: None,
        }
    }

    fn run(code: i32) -> HealthRun {
        HealthRun { start: 0, end: 1, code, output: "äöüßx".into() }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_container_is_unhealthy_after_so_many_failures_in_a_row() {
        let mut course = Course::new(config());
        assert_eq!(course.record().status, HealthStatus::Starting);
        for (code, status, streak, action) in [
            (1, HealthStatus::Starting, 1, HealthAction::None),
            (0, HealthStatus::Healthy, 0, HealthAction::None),
            (-1, HealthStatus::Healthy, 1, HealthAction::None),
            (1, HealthStatus::Unhealthy, 2, HealthAction::Kill),
            (1, HealthStatus::Unhealthy, 3, HealthAction::None),
            (0, HealthStatus::Healthy, 0, HealthAction::None),
        ] {
            assert_eq!(course.note(run(code), at(0)), action);
            assert_eq!((course.record().status, course.record().streak), (status, streak));
        }
        assert_eq!(course.record().log.len(), 3);
        assert_eq!(course.record().log[2].output, "äöüß");
    }

    #[test]
    fn failures_do_not_count_in_the_start_period() {
        let mut course = Course::new(HealthConfig { start_period: 60 * SECOND, ..config() });
        for _ in 0..5 {
            assert_eq!(course.note(run(1), at(10)), HealthAction::None);
        }
        assert_eq!((course.record().status, course.record().streak), (HealthStatus::Starting, 0));
        assert_eq!(course.interval(at(10)), Some(at(5)));
        assert_eq!(course.interval(at(60)), Some(at(30)));
        // From the first success on they do.
        course.note(run(0), at(11));
        assert_eq!(course.interval(at(12)), Some(at(30)));
        course.note(run(1), at(12));
        assert_eq!(course.note(run(1), at(13)), HealthAction::Kill);
    }

    #[test]
    fn what_comes_first_comes_until_it_went_well() {
        let startup = StartupCheck {
            test: vec!["CMD".into(), "first".into()],
            interval: SECOND,
            timeout: SECOND,
            retries: 3,
            success: 2,
        };
        let with = || HealthConfig { startup: Some(startup.clone()), ..config() };
        let mut course = Course::new(with());
        assert_eq!(course.test(), (startup.test.as_slice(), at(1)));
        assert_eq!(course.interval(at(0)), Some(at(1)));
        for code in [0, 1, 0] {
            course.note(run(code), at(0));
            assert_eq!(course.test().0[1], "first");
        }
        course.note(run(0), at(0));
        assert_eq!(course.test().0[1], "true");
        assert_eq!((course.record().status, course.interval(at(0))), (HealthStatus::Starting, Some(at(30))));
        let mut course = Course::new(with());
        let actions: Vec<_> = (0..3).map(|_| course.note(run(1), at(0))).collect();
        assert_eq!(actions, [HealthAction::None, HealthAction::None, HealthAction::Restart]);
    }

    #[test]
    fn without_an_interval_nothing_is_due() {
        assert_eq!(Course::new(HealthConfig { interval: 0, ..config() }).interval(at(0)), None);
    }
}
