//! When a container that has ended is started again. Pure.

use std::time::Duration;

use crate::storage::containers::{Exit, RestartPolicy};

/// Whether a container is started again that ended so, after so many restarts.
pub fn again(policy: RestartPolicy, exit: Exit, restarts: u32) -> bool {
    match policy {
        RestartPolicy::No => false,
        RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
        RestartPolicy::OnFailure(bound) => exit.code() != 0 && bound.is_none_or(|bound| restarts < bound),
    }
}

/// How long a container rests before it is started again: Docker's rule. Each time twice as long, from a
/// tenth of a second to a minute; a run of ten seconds shows that it works, and begins the row anew.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(60);
    const WORKS: Duration = Duration::from_secs(10);

    /// Nothing has failed yet.
    pub fn new() -> Self {
        Self { next: Self::FIRST }
    }

    /// The rest after a run that lasted so long.
    pub fn rest(&mut self, ran: Duration) -> Duration {
        if ran >= Self::WORKS {
            self.next = Self::FIRST;
        }
        let rest = self.next;
        self.next = (rest * 2).min(Self::LONGEST);
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies() {
        let (good, bad, killed) = (Exit::Code(0), Exit::Code(3), Exit::Signal(9));
        for (policy, exit, restarts, expected) in [
            (RestartPolicy::No, bad, 0, false),
            (RestartPolicy::Always, good, 1000, true),
            (RestartPolicy::UnlessStopped, killed, 1000, true),
            (RestartPolicy::OnFailure(None), good, 0, false),
            (RestartPolicy::OnFailure(None), killed, 1000, true),
            (RestartPolicy::OnFailure(Some(2)), bad, 1, true),
            (RestartPolicy::OnFailure(Some(2)), bad, 2, false),
        ] {
            assert_eq!(again(policy, exit, restarts), expected, "{policy:?} {exit:?} {restarts}");
        }
    }

    #[test]
    fn rests_grow_and_begin_anew() {
        let mut backoff = Backoff::new();
        let short = Duration::from_secs(1);
        let mut rests: Vec<u128> = (0..12).map(|_| backoff.rest(short).as_millis()).collect();
        assert_eq!(rests, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000]);
        rests = [10, 1].map(|seconds| backoff.rest(Duration::from_secs(seconds)).as_millis()).into();
        assert_eq!(rests, [100, 200]);
    }
}
