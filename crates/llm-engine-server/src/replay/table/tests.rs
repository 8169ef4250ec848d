use std::num::NonZeroUsize;

use axum::body::Bytes;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

/// A table that keeps answers for a minute, so many of them, of one caller, and so many bytes.
struct Tables {
    table: Table,
    memory: Arc<Memory>,
    now: Instant,
}

impl Tables {
    fn new(answers: usize, answers_per_caller: usize, memory_bytes: usize) -> Self {
        let setup = ReplaySetup {
            keep: MINUTE,
            memory_bytes,
            memory_bytes_per_caller: memory_bytes,
            answer_bytes: memory_bytes,
            answers: NonZeroUsize::new(answers).expect("not zero"),
            answers_per_caller: NonZeroUsize::new(answers_per_caller).expect("not zero"),
        };
        let memory = Arc::new(Memory::new(memory_bytes, setup.memory_bytes_per_caller));
        Self {
            table: Table::new(setup, Arc::clone(&memory), ReplayMetrics::default()),
            memory,
            now: Instant::now(),
        }
    }

    fn find(&mut self, name: &Arc<Name>, body: u8) -> Found {
        self.table.find(self.now, name, [body; 32], Duration::ZERO)
    }

    fn outcome(&mut self, name: &Arc<Name>) -> Option<&'static str> {
        self.find(name, 0).outcome()
    }

    fn begin(&mut self, name: &Arc<Name>) -> (Arc<Recording>, Listener) {
        match self.find(name, 0) {
            Found::Nothing { work, listener } => (work, listener),
            found => panic!("{found:?}"),
        }
    }

    /// A request that is answered with so many bytes, and of which nobody listens any more.
    async fn answer(&mut self, name: &Arc<Name>, bytes: usize) {
        let (work, _listener) = self.begin(name);
        work.add(Bytes::from(vec![b'a'; bytes])).await;
        self.table.keep(self.now, name, &work);
    }
}

fn name(caller: &'static str, key: &str) -> Arc<Name> {
    Arc::new(Name::new(caller, "/path", key))
}

#[tokio::test]
async fn a_key_belongs_to_one_request_of_one_caller_on_one_path() {
    let mut tables = Tables::new(10, 10, 1 << 20);
    let own = name("a", "k");
    let (work, _listener) = tables.begin(&own);
    assert_eq!(tables.outcome(&own), Some("attached"));
    assert_eq!(tables.find(&own, 1).outcome(), Some("key_reused"));
    for other in [
        name("b", "k"),
        name("a", "l"),
        Arc::new(Name::new("a", "/p", "k")),
    ] {
        assert_eq!(tables.outcome(&other), None);
    }
    tables.table.keep(tables.now, &own, &work);
    assert_eq!(tables.outcome(&own), Some("replayed"));
    assert_eq!(tables.find(&own, 1).outcome(), Some("key_reused"));
}

#[tokio::test]
async fn an_answer_is_there_until_its_time_is_over() {
    let mut tables = Tables::new(10, 10, 1 << 20);
    tables.answer(&name("a", "k"), 10).await;
    tables.now += MINUTE - Duration::from_nanos(1);
    assert_eq!(tables.outcome(&name("a", "k")), Some("replayed"));
    tables.now += Duration::from_nanos(1);
    assert_eq!(tables.outcome(&name("a", "k")), None);
}

#[tokio::test]
async fn work_that_led_to_nothing_leaves_nothing() {
    let mut tables = Tables::new(10, 10, 1 << 20);
    let name = name("a", "k");
    let (work, listener) = tables.begin(&name);
    tables.table.free(&name, &work);
    drop((work, listener));
    assert_eq!(tables.memory.used(), 0);
    let (again, _listener) = tables.begin(&name);
    // What was given up before must not take away what has begun since.
    let (old, _) = Recording::begin_with(Arc::new(Share::new(Arc::clone(&tables.memory))), Duration::ZERO);
    tables.table.free(&name, &old);
    assert!(tables.table.keep(tables.now, &name, &old).is_empty());
    assert_eq!(tables.outcome(&name), Some("attached"));
    drop(again);
}

