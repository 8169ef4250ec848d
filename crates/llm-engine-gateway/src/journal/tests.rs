use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use llm_engine_limit::{Counted, Per, Period, Policy, Quota, Saved, SavedLevel, Subject, Unit, User};
use redb::{Database, ReadableDatabase, ReadableTableMetadata};
use tempfile::TempDir;

use super::{ENTRIES, FORMAT, FORMAT_TABLE, Journal, JournalError};
use crate::names::Names;

const NOTHING: Per = Per {
    caller: false,
    team: false,
    user: false,
    model: false,
    route: false,
    address: false,
};
const ALL: Per = Per {
    caller: true,
    team: true,
    user: true,
    model: true,
    route: true,
    address: true,
};
const CALLER: Per = Per {
    caller: true,
    ..NOTHING
};

fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("state/limits.redb");
    (folder, path)
}

fn names(callers: &[&str]) -> Names {
    let mut names = Names::default();
    for caller in callers {
        names.callers.number(caller);
        names.teams.number(&format!("caller {caller}"));
        names.models.number(&format!("model of {caller}"));
    }
    names
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).expect("a time")
}

fn spent(policy: &str, subject: Subject, window: u32, units: u64) -> Saved {
    Saved {
        policy: policy.into(),
        counted: Counted::PerPeriod {
            unit: Unit::Usd,
            period: Period::Month,
        },
        subject,
        level: SavedLevel::Spent { window, units },
    }
}

fn missing(policy: &str, subject: Subject, units: u64) -> Saved {
    Saved {
        policy: policy.into(),
        counted: Counted::PerWindow {
            unit: Unit::Tokens,
            window: Duration::from_mins(5),
        },
        subject,
        level: SavedLevel::Missing { units },
    }
}

fn caller(caller: u32) -> Subject {
    Subject {
        caller,
        ..Subject::default()
    }
}

fn policies(policies: &[(&str, Per)]) -> Vec<Policy> {
    let policy = |(name, per): &(&str, Per)| Policy {
        name: (*name).into(),
        per: *per,
        ..Policy::default()
    };
    policies.iter().map(policy).collect()
}

fn store(
    journal: &Journal,
    saved: &[Saved],
    names: &Names,
    policies: &[Policy],
    at: Timestamp,
) -> Result<(), JournalError> {
    journal.store(&journal.entries(saved, names, policies, at), policies)
}

fn with_database<T>(
    journal: &Journal,
    work: impl FnOnce(&Database) -> Result<T, redb::Error>,
) -> Result<T, JournalError> {
    journal.with_database(&mut journal.state().database, work)
}

fn count(journal: &Journal) -> u64 {
    let count = |database: &Database| Ok(database.begin_read()?.open_table(ENTRIES)?.len()?);
    with_database(journal, count).expect("it can be read")
}

/// The error's sentence, without the folder, which is another each time.
fn sentence(error: &JournalError, path: &Path) -> String {
    error.to_string().replace(&path.display().to_string(), "FILE")
}

fn sentence_of_open(path: &Path) -> String {
    let error = Journal::open(path).expect_err("it can't be opened");
    sentence(&error, path)
}

#[test]
fn what_is_stored_is_there_after_a_restart_under_other_numbers() {
    let (_folder, path) = place();
    let subject = |number| Subject {
        caller: number,
        team: number,
        model: number,
        route: 1,
        address: 0xc000_0201,
        user: User([7, 0, u32::MAX]),
    };
    let (before, after) = (names(&["a", "b"]), names(&["b", "c", "a"]));
    let stored = |number| {
        [
            spent("everyone", Subject::default(), 672, 5_000_000_000),
            spent("everything", subject(number), 671, u64::MAX),
            missing("everything", subject(number), 1),
        ]
    };
    let policies = policies(&[("everyone", NOTHING), ("everything", ALL)]);
    let journal = Journal::open(&path).expect("a new file");
    store(&journal, &stored(0), &before, &policies, at(0)).expect("stored");
    drop(journal);

    let journal = Journal::open(&path).expect("the same file");
    let loaded = journal.load(&after, &policies, at(0)).expect("loaded");
    let expected = stored(2).map(|saved| (saved, at(0)));
    assert_eq!(loaded.len(), expected.len());
    for entry in expected {
        assert!(loaded.contains(&entry), "{entry:?} is not among {loaded:?}");
    }
}

