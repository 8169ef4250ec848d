//! Which crate may use which. The table is the one of ARCHITECTURE.md; a new edge is a decision, made there first.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use cargo_metadata::{DependencyKind, Metadata, Package, PackageId};

use crate::workspace;

/// Our crates, and those of ours that each may use outside of its tests.
const MAY_USE: &[(&str, &[&str])] = &[
    ("llm-engine-admission", &["llm-engine-limit"]),
    ("llm-engine-limit", &[]),
    (
        "llm-engine-overload",
        &["llm-engine-admission", "llm-engine-limit"],
    ),
    ("llm-engine-retry", &[]),
    ("llm-engine-wire", &[]),
    ("llm-engine-worker", &["llm-engine-wire"]),
    ("llm-engine-batch", &["llm-engine-retry"]),
    (
        "llm-engine-client",
        &["llm-engine-batch", "llm-engine-retry", "llm-engine-wire"],
    ),
    (
        "llm-engine-gateway",
        &[
            "llm-engine-admission",
            "llm-engine-limit",
            "llm-engine-retry",
            "llm-engine-wire",
        ],
    ),
    (
        "llm-engine-server",
        &["llm-engine-batch", "llm-engine-gateway", "llm-engine-wire"],
    ),
    (
        "llm-engine",
        &[
            "llm-engine-batch",
            "llm-engine-client",
            "llm-engine-gateway",
            "llm-engine-overload",
            "llm-engine-server",
            "llm-engine-wire",
            "llm-engine-worker",
        ],
    ),
    ("fuzz-input", &[]),
    ("gateway-bench", &[]),
    ("llmengine-python", &["llm-engine-client", "llm-engine-retry"]),
    ("mock-engine", &["llm-engine-overload"]),
    ("scripted-upstream", &[]),
    ("tidy", &[]),
];

/// Crates whose decisions depend on nothing but their arguments: no I/O, no async, no clock, no randomness.
const PURE: &[&str] = &[
    "llm-engine-admission",
    "llm-engine-limit",
    "llm-engine-retry",
    "llm-engine-wire",
];

/// What brings those things along.
const IMPURE: &[&str] = &[
    "async-std",
    "axum",
    "chrono",
    "clap",
    "fastrand",
    "futures-core",
    "futures-util",
    "getrandom",
    "hyper",
    "jiff",
    "mio",
    "quanta",
    "rand",
    "rand_core",
    "reqwest",
    "rustix",
    "smol",
    "socket2",
    "time",
    "tokio",
    "uuid",
];

/// The same things from the standard library.
const IMPURE_STD: &[&str] = &[
    "std::env",
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "Instant::now",
    "SystemTime",
    "RandomState",
    "async fn",
    "async move",
];

/// What a crate must not use, directly or through others.
const MUST_NOT_USE: &[(&str, &[&str])] = &[
    ("llm-engine-batch", &["axum", "clap", "http", "hyper", "reqwest"]),
    ("llm-engine-client", &["axum", "clap", "aws-lc-rs", "openssl"]),
    ("llm-engine-gateway", &["axum", "clap"]),
    ("llm-engine-server", &["clap"]),
];

#[test]
fn crates_use_each_other_only_as_allowed() {
    let metadata = workspace::metadata();
    let allowed: BTreeMap<_, _> = MAY_USE.iter().copied().collect();
    let ours: BTreeSet<&str> = metadata
        .workspace_packages()
        .iter()
        .map(|package| package.name.as_str())
        .collect();
    let mut problems = Vec::new();
    for package in metadata.workspace_packages() {
        let (name, manifest) = (package.name.as_str(), manifest(package));
        let Some(allowed) = allowed.get(name) else {
            problems.push(format!(
                "{manifest}: the crate has no line in MAY_USE; decide what it may use and add one"
            ));
            continue;
        };
        for dependency in &package.dependencies {
            let used = dependency.name.as_str();
            if outside_tests(dependency.kind) && ours.contains(used) && !allowed.contains(&used) {
                problems.push(format!(
                    "{manifest}: {name} must not use {used}; move the code, or let ARCHITECTURE.md and MAY_USE allow it"
                ));
            }
        }
    }
    workspace::none(&problems);
}

#[test]
fn a_crate_s_folder_has_its_name() {
    let metadata = workspace::metadata();
    let mut problems = Vec::new();
    for package in metadata.workspace_packages() {
        let expected = format!("crates/{}/Cargo.toml", package.name);
        if !package.manifest_path.ends_with(&expected) {
            problems.push(format!(
                "{}: a crate's folder is called as the crate: {expected}",
                package.manifest_path
            ));
        }
    }
    workspace::none(&problems);
}