#[tokio::test]
async fn of_too_many_answers_the_oldest_leave_tombstones() {
    let mut tables = Tables::new(4, 2, 1 << 20);
    for key in ["1", "2", "3"] {
        tables.answer(&name("a", key), 10).await;
    }
    assert_eq!(tables.outcome(&name("a", "1")), Some("answer_not_kept"));
    assert_eq!(tables.find(&name("a", "1"), 1).outcome(), Some("key_reused"));
    for key in ["2", "3"] {
        assert_eq!(tables.outcome(&name("a", key)), Some("replayed"));
    }
    for caller in ["b", "c"] {
        tables.answer(&name(caller, "1"), 10).await;
    }
    tables.answer(&name("c", "2"), 10).await;
    assert_eq!(
        tables.outcome(&name("a", "2")),
        Some("answer_not_kept"),
        "the oldest of all"
    );
    assert_eq!(tables.outcome(&name("b", "1")), Some("replayed"));
    assert_eq!(tables.table.metrics.dropped_answers.get(), 2);
    tables.now += MINUTE;
    for key in ["1", "2", "3"] {
        assert_eq!(
            tables.outcome(&name("a", key)),
            None,
            "tombstones last as long as the answers"
        );
    }
}

#[tokio::test]
async fn answers_make_room_for_new_ones_unless_somebody_hears_them() {
    let mut tables = Tables::new(10, 10, 1 << 20);
    for key in ["1", "2", "3"] {
        tables.answer(&name("a", key), 100).await;
    }
    let before = tables.memory.used();
    let Found::Stored(listener) = tables.find(&name("a", "1"), 0) else {
        panic!("it is stored");
    };
    drop(tables.table.make_room(Full::Memory, &name("b", "1"), 1));
    assert_eq!(tables.outcome(&name("a", "1")), Some("replayed"));
    assert_eq!(tables.outcome(&name("a", "2")), Some("answer_not_kept"));
    assert_eq!(tables.outcome(&name("a", "3")), Some("replayed"));
    assert_eq!(tables.memory.used(), before / 3 * 2);
    drop(listener);
    drop(tables.table.make_room(Full::Memory, &name("b", "1"), usize::MAX));
    assert_eq!(tables.memory.used(), 0);
}

#[tokio::test]
async fn a_caller_that_has_its_share_makes_room_for_itself() {
    let mut tables = Tables::new(10, 10, 1 << 20);
    for (caller, key) in [("a", "1"), ("b", "1"), ("b", "2")] {
        tables.answer(&name(caller, key), 100).await;
    }
    drop(tables.table.make_room(Full::Share, &name("b", "3"), 1));
    assert_eq!(
        tables.outcome(&name("a", "1")),
        Some("replayed"),
        "the oldest of all"
    );
    assert_eq!(tables.outcome(&name("b", "1")), Some("answer_not_kept"));
    assert_eq!(tables.outcome(&name("b", "2")), Some("replayed"));
    drop(tables.table.make_room(Full::Share, &name("c", "1"), usize::MAX));
    assert_eq!(tables.table.metrics.dropped_answers.get(), 1, "it has nothing");
}

#[tokio::test]
async fn memory_is_counted_in_all_and_for_each_caller() {
    let memory = Arc::new(Memory::new(100, 60));
    let [one, other] = [(); 2].map(|()| Share::new(Arc::clone(&memory)));
    one.take(60);
    assert_eq!(one.room_for(1), Err(Full::Share));
    assert_eq!(other.room_for(40), Ok(()));
    assert_eq!(other.room_for(41), Err(Full::Memory));
    one.give_back(1);
    assert_eq!((one.room_for(1), other.room_for(41)), (Ok(()), Ok(())));
}

#[tokio::test]
async fn a_request_that_was_overtaken_by_its_cancel_is_not_begun() {
    let mut tables = Tables::new(10, 10, 1 << 20);
    let (own, now) = (name("a", "k"), tables.now);
    let ahead = Duration::from_secs(5);
    tables.table.cancel_ahead(now, own.caller, "k", ahead);
    assert_eq!(tables.outcome(&own), Some("cancelled"));
    for bystander in [name("b", "k"), name("a", "kk")] {
        assert_eq!(tables.outcome(&bystander), None);
    }
    // Cancelled again, for as long again.
    tables.now += ahead - Duration::from_nanos(1);
    assert_eq!(tables.table.forget(tables.now, own.caller, "k"), None);
    tables.table.cancel_ahead(tables.now, own.caller, "k", ahead);
    tables.now += ahead - Duration::from_nanos(1);
    assert_eq!(tables.outcome(&own), Some("cancelled"));
    tables.now += Duration::from_nanos(1);
    assert_eq!(tables.outcome(&own), None, "it is another one by now");
    assert_eq!(tables.table.tombstones.names.len(), 0);
}