#[test]
fn keys_are_readable_and_say_which_zeros_count() {
    let (_folder, path) = place();
    let names = names(&["we \"b\""]);
    let journal = Journal::open(&path).expect("a new file");
    let mut keys = Vec::new();
    for per in [NOTHING, CALLER, ALL] {
        let saved = [missing("p", Subject::default(), 1)];
        let entries = journal.entries(&saved, &names, &policies(&[("p", per)]), at(0));
        journal.store(&entries, &[]).expect("stored");
        keys.extend(entries.into_iter().map(|entry| entry.key));
    }
    assert_eq!(count(&journal), 3);
    let start = r#"{"policy":"p","unit":"tokens","over":{"nanos":300000000000},"per":"#;
    assert_eq!(keys[0], format!("{start}[]}}"));
    assert_eq!(keys[1], format!(r#"{start}[{{"caller":"we \"b\""}}]}}"#));
    let all = r#"[{"caller":"we \"b\""},{"team":"caller we \"b\""},{"user":"000000000000000000000000"},{"model":"model of we \"b\""},{"route":"ROUTE"},{"address":0}]"#;
    assert_eq!(
        keys[2],
        format!("{start}{}}}", all.replace("ROUTE", crate::ROUTES[0]))
    );
}

#[test]
fn a_later_level_replaces_an_earlier_one_and_nothing_deletes_it() {
    let (_folder, path) = place();
    let names = names(&["a", "b"]);
    let policies = policies(&[("p", CALLER), ("q", CALLER)]);
    let journal = Journal::open(&path).expect("a new file");
    let first = [
        spent("p", caller(0), 7, 10),
        spent("p", caller(1), 7, 10),
        missing("p", caller(0), 10),
    ];
    store(&journal, &first, &names, &policies, at(0)).expect("stored");
    let second = [
        spent("p", caller(0), 8, 3),
        spent("p", caller(1), 8, 0),
        missing("p", caller(0), 0),
    ];
    store(&journal, &second, &names, &policies, at(1)).expect("stored");
    let loaded = journal.load(&names, &policies, at(0)).expect("loaded");
    assert_eq!(loaded, [(second[0].clone(), at(1))]);
    assert_eq!(count(&journal), 1);
}

#[test]
fn what_has_no_name_is_left_out_until_the_name_comes_back() {
    let (_folder, path) = place();
    let both = names(&["a", "b"]);
    let counted_per = |per| policies(&[("p", per)]);
    let per_caller = counted_per(CALLER);
    let journal = Journal::open(&path).expect("a new file");
    let saved = [missing("p", caller(0), 1), missing("p", caller(1), 2)];
    store(&journal, &saved, &both, &per_caller, at(0)).expect("stored");

    let without_a = journal.load(&names(&["b"]), &per_caller, at(0)).expect("loaded");
    assert_eq!(without_a, [(missing("p", caller(0), 2), at(0))]);
    for others in [vec![], counted_per(ALL), counted_per(NOTHING)] {
        assert_eq!(journal.load(&both, &others, at(0)).expect("loaded"), []);
    }
    assert_eq!(journal.load(&both, &per_caller, at(0)).expect("loaded").len(), 2);

    let nameless = [missing("q", caller(0), 1), missing("p", caller(9), 1)];
    store(&journal, &nameless, &both, &per_caller, at(0)).expect("nothing is stored");
    assert_eq!(count(&journal), 2);
}

#[test]
fn what_is_certainly_over_is_cleared_out_every_hour() {
    let (_folder, path) = place();
    let names = names(&["a", "b"]);
    let policies = policies(&[("p", CALLER)]);
    let journal = Journal::open(&path).expect("a new file");
    let day = Saved {
        counted: Counted::PerPeriod {
            unit: Unit::Requests,
            period: Period::Day,
        },
        ..spent("p", caller(0), 7, 10)
    };
    let saved = [day, spent("p", caller(0), 7, 10), missing("p", caller(0), 10)];
    store(&journal, &saved, &names, &policies, at(0)).expect("stored");
    let nothing = [missing("p", caller(1), 0)];
    const HOUR: i64 = 60;
    const DAY: i64 = 24 * HOUR;
    for (minutes, left) in [
        (-10 * DAY, 3),
        (2 * DAY, 3),
        (2 * DAY + 59, 3),
        (2 * DAY + HOUR, 2),
        (32 * DAY, 2),
        (32 * DAY + HOUR, 1),
        (400 * DAY, 1),
        (400 * DAY + HOUR, 0),
    ] {
        let later = at(0) + SignedDuration::from_mins(minutes);
        store(&journal, &nothing, &names, &policies, later).expect("stored");
        assert_eq!(count(&journal), left, "after {minutes} minutes");
    }
}

/// Ten units of a hundred in five minutes are there again after thirty seconds; nobody need know of them for longer.
#[test]
fn what_has_refilled_is_not_loaded_and_goes_with_the_next_clearing() {
    let (_folder, path) = place();
    let names = names(&["a", "b"]);
    let quota = Quota::new(100, Duration::from_mins(5)).expect("it is exact");
    let mut policies = policies(&[("p", CALLER)]);
    policies[0].quotas = vec![(Unit::Tokens, quota)];
    let journal = Journal::open(&path).expect("a new file");
    let saved = [missing("p", caller(0), 10), missing("p", caller(1), 100)];
    store(&journal, &saved, &names, &policies, at(0)).expect("stored");
    let loaded = |seconds| {
        journal
            .load(&names, &policies, at(seconds))
            .expect("loaded")
            .len()
    };
    assert_eq!([30, 31, 300, 301].map(loaded), [2, 1, 1, 0]);

    assert_eq!(count(&journal), 2);
    let nothing = [missing("p", caller(0), 0)];
    store(&journal, &nothing, &names, &policies, at(3_600)).expect("stored");
    assert_eq!(count(&journal), 0);
}

#[test]
fn the_file_and_its_folder_are_private() {
    let (_folder, path) = place();
    let journal = Journal::open(&path).expect("a new file");
    journal.store(&[], &[]).expect("nothing to do");
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    let folder = path.parent().expect("it has a folder");
    assert_eq!((mode(folder), mode(&path)), (0o700, 0o600));
    assert_eq!(fs::read_dir(folder).expect("it is a folder").count(), 1);
}

#[test]
fn a_start_that_was_killed_while_it_made_the_file_does_no_harm() {
    let (_folder, path) = place();
    fs::create_dir(path.parent().expect("it has a folder")).expect("created");
    fs::write(path.with_added_extension("new"), [0; 5000]).expect("written");
    Journal::open(&path).expect("a new file");
    assert!(!path.with_added_extension("new").exists());
}

#[test]
fn of_servers_that_start_on_one_file_at_the_same_time_one_has_it() {
    let (_folder, path) = place();
    let opened: Vec<_> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..8).map(|_| scope.spawn(|| Journal::open(&path))).collect();
        starts
            .into_iter()
            .map(|start| start.join().expect("no panic"))
            .collect()
    });
    assert_eq!(opened.iter().filter(|opened| opened.is_ok()).count(), 1);
    for error in opened.iter().filter_map(|opened| opened.as_ref().err()) {
        assert_eq!(
            sentence(error, &path),
            "FILE is in use: another server uses it; give each its own state_folder"
        );
    }
}

