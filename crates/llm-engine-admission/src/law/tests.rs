use super::*;

/// A model with room for so many tokens, whose first tokens are due after so many seconds, in front of which there are always
/// more requests, of 1,000 tokens each, than it can take.
struct Model {
    law: Law,
    now: Time,
    room: u64,
    due: f64,
    /// What was in flight at each look.
    in_flight: Vec<u64>,
}

impl Model {
    fn new(room: u64, due: f64) -> Self {
        let most = NonZeroU32::new(10_000).unwrap();
        Self {
            law: Law::new(Limit::Adaptive { most }),
            now: Time::ZERO,
            room,
            due,
            in_flight: Vec::new(),
        }
    }

    /// As many requests as may be are in flight for so many seconds, with a look every half of one; the limit at the last.
    fn run(&mut self, seconds: f64, part: f64) -> f64 {
        for _ in 0..looks(seconds) {
            let requests = whole(self.law.requests() as f64 * part);
            let tokens = 1_000 * requests as u64;
            self.in_flight.push(tokens);
            let sent = self.in_flight.len().checked_sub(1 + looks(self.due));
            let sent = sent.map_or(0, |sent| self.in_flight[sent]);
            self.law.look(
                self.now,
                Look {
                    requests,
                    tokens,
                    late: sent.saturating_sub(self.room),
                    awaited: 0,
                    reserve: 0,
                    due: self.due,
                    reading: 0.0,
                },
            );
            self.now = self.law.next();
        }
        self.law.tokens() / self.room as f64
    }
}

#[test]
fn the_limit_is_what_the_model_has_room_for_whatever_the_delay() {
    for due in [0.5, 1.2, 2.5, 5.5] {
        let mut model = Model::new(100_000, due);
        model.run(12.0 * due + 5.0, 1.0);
        for _ in 0..100 {
            let part = model.run(0.5, 1.0);
            assert!((0.95..1.1).contains(&part), "{due}: {part}");
        }
    }
}

#[test]
fn it_follows_a_model_that_has_less_room_at_once_and_one_that_has_more_within_some_delays() {
    for due in [0.5, 1.2, 2.5, 5.5] {
        let mut model = Model::new(100_000, due);
        model.run(30.0 * due, 1.0);
        model.room = 50_000;
        let part = model.run(3.0 * due + 1.0, 1.0);
        assert!((0.95..1.1).contains(&part), "{due}: {part}");
        model.run(10.0 * due, 1.0);
        model.room = 100_000;
        let part = model.run(8.0 * due + 5.0, 1.0);
        assert!((0.9..1.1).contains(&part), "{due}: {part}");
    }
}

#[test]
fn it_stays_where_it_is_while_less_is_asked_for() {
    let mut model = Model::new(100_000, 1.0);
    let before = model.run(60.0, 1.0);
    let after = model.run(60.0, 0.5);
    assert!((after - before).abs() < 0.1, "{before} {after}");
}

#[test]
fn what_is_late_for_a_moment_is_not_too_much() {
    let look = |late| Look {
        requests: 60,
        tokens: 60_000,
        late,
        awaited: 0,
        reserve: 0,
        due: 0.6,
        reading: 0.5,
    };
    let mut model = Model::new(60_000, 0.6);
    model.run(60.0, 1.0);
    let Model { mut law, now, .. } = model;
    let before = law.tokens();
    let mut now = now;
    for step in 0..40 {
        law.look(now, look(if step % 4 == 0 { 20_000 } else { 2_000 }));
        now = law.next();
        assert!(law.tokens() > 0.95 * before, "{step}: {}", law.tokens());
    }
}
