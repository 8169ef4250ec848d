use tempfile::TempDir;

use super::*;

fn setup() -> FilesSetup {
    FilesSetup {
        file_bytes: 10,
        bytes_per_caller: 16,
        files_per_caller: 3,
        keep: Duration::from_secs(60),
    }
}

fn open(folder: &TempDir) -> Arc<Files> {
    Arc::new(Files::open(folder.path().to_owned(), setup()).expect("the folder can be used"))
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

/// As an upload does it.
fn put(files: &Arc<Files>, owner: &str, text: &str) -> Result<Arc<StoredFile>, FileError> {
    let mut reservation = files.reserve(owner)?;
    reservation.grow(text.len() as u64)?;
    let mut new = files.create(owner, new_id()).expect("a file");
    new.write_all(text.as_bytes()).expect("it is written");
    let description = Description {
        filename: "f.txt".to_owned(),
        purpose: Purpose::UserData,
        keep: None,
        now: at(0),
    };
    Ok(files.keep(new, description).expect("it is kept"))
}

#[test]
fn a_file_is_its_owner_s_alone_until_its_time_is_over_and_over_a_restart() {
    let folder = TempDir::new().expect("a folder");
    let file = put(&open(&folder), "a", "hello").expect("it is kept");
    let files = open(&folder);
    assert_eq!(files.find("a", &file.id, at(59)), Some(Arc::clone(&file)));
    assert_eq!(files.find("b", &file.id, at(59)), None);
    assert_eq!(files.list("a", at(59)).len(), 1);
    assert_eq!(files.find("a", &file.id, at(60)), None);
    assert!(files.list("a", at(60)).is_empty());
    files.sweep(at(59)).expect("nothing is to be deleted");
    assert_eq!(
        fs::read_to_string(files.path(&file.id)).ok().as_deref(),
        Some("hello")
    );
    files.sweep(at(60)).expect("it is deleted");
    assert_eq!(fs::read_dir(folder.path()).expect("is there").count(), 0);
}

#[test]
fn what_a_caller_has_is_bounded_and_what_is_deleted_makes_room() {
    let folder = TempDir::new().expect("a folder");
    let files = open(&folder);
    assert!(matches!(
        put(&files, "a", "eleven byte"),
        Err(FileError::TooLarge(10))
    ));
    let first = put(&files, "a", "ten bytes!").expect("it is kept");
    assert!(matches!(
        put(&files, "a", "seven b"),
        Err(FileError::CallerFull(16))
    ));
    put(&files, "b", "ten bytes!").expect("another has room of its own");
    put(&files, "a", "six by").expect("it is kept");
    put(&files, "a", "").expect("it is kept");
    // Also one that knows it from the disk.
    let files = open(&folder);
    assert!(matches!(put(&files, "a", ""), Err(FileError::TooMany(3))));
    files.delete(&first).expect("it is deleted");
    put(&files, "a", "ten bytes!").expect("there is room");
    assert_eq!(files.totals(), (4, 26));
}

#[test]
fn what_was_not_whole_at_a_crash_is_gone_at_the_start() {
    let folder = TempDir::new().expect("a folder");
    let whole = put(&open(&folder), "a", "hello").expect("it is kept");
    for leftover in ["file-1.partial", "file-2", "file-3.json.partial"] {
        fs::write(folder.path().join(leftover), "x").expect("it is written");
    }
    let files = open(&folder);
    let mut names: Vec<_> = fs::read_dir(folder.path())
        .expect("is there")
        .map(|entry| {
            entry
                .expect("is there")
                .file_name()
                .into_string()
                .expect("a text")
        })
        .collect();
    names.sort();
    assert_eq!(names, [whole.id.clone(), format!("{}.json", whole.id)]);
    assert_eq!(files.list("a", at(0)), [whole]);
}

#[test]
fn a_file_that_is_given_up_leaves_nothing() {
    let folder = TempDir::new().expect("a folder");
    let files = open(&folder);
    let mut reservation = files.reserve("a").expect("there is room");
    reservation.grow(10).expect("there is room");
    let new = files.create("a", new_id()).expect("it is begun");
    drop((new, reservation));
    assert_eq!(fs::read_dir(folder.path()).expect("is there").count(), 0);
    put(&files, "a", "ten bytes!").expect("there is room again");
}
