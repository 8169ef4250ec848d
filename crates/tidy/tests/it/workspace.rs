//! The repository as the rules see it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cargo_metadata::{Metadata, MetadataCommand};

/// Folders that hold no source of ours.
const SKIPPED: &[&str] = &["target", "node_modules", "__pycache__"];

pub(crate) fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// All packages with every feature on, but only for this machine: those are downloaded already.
pub(crate) fn metadata() -> Metadata {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("-vV").output().expect("rustc starts");
    let version = String::from_utf8(version.stdout).expect("rustc prints text");
    let host = version
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .expect("rustc names its host");
    MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .features(cargo_metadata::CargoOpt::AllFeatures)
        .other_options(["--locked".to_owned(), format!("--filter-platform={host}")])
        .exec()
        .expect("cargo metadata succeeds")
}

/// Our own files with one of these extensions, as paths from the root, sorted.
pub(crate) fn sources(extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    collect(root(), extensions, &mut found);
    found.sort();
    assert!(
        !found.is_empty(),
        "no {extensions:?} files under {}",
        root().display()
    );
    found
}

fn collect(folder: &Path, extensions: &[&str], found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("lists a folder") {
        let path = entry.expect("reads an entry").path();
        let name = path
            .file_name()
            .expect("has a name")
            .to_string_lossy()
            .into_owned();
        if name.starts_with('.') || SKIPPED.contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() {
            collect(&path, extensions, found);
        } else if path
            .extension()
            .is_some_and(|extension| extensions.iter().any(|&each| extension == each))
        {
            found.push(path.strip_prefix(root()).expect("is under the root").to_owned());
        }
    }
}

/// The text of a file given from the root.
pub(crate) fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Fails with all problems, one a line.
#[track_caller]
pub(crate) fn none(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}