#[test]
fn pure_crates_stay_pure() {
    let metadata = workspace::metadata();
    let mut problems = Vec::new();
    for package in metadata.workspace_packages() {
        if PURE.contains(&package.name.as_str()) {
            problems.extend(forbidden_uses(&metadata, package, IMPURE));
        }
    }
    for path in workspace::sources(&["rs"]) {
        let shown = path.to_string_lossy();
        if !PURE
            .iter()
            .any(|name| shown.starts_with(&format!("crates/{name}/src/")))
            || shown.ends_with("tests.rs")
        {
            continue;
        }
        for (number, line) in workspace::read(&path).lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for word in IMPURE_STD.iter().filter(|&&word| code.contains(word)) {
                problems.push(format!(
                    "{shown}:{}: no {word} in a pure crate; take it as an argument",
                    number + 1
                ));
            }
        }
    }
    workspace::none(&problems);
}

#[test]
fn what_must_not_be_known_is_not_reachable() {
    let metadata = workspace::metadata();
    let mut problems = Vec::new();
    for (name, forbidden) in MUST_NOT_USE {
        if let Some(package) = metadata
            .workspace_packages()
            .into_iter()
            .find(|package| package.name.as_str() == *name)
        {
            problems.extend(forbidden_uses(&metadata, package, forbidden));
        }
    }
    workspace::none(&problems);
}

#[test]
fn only_the_worker_holds_the_model_runner() {
    let metadata = workspace::metadata();
    let mut problems = Vec::new();
    for package in metadata.workspace_packages() {
        for dependency in &package.dependencies {
            if dependency.name.starts_with("llama-cpp") && package.name.as_str() != "llm-engine-worker" {
                problems.push(format!(
                    "{}: only llm-engine-worker may use {}; ask the worker for it",
                    manifest(package),
                    dependency.name
                ));
            }
        }
    }
    workspace::none(&problems);
}

#[test]
fn a_plain_build_needs_no_model_runner() {
    let metadata = workspace::metadata();
    let executable = member(&metadata, "llm-engine");
    let manifest = manifest(executable);
    let mut problems = Vec::new();
    for dependency in &executable.dependencies {
        if dependency.name == "llm-engine-worker" && !dependency.optional {
            problems.push(format!(
                "{manifest}: llm-engine-worker must stay optional, behind the feature `worker`"
            ));
        }
    }
    if !executable.features.contains_key("worker") {
        problems.push(format!(
            "{manifest}: the feature `worker` is gone; the Makefile builds with it"
        ));
    }
    if enabled_by(executable, "default").contains("worker") {
        problems.push(format!(
            "{manifest}: take `worker` out of the default features: it needs cmake and libclang"
        ));
    }
    workspace::none(&problems);
}

/// The features that one turns on, itself included.
fn enabled_by<'a>(package: &'a Package, feature: &'a str) -> BTreeSet<&'a str> {
    let mut enabled = BTreeSet::new();
    let mut waiting = vec![feature];
    while let Some(feature) = waiting.pop() {
        if enabled.insert(feature) {
            waiting.extend(
                package
                    .features
                    .get(feature)
                    .into_iter()
                    .flatten()
                    .map(String::as_str),
            );
        }
    }
    enabled
}

fn outside_tests(kind: DependencyKind) -> bool {
    matches!(kind, DependencyKind::Normal | DependencyKind::Build)
}

fn member<'a>(metadata: &'a Metadata, name: &str) -> &'a Package {
    let members = metadata.workspace_packages();
    members
        .into_iter()
        .find(|package| package.name.as_str() == name)
        .expect("is a crate of ours")
}

fn manifest(package: &Package) -> String {
    format!("crates/{}/Cargo.toml", package.name)
}

/// One line for each of `forbidden` that the package reaches outside its tests, with the way there.
fn forbidden_uses(metadata: &Metadata, package: &Package, forbidden: &[&str]) -> Vec<String> {
    let resolve = metadata.resolve.as_ref().expect("cargo metadata resolves");
    let nodes: BTreeMap<_, _> = resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let names: BTreeMap<_, _> = metadata
        .packages
        .iter()
        .map(|each| (&each.id, each.name.as_str()))
        .collect();

    // Breadth first, so that the way is a shortest one.
    let mut reached_from: BTreeMap<&PackageId, &PackageId> = BTreeMap::new();
    let mut waiting = VecDeque::from([&package.id]);
    let mut problems = Vec::new();
    while let Some(id) = waiting.pop_front() {
        for edge in &nodes[id].deps {
            let counts = edge
                .dep_kinds
                .iter()
                .any(|kind| kind.kind == DependencyKind::Normal);
            if !counts || edge.pkg == package.id || reached_from.contains_key(&edge.pkg) {
                continue;
            }
            reached_from.insert(&edge.pkg, id);
            waiting.push_back(&edge.pkg);
            if forbidden.contains(&names[&edge.pkg]) {
                let mut way = vec![names[&edge.pkg]];
                let mut step = id;
                while let Some(&before) = reached_from.get(step) {
                    way.push(names[step]);
                    step = before;
                }
                way.push(package.name.as_str());
                way.reverse();
                problems.push(format!(
                    "{}: {} must not reach {}; it does by {}",
                    manifest(package),
                    package.name,
                    names[&edge.pkg],
                    way.join(" → ")
                ));
            }
        }
    }
    problems
}