#[test]
fn what_is_no_journal_stops_the_start_and_is_left_as_it_is() {
    let (_folder, path) = place();
    fs::create_dir(path.parent().expect("it has a folder")).expect("created");
    for content in [&b""[..], b"# Notes\n", &[0; 100_000]] {
        fs::write(&path, content).expect("written");
        let sentence = sentence_of_open(&path);
        assert!(sentence.starts_with("FILE is damaged ("), "{sentence}");
        let how_to_go_on = "); restore it from a backup, or move it away to start with all budgets unspent";
        assert!(sentence.ends_with(how_to_go_on), "{sentence}");
        assert_eq!(fs::read(&path).expect("it is there"), content);
    }
}

#[test]
fn a_damaged_file_stops_the_start() {
    let (_folder, path) = place();
    let names = names(&["a"]);
    let journal = Journal::open(&path).expect("a new file");
    let saved: Vec<_> = (1..500)
        .map(|n| missing(&format!("p{n}"), caller(0), n))
        .collect();
    let policies: Vec<_> = saved
        .iter()
        .flat_map(|saved| policies(&[(&saved.policy, CALLER)]))
        .collect();
    store(&journal, &saved, &names, &policies, at(0)).expect("stored");
    drop(journal);
    let whole = fs::read(&path).expect("it is there");

    let mut torn = whole.clone();
    torn.truncate(whole.len() / 2);
    let mut overwritten = whole.clone();
    for start in places_of(&whole, b"p250\"") {
        overwritten[start] ^= 1;
    }
    for damaged in [torn, overwritten] {
        fs::write(&path, damaged).expect("written");
        let sentence = sentence_of_open(&path);
        assert!(sentence.starts_with("FILE is damaged ("), "{sentence}");
    }
}

