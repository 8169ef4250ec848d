//! How files are laid out, so that a reader finds what is where.

use crate::workspace;

const MAX_LINES: usize = 1_000;
const MAX_MAIN_LINES: usize = 150;

/// Longer files, each with the reason.
const LONGER: &[(&str, &str)] = &[];

#[test]
fn files_stay_short() {
    let mut problems = Vec::new();
    for path in workspace::sources(&["rs", "py", "sh"]) {
        let (shown, lines) = (path.to_string_lossy(), workspace::read(&path).lines().count());
        if lines > MAX_LINES && !LONGER.iter().any(|(listed, _)| *listed == shown) {
            problems.push(format!(
                "{shown} has {lines} lines; at most {MAX_LINES}: find the second idea in it and move it"
            ));
        }
        if shown.ends_with("/src/main.rs") && lines >= MAX_MAIN_LINES {
            problems.push(format!(
                "{shown} has {lines} lines; below {MAX_MAIN_LINES}: move the work to modules"
            ));
        }
    }
    workspace::none(&problems);
}

#[test]
fn modules_are_files_with_their_name() {
    let mut problems = Vec::new();
    for path in workspace::sources(&["rs"]) {
        if path.ends_with("mod.rs") {
            problems.push(format!(
                "{}: call it as its folder, beside the folder: foo.rs and foo/",
                path.display()
            ));
        }
    }
    workspace::none(&problems);
}

#[test]
fn a_crate_s_root_is_its_table_of_contents() {
    let mut problems = Vec::new();
    for path in workspace::sources(&["rs"]) {
        if path.ends_with("src/lib.rs") {
            for (number, line) in other_items(&workspace::read(&path)) {
                problems.push(format!(
                    "{}:{number}: `{line}`: only docs, attributes, mod, pub use and constants here; move it to a module",
                    path.display()
                ));
            }
        }
    }
    workspace::none(&problems);
}

#[test]
fn nothing_is_left_undone() {
    // In two parts, so that this file has none of them.
    let words = [
        ["to", "do!("].concat(),
        ["unimple", "mented!("].concat(),
        ["FIX", "ME"].concat(),
    ];
    let mut problems = Vec::new();
    for path in workspace::sources(&["rs", "py", "sh", "toml"]) {
        for (number, line) in workspace::read(&path).lines().enumerate() {
            for word in words.iter().filter(|&word| line.contains(word)) {
                problems.push(format!(
                    "{}:{}: {word}: do it, or open an issue",
                    path.display(),
                    number + 1
                ));
            }
        }
    }
    workspace::none(&problems);
}

#[test]
fn shared_dependencies_are_in_order() {
    let manifest = workspace::read("Cargo.toml");
    let lines = manifest
        .lines()
        .skip_while(|line| line.trim() != "[workspace.dependencies]")
        .skip(1)
        .take_while(|line| !line.starts_with('['));
    let (ours, others): (Vec<&str>, Vec<&str>) = lines
        .filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
        .partition(|line| line.contains("path ="));
    assert!(!others.is_empty(), "Cargo.toml: no [workspace.dependencies]");
    let mut problems = Vec::new();
    for group in [ours, others] {
        let names: Vec<&str> = group
            .iter()
            .filter_map(|line| line.split_once('='))
            .map(|(name, _)| name.trim())
            .collect();
        for pair in names.windows(2).filter(|pair| pair[0] > pair[1]) {
            problems.push(format!(
                "Cargo.toml: {} comes after {}; keep the alphabet: ours first, then the others",
                pair[1], pair[0]
            ));
        }
    }
    workspace::none(&problems);
}

#[test]
fn an_item_in_a_crate_s_root_is_found() {
    let fine = "//! Docs\n#![expect(\n    missing_docs,\n    reason = \"x\"\n)]\n\n// why\n#[cfg(test)]\nmod tests;\nmod a;\npub mod b;\n\npub use a::{\n    One, Two,\n};\npub const LIMIT: usize =\n    3;\n";
    assert_eq!(other_items(fine), []);
    assert_eq!(other_items("mod a;\nfn f() {}\n"), [(2, "fn f() {}")]);
    assert_eq!(other_items("mod a {\n"), [(1, "mod a {")]);
    assert_eq!(other_items("use a::B;\n"), [(1, "use a::B;")]);
}

/// The lines, with their numbers, that begin anything but what a crate's root may hold.
fn other_items(text: &str) -> Vec<(usize, &str)> {
    const ITEMS: &[&str] = &[
        "mod ",
        "pub mod ",
        "pub(crate) mod ",
        "pub use ",
        "const ",
        "pub const ",
    ];
    let mut found = Vec::new();
    let mut open_brackets = 0_i32;
    let mut in_item = false;
    for (index, line) in text.lines().enumerate() {
        let trimmed = line.trim();
        if in_item {
            in_item = !trimmed.ends_with(';');
        } else if open_brackets > 0 || trimmed.starts_with("#[") || trimmed.starts_with("#![") {
            for character in trimmed.chars() {
                open_brackets += match character {
                    '[' | '(' => 1,
                    ']' | ')' => -1,
                    _ => 0,
                };
            }
        } else if trimmed.is_empty() || trimmed.starts_with("//") {
        } else if ITEMS.iter().any(|item| trimmed.starts_with(item)) && !is_inline_module(trimmed) {
            in_item = !trimmed.ends_with(';');
        } else {
            found.push((index + 1, line));
        }
    }
    found
}

fn is_inline_module(line: &str) -> bool {
    line.contains("mod ") && line.ends_with('{')
}