#[tokio::test]
async fn of_too_many_tombstones_the_oldest_are_forgotten() {
    let mut tables = Tables::new(1, 1, 1 << 20);
    let tombstones = MOST_TOMBSTONES_OF_ONE;
    for number in 0..tombstones + 2 {
        tables.now += Duration::from_nanos(1);
        tables.answer(&name("a", &number.to_string()), 1).await;
    }
    assert_eq!(tables.table.tombstones.names.len(), tombstones);
    assert_eq!(tables.table.metrics.dropped_tombstones.get(), 1);
    assert_eq!(tables.outcome(&name("a", "1")), Some("answer_not_kept"));
    assert_eq!(tables.outcome(&name("a", "0")), None);
}

#[tokio::test]
async fn everything_with_a_key_is_forgotten_at_once() {
    let mut tables = Tables::new(10, 10, 1 << 20);
    let (caller, now) = ("a", tables.now);
    let other_path = Arc::new(Name::new(caller, "/other", "k"));
    tables.answer(&name("a", "k"), 10).await;
    let (work, _listener) = tables.begin(&other_path);
    for (_, bystander) in [("b", "k"), ("a", "kk")].map(|(caller, key)| (caller, name(caller, key))) {
        tables.answer(&bystander, 10).await;
    }
    assert_eq!(tables.table.forget(now, caller, "k"), Some(true));
    assert!(work.is_given_up());
    assert_eq!(tables.table.forget(now, caller, "k"), None);
    assert_eq!(tables.table.forget(now, caller, "kk"), Some(false));
    assert_eq!(tables.outcome(&name("b", "k")), Some("replayed"));
}

/// A recording of pieces that are a byte each, of which everything is counted.
async fn recording(pieces: &str) -> (Arc<Recording>, Listener) {
    let memory = Arc::new(Memory::new(1 << 20, 1 << 20));
    let (work, listener) = Recording::begin_with(Arc::new(Share::new(memory)), Duration::ZERO);
    for piece in pieces.split_inclusive(|_| true) {
        work.add(Bytes::copy_from_slice(piece.as_bytes())).await;
    }
    (work, listener)
}

async fn hear(listener: &mut Listener, pieces: usize) -> String {
    let mut heard = String::new();
    for _ in 0..pieces {
        let piece = listener.next().await.expect("a piece").expect("no error");
        heard.push_str(std::str::from_utf8(&piece).expect("text"));
    }
    heard
}

#[tokio::test(start_paused = true)]
async fn an_overgrown_answer_goes_on_for_those_who_listen_and_waits_for_the_furthest() {
    let (work, mut fast) = recording("abcd").await;
    let mut slow = work.join(Duration::ZERO).expect("it is all there");
    work.overgrow();
    assert_eq!(work.join(Duration::ZERO).err(), Some(CannotJoin::Overgrown));
    let full = work.bytes();

    let add = work.add(Bytes::from_static(b"e"));
    tokio::pin!(add);
    let second = Duration::from_secs(1);
    assert!(
        tokio::time::timeout(second, &mut add).await.is_err(),
        "nobody has heard anything"
    );
    assert_eq!(hear(&mut fast, 1).await, "a");
    add.await;
    assert_eq!(hear(&mut fast, 4).await, "bcde");
    assert_eq!(work.bytes(), full, "no more than there was");
    assert!(matches!(slow.next().await, Some(Err(_))), "its beginning is gone");
    drop(slow);
    work.add(Bytes::from_static(b"f")).await;
    assert!(work.bytes() < full, "what everybody has heard is gone");
    drop(fast);
    work.given_up().await;
}

#[tokio::test(start_paused = true)]
async fn work_is_given_up_when_the_longest_wish_of_those_who_went_is_over() {
    let (work, first) = recording("").await;
    let begun = Instant::now();
    let second = work.join(Duration::from_secs(30)).expect("it is all there");
    drop(second);
    tokio::time::advance(Duration::from_secs(10)).await;
    drop(first);
    work.given_up().await;
    assert_eq!(begun.elapsed(), Duration::from_secs(30));
    assert_eq!(work.join(Duration::ZERO).err(), Some(CannotJoin::GivenUp));
}