/// Where it stands in the file.
fn places_of(file: &[u8], text: &[u8]) -> Vec<usize> {
    (0..file.len())
        .filter(|start| file[*start..].starts_with(text))
        .collect()
}

#[test]
fn an_entry_without_sense_stops_the_start() {
    let (_folder, path) = place();
    let journal = Journal::open(&path).expect("a new file");
    for key in [
        "?",
        r#"{"policy":"p","unit":"apples","over":{"nanos":1},"per":[]}"#,
    ] {
        let write = |database: &Database| {
            let transaction = database.begin_write()?;
            let mut entries = transaction.open_table(ENTRIES)?;
            entries.retain(|_, _| false)?;
            entries.insert(key, (None, 1, 0))?;
            drop(entries);
            transaction.commit()?;
            Ok(())
        };
        with_database(&journal, write).expect("written");
        let error = journal.load(&Names::default(), &[], at(0)).expect_err("no sense");
        let expected = format!("FILE is damaged (no sense in its entry {key}); ");
        assert!(sentence(&error, &path).starts_with(&expected), "{error}");
    }
}

#[test]
fn a_newer_server_s_file_is_left_to_it() {
    let (_folder, path) = place();
    let journal = Journal::open(&path).expect("a new file");
    let write = |database: &Database| {
        let transaction = database.begin_write()?;
        transaction.open_table(FORMAT_TABLE)?.insert((), FORMAT + 1)?;
        transaction.commit()?;
        Ok(())
    };
    with_database(&journal, write).expect("written");
    drop(journal);
    assert_eq!(
        sentence_of_open(&path),
        "FILE was written by a newer version of the server (format 2, this one knows 1); start that version, or move the \
         file away to start with all budgets unspent"
    );
}

#[test]
fn a_folder_that_can_t_be_written_stops_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    fs::write(&file, "").expect("written");
    let path = file.join("limits.redb");
    assert_eq!(
        sentence_of_open(&path),
        "FILE can't be used: File exists (os error 17); state_folder must be a folder that the server can write to"
    );
}

#[test]
fn after_a_failure_the_file_is_opened_anew_and_what_was_not_written_is() {
    let (_folder, path) = place();
    let names = names(&["a", "b"]);
    let policies = policies(&[("p", CALLER)]);
    let journal = Journal::open(&path).expect("a new file");
    let keep = |caller_number, units, second| {
        let saved = [missing("p", caller(caller_number), units)];
        store(&journal, &saved, &names, &policies, at(second))
    };
    keep(0, 5, 0).expect("stored");

    let fail = |_: &Database| Err::<(), _>(redb::Error::PreviousIo);
    with_database(&journal, fail).expect_err("it fails");
    let away = path.with_added_extension("away");
    fs::rename(&path, &away).expect("renamed");
    for second in [1, 2] {
        let error = keep(0, 5 + second, 0).expect_err("no file");
        assert_eq!(
            sentence(&error, &path),
            "FILE can't be used: No such file or directory (os error 2); state_folder must be a folder that the server can \
             write to"
        );
    }
    keep(1, 1, 3).expect_err("no file");
    fs::rename(&away, &path).expect("renamed");
    keep(1, 2, 4).expect("stored");

    let loaded = journal.load(&names, &policies, at(0)).expect("loaded");
    let expected = [
        (missing("p", caller(0), 7), at(0)),
        (missing("p", caller(1), 2), at(4)),
    ];
    assert_eq!(loaded, expected);
}
