//! How long flows of datagrams live: nobody says when one has ended.

use std::time::{Duration, Instant};

use super::poll::{Place, Table};

/// A flow that was never answered is forgotten after this time without a datagram.
pub const UNANSWERED: Duration = Duration::from_secs(30);
/// And one that was after this one (RFC 4787, REQ-5: not less than two minutes).
pub const ANSWERED: Duration = Duration::from_secs(180);

/// What has gone over a flow. The lesser of two can be spared sooner: without an answer, then idle for longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Use {
    answered: bool,
    last: Instant,
}

impl Use {
    /// A first datagram.
    pub fn new(now: Instant) -> Self {
        Self { answered: false, last: now }
    }

    /// One more, an answer or another one.
    pub fn note(&mut self, answer: bool, now: Instant) {
        self.answered |= answer;
        self.last = now;
    }

    /// Whether it was idle for long.
    pub fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.last) > if self.answered { ANSWERED } else { UNANSWERED }
    }
}

/// Which flows make room for a new one where there are as many as there may be and none is over: the eighth that can
/// be spared soonest, so that it is not looked for each time. Nobody can keep others out by having many.
pub fn spared<T>(table: &Table<T>, used: impl Fn(&T) -> Use) -> Vec<Place> {
    let mut uses: Vec<Use> = table.iter().map(&used).collect();
    if uses.is_empty() {
        return Vec::new();
    }
    let eighth = uses.len() / 8;
    let last = *uses.select_nth_unstable(eighth).1;
    table.places(|flow| used(flow) <= last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_end_by_their_age_or_for_want_of_room() {
        let begin = Instant::now();
        let after = |seconds: u64| begin + Duration::from_secs(seconds);
        let mut table = Table::default();
        assert_eq!(spared(&table, |flow: &Use| *flow), []);
        // Every second one is answered.
        let places: Vec<Place> = (0..16)
            .map(|number| {
                let mut flow = Use::new(after(number));
                flow.note(number % 2 == 0, after(number));
                table.insert(flow)
            })
            .collect();
        let over = |seconds| table.places(|flow| flow.is_over(after(seconds)));
        assert_eq!((over(20), over(32)), (vec![], vec![places[1]]));
        assert_eq!((over(60).len(), over(300).len()), (8, 16));
        // The oldest of the unanswered: 1, 3, 5.
        assert_eq!(spared(&table, |flow| *flow), [places[1], places[3], places[5]]);
        // Where all are answered, those that were idle longest.
        for place in &places {
            let flow = table.get(*place).unwrap();
            flow.answered = true;
        }
        assert_eq!(spared(&table, |flow| *flow), [places[0], places[1], places[2]]);
    }
}
