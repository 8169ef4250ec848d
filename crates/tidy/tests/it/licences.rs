//! Everything that is linked in, or tested with, may be used under a licence that goes with Apache-2.0.

use spdx::{Expression, LicenseReq, ParseMode};

use crate::workspace;

/// Permissive licences: they ask for a notice at most. CDLA-Permissive is for data (root certificates).
const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Packages without a licence in their manifest that are used all the same, each with the reason.
const WITHOUT_A_FIELD: &[(&str, &str)] = &[];

#[test]
fn every_dependency_may_be_used() {
    let mut problems = Vec::new();
    for package in workspace::metadata().packages {
        if package.source.is_none() {
            continue;
        }
        let (name, version) = (package.name.as_str(), &package.version);
        let Some(licence) = &package.license else {
            if !WITHOUT_A_FIELD.iter().any(|(listed, _)| *listed == name) {
                problems.push(format!(
                    "{name} {version} names no licence; read its licence file, then list it in WITHOUT_A_FIELD with the reason"
                ));
            }
            continue;
        };
        match is_allowed(licence) {
            Ok(true) => {}
            Ok(false) => problems.push(format!(
                "{name} {version} is under {licence}; use another crate, or allow the licence if it goes with Apache-2.0"
            )),
            Err(error) => problems.push(format!("{name} {version}: {licence:?} is no licence expression: {error}")),
        }
    }
    workspace::none(&problems);
}

#[test]
fn our_own_licence_is_stated_and_there() {
    let mut problems = Vec::new();
    for package in workspace::metadata().workspace_packages() {
        if package.license.as_deref() != Some("Apache-2.0") {
            problems.push(format!(
                "crates/{}/Cargo.toml: write license.workspace = true",
                package.name
            ));
        }
    }
    workspace::none(&problems);
    let text = workspace::read("LICENSE");
    assert!(
        text.contains("Apache License") && text.contains("APPENDIX"),
        "LICENSE: the whole Apache-2.0 text"
    );
}

#[test]
fn expressions_are_read_as_they_are_written() {
    for licence in [
        "MIT",
        "MIT/Apache-2.0",
        "GPL-3.0 OR MIT",
        "(MIT OR GPL-2.0) AND ISC",
        "Apache-2.0 WITH LLVM-exception",
    ] {
        assert!(is_allowed(licence).expect("parses"), "{licence}");
    }
    for licence in ["GPL-3.0-only", "MIT AND AGPL-3.0-only", "LGPL-2.1/GPL-2.0"] {
        assert!(!is_allowed(licence).expect("parses"), "{licence}");
    }
    assert!(is_allowed("ask me").is_err());
}

/// Whether there is a way to satisfy the expression. Lax, for the old form with a slash.
fn is_allowed(licence: &str) -> Result<bool, spdx::ParseError> {
    let expression = Expression::parse_mode(licence, ParseMode::LAX)?;
    Ok(expression.evaluate(is_listed))
}

/// An exception (`WITH`) only permits more.
fn is_listed(requirement: &LicenseReq) -> bool {
    requirement
        .license
        .id()
        .is_some_and(|id| ALLOWED.contains(&id.name))
}
