//! The style and layering rules that no compiler checks: who imports whom, sizes, what may not be used where, that every row
//! of the catalogue of bad inputs has its test, and that the documents say what is so.
//!
//! Lists of exceptions may only shrink: an entry that is not needed any more is a failure too.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The layer of each crate; a crate imports lower layers only, and in its own layer what [`SIDEWAYS`] says.
const LAYERS: &[(&str, u32)] = &[
    ("core_types", 0),
    ("state", 1),
    ("mime", 1),
    ("transport", 1),
    ("imap_proto", 1),
    ("smtp_proto", 1),
    ("platform", 1),
    ("wire", 1),
    ("raft", 2),
    ("blobstore", 2),
    ("mailstore", 3),
    ("directory", 3),
    ("queue", 4),
    ("imap", 5),
    ("pop3", 5),
    ("smtp", 5),
    ("admin", 5),
    ("ctl", 5),
    ("node", 6),
    ("bench", 7),
];

/// Imports inside one layer.
const SIDEWAYS: &[(&str, &str)] = &[("mailstore", "directory"), ("ctl", "admin")];

/// Crates that do no IO, read no clock and spawn nothing.
const PURE: &[&str] = &["core_types", "state", "mime", "imap_proto", "smtp_proto"];

/// What only some crates may import, and why: an alpha behind one face, an engine behind a trait.
const BEHIND_A_FACE: &[(&str, &[&str])] = &[
    ("openraft", &["raft"]),
    ("sled", &["raft"]),
    ("quinn", &["transport", "node"]),
];

const FILE_LINES_MAX: usize = 800;
const FUNCTION_LINES_MAX: usize = 100;

/// Files with more than [`FILE_LINES_MAX`] lines.
const LONG_FILES: &[&str] = &[];

/// Functions with more than [`FUNCTION_LINES_MAX`] lines.
const LONG_FUNCTIONS: &[&str] = &[
    "node/tests/support/site.rs boot",
    "raft/state/src/apply/tests/model.rs try_apply",
];

/// Public limits that stand outside of `core_types::limits`, since they follow from a format or another limit.
const LIMITS_ELSEWHERE: &[&str] = &[
    "blobstore/src/format.rs FRAME_ENCODED_BYTES_MAX",
    "blobstore/src/format.rs TABLE_BYTES_MAX",
];

/// Rows of `docs/bad-inputs.tsv` whose part is there, and that have no test of their name.
const MISSING_TESTS: &[&str] = &[];

/// Where the operating system may be used directly: what stands behind the interfaces, programs, sled's own files, and what
/// simulates all of it.
const SYSTEM_ALLOWED: &[&str] = &[
    "node/platform/",
    "node/src/",
    "admin/ctl/",
    "bench/",
    "raft/src/index/sled_engine.rs",
    "raft/src/index/sled_pages.rs",
    // A run has a thread of its own, and a seed a process.
    "simtests/src/",
];

#[test]
fn crates_import_lower_layers_only() {
    let layers: BTreeMap<&str, u32> = LAYERS.iter().copied().collect();
    let mut problems = Vec::new();
    for (name, dependencies) in packages() {
        let Some(layer) = layers.get(name.as_str()) else {
            problems.push(format!("{name}: no layer is given for this crate"));
            continue;
        };
        for dependency in dependencies.iter().filter(|dependency| !dependency.dev) {
            if let Some(below) = layers.get(dependency.name.as_str())
                && below >= layer
                && !SIDEWAYS.contains(&(name.as_str(), dependency.name.as_str()))
            {
                problems.push(format!(
                    "{name} (layer {layer}) imports {} (layer {below})",
                    dependency.name
                ));
            }
            if PURE.contains(&name.as_str())
                && matches!(dependency.name.as_str(), "tokio" | "quinn" | "rustix" | "futures-util")
            {
                problems.push(format!("{name} is pure and imports {}", dependency.name));
            }
            for (face, users) in BEHIND_A_FACE {
                if dependency.name == *face && !users.contains(&name.as_str()) {
                    problems.push(format!("{name} imports {face}, which only {users:?} may"));
                }
            }
        }
    }
    none(&problems);
}

#[test]
fn protocol_crates_never_import_each_other() {
    let front = ["imap", "pop3", "smtp", "imap_proto", "smtp_proto"];
    let allowed = [("imap", "imap_proto"), ("smtp", "smtp_proto")];
    let mut problems = Vec::new();
    for (name, dependencies) in packages() {
        for dependency in &dependencies {
            let pair = (name.as_str(), dependency.name.as_str());
            if front.contains(&pair.0) && front.contains(&pair.1) && !allowed.contains(&pair) {
                problems.push(format!("{name} imports {}", dependency.name));
            }
        }
    }
    none(&problems);
}

#[test]
fn files_are_short() {
    let long: BTreeSet<String> = sources()
        .into_iter()
        .filter(|source| source.text.lines().count() > FILE_LINES_MAX)
        .map(|source| source.path)
        .collect();
    same("files over 800 lines", &long, LONG_FILES);
}

#[test]
fn functions_are_short() {
    let mut long = BTreeSet::new();
    for source in sources() {
        for (name, lines) in functions(&source.text) {
            if lines > FUNCTION_LINES_MAX {
                long.insert(format!("{} {name}", source.path));
            }
        }
    }
    same("functions over 100 lines", &long, LONG_FUNCTIONS);
}

#[test]
fn files_open_with_their_job() {
    let problems: Vec<String> = sources()
        .into_iter()
        .filter(|source| !source.text.trim_start().starts_with("//!") && !source.path.ends_with("build.rs"))
        .filter(|source| !source.path.contains("/fuzz/"))
        .map(|source| format!("{} does not open with //!", source.path))
        .collect();
    none(&problems);
}

#[test]
fn module_files_are_not_named_mod() {
    let problems: Vec<String> = sources()
        .into_iter()
        .map(|source| source.path)
        .filter(|path| path.ends_with("/mod.rs"))
        .collect();
    none(&problems);
}

#[test]
fn state_iterates_over_nothing_unordered() {
    let mut problems = Vec::new();
    for source in sources()
        .iter()
        .filter(|source| source.path.starts_with("raft/state/src/"))
    {
        find(source, &["HashMap", "HashSet", "f32", "f64"], &mut problems);
    }
    none(&problems);
}

#[test]
fn time_disk_and_threads_come_through_the_interfaces() {
    let forbidden = [
        "std::time::Instant",
        "SystemTime",
        "std::fs",
        "std::thread",
        "spawn_blocking",
        "tokio::fs",
        "rand::",
        "thread_rng",
        "futures::select!",
    ];
    let mut problems = Vec::new();
    for source in sources() {
        let allowed = SYSTEM_ALLOWED.iter().any(|prefix| source.path.starts_with(prefix));
        if !allowed && !source.is_test() && !source.path.contains("/fuzz/") {
            find(&source.product_part(), &forbidden, &mut problems);
        }
    }
    none(&problems);
}

#[test]
fn select_is_biased() {
    let mut problems = Vec::new();
    for source in sources() {
        let part = source.product_part();
        let lines: Vec<&str> = part.text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let next = lines.get(number + 1).map_or("", |line| line.trim());
            if line.trim_end().ends_with("select! {") && !line.trim_start().starts_with("//") && next != "biased;" {
                problems.push(format!("{}:{}: select! without biased;", part.path, number + 1));
            }
        }
    }
    none(&problems);
}

#[test]
fn public_limits_stand_in_one_place() {
    let mut elsewhere = BTreeSet::new();
    for source in sources() {
        if source.path == "node/core/src/limits.rs" || source.is_test() {
            continue;
        }
        for line in source.text.lines() {
            if let Some(rest) = line.trim_start().strip_prefix("pub const ")
                && let Some((name, _)) = rest.split_once(':')
                && name.ends_with("_MAX")
            {
                elsewhere.insert(format!("{} {name}", source.path));
            }
        }
    }
    same(
        "public limits outside of core_types::limits",
        &elsewhere,
        LIMITS_ELSEWHERE,
    );
}

#[test]
fn every_limit_is_in_the_table_of_limits() {
    let limits = read("node/core/src/limits.rs");
    let table = read("docs/limits.md");
    let mut problems = Vec::new();
    let mut names = BTreeSet::new();
    let mut described = false;
    for line in limits.lines() {
        if let Some(rest) = line.strip_prefix("pub const ") {
            let name = rest.split(':').next().unwrap();
            names.insert(name.to_owned());
            if !described {
                problems.push(format!("{name} has no reason"));
            }
            if !table.contains(&format!("| `{name}` |")) {
                problems.push(format!("{name} is not in docs/limits.md"));
            }
        }
        described = line.starts_with("///");
    }
    for line in table.lines() {
        if let Some(name) = line.strip_prefix("| `").and_then(|rest| rest.split('`').next())
            && !names.contains(name)
        {
            problems.push(format!("docs/limits.md names {name}, which is not there"));
        }
    }
    none(&problems);
}

#[test]
fn every_bad_input_has_its_test() {
    let names: BTreeSet<String> = sources()
        .iter()
        .flat_map(|source| {
            functions(&source.text)
                .into_iter()
                .map(|(name, _)| name)
                .collect::<Vec<_>>()
        })
        .collect();
    let table = read("docs/bad-inputs.tsv");
    let mut lines = table.lines();
    assert_eq!(lines.next(), Some("id\tprotocol\tinput\texpected\twaits_for"));
    let (mut missing, mut seen, mut problems) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    for line in lines {
        let fields: Vec<&str> = line.split('\t').collect();
        if fields.len() != 5 {
            problems.push(format!("not five fields: {line}"));
            continue;
        }
        if !seen.insert(fields[0]) {
            problems.push(format!("{} stands twice", fields[0]));
        }
        if fields[4].is_empty() && !names.contains(&fields[0].replace('-', "_")) {
            missing.insert(fields[0].to_owned());
        }
    }
    none(&problems);
    same("rows of docs/bad-inputs.tsv without a test", &missing, MISSING_TESTS);
}

#[test]
fn links_of_the_documents_lead_somewhere() {
    let mut problems = Vec::new();
    for path in files().into_iter().filter(|path| path.ends_with(".md")) {
        let text = read(&path);
        let here = Path::new(&path).parent().unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap();
            if file.is_empty() || target.starts_with("http") || target.starts_with("mailto:") {
                continue;
            }
            if !root().join(here).join(file).exists() {
                problems.push(format!("{path}: {target}"));
            }
        }
        // Paths of the tree that a text names in backquotes.
        for name in text.split('`').skip(1).step_by(2) {
            let looks_like_a_path = name.contains('/')
                && [".rs", ".md", ".py", ".tsv", ".toml"]
                    .iter()
                    .any(|end| name.ends_with(end))
                && name
                    .chars()
                    .all(|letter| letter.is_ascii_alphanumeric() || "/._-".contains(letter));
            let known_top = name.split('/').next().is_some_and(|top| {
                ["node", "raft", "blobstore", "imap", "smtp", "admin", "bench", "docs"].contains(&top)
            });
            if looks_like_a_path && known_top && !root().join(name).exists() {
                problems.push(format!("{path}: names {name}, which is not there"));
            }
        }
    }
    none(&problems);
}

#[test]
fn nothing_is_left_for_later_without_saying_so() {
    // Put together here, so that this file does not hold them.
    let words = [
        ["TO", "DO"].concat(),
        ["FIX", "ME"].concat(),
        ["X", "XX:"].concat(),
        ["todo", "!("].concat(),
        ["unimplemented", "!("].concat(),
        ["shared/", "DESIGN"].concat(),
        ["/work", "/"].concat(),
    ];
    let mut problems = Vec::new();
    for path in files() {
        let Ok(text) = std::fs::read_to_string(root().join(&path)) else {
            continue;
        };
        for (number, line) in text.lines().enumerate() {
            for word in words.iter().filter(|word| line.contains(word.as_str())) {
                problems.push(format!("{path}:{}: {word}", number + 1));
            }
        }
    }
    none(&problems);
}

#[test]
fn the_lock_file_is_part_of_the_tree() {
    assert!(
        files().iter().any(|path| path == "Cargo.lock"),
        "Cargo.lock is not committed"
    );
    assert!(
        !read("rust-toolchain.toml").contains("channel ="),
        "a channel would have to be downloaded"
    );
}

#[test]
fn every_dependency_has_its_line() {
    let index = read("docs/adr/dependencies.md");
    let manifest: String = read("Cargo.toml");
    let section = manifest
        .split("[workspace.dependencies]")
        .nth(1)
        .unwrap()
        .split("\n[")
        .next()
        .unwrap();
    let mut problems = Vec::new();
    for line in section.lines().filter(|line| !line.contains("path = ")) {
        if let Some((name, _)) = line.split_once(" = ")
            && !name.starts_with('#')
            && !index.contains(&format!("| `{name}` |"))
        {
            problems.push(format!("{name} has no line in docs/adr/dependencies.md"));
        }
    }
    none(&problems);
}

#[test]
fn functions_are_measured() {
    let text = "fn a() {\n    b();\n}\n\npub trait T {\n    fn c(&self);\n    fn d(\n        x: u8,\n    ) -> u8 {\n        x\n    }\n}\n";
    assert_eq!(
        functions(text),
        [("a".to_owned(), 3), ("c".to_owned(), 1), ("d".to_owned(), 5)]
    );
}

struct Source {
    path: String,
    text: String,
}

impl Source {
    /// Whether the whole file is for tests.
    fn is_test(&self) -> bool {
        self.path.contains("/tests/") || self.path.ends_with("/tests.rs") || self.path.contains("testing")
    }

    /// The file without the tests at its bottom.
    fn product_part(&self) -> Self {
        let text = self.text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        Self {
            path: self.path.clone(),
            text: text.to_owned(),
        }
    }
}

fn find(source: &Source, words: &[&str], problems: &mut Vec<String>) {
    for (number, line) in source.text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        for word in words.iter().filter(|word| code.contains(**word)) {
            problems.push(format!("{}:{}: {word}", source.path, number + 1));
        }
    }
}

/// Names and lengths of the functions of a file, as rustfmt writes it: the end of a function is the first closing brace as
/// far in as its beginning.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let trimmed = line.trim_start();
        let indent = line.len() - trimmed.len();
        let words = [
            "pub(crate) ",
            "pub(super) ",
            "pub ",
            "const ",
            "async ",
            "unsafe ",
            "extern \"C\" ",
        ];
        let mut rest = trimmed;
        while let Some(shorter) = words.iter().find_map(|word| rest.strip_prefix(word)) {
            rest = shorter;
        }
        let Some(rest) = rest.strip_prefix("fn ") else { continue };
        let name: String = rest
            .chars()
            .take_while(|letter| letter.is_alphanumeric() || *letter == '_')
            .collect();
        let end = format!("{}}}", " ".repeat(indent));
        let body = lines[number..]
            .iter()
            .position(|line| line.ends_with('{') || line.ends_with(';') || line.ends_with('}'));
        let has_body = body.is_some_and(|at| lines[number + at].ends_with('{'));
        let length = if has_body {
            lines[number..]
                .iter()
                .position(|line| *line == end)
                .map_or(1, |last| last + 1)
        } else {
            body.map_or(1, |last| last + 1)
        };
        found.push((name, length));
    }
    found
}

struct Dependency {
    name: String,
    dev: bool,
}

/// Every crate of the workspace with what it imports.
fn packages() -> Vec<(String, Vec<Dependency>)> {
    let output = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let of = |package: &serde_json::Value| {
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        let dependencies = dependencies
            .map(|dependency| Dependency {
                name: text(&dependency["name"]),
                dev: dependency["kind"] == "dev",
            })
            .collect();
        (text(&package["name"]), dependencies)
    };
    metadata["packages"].as_array().unwrap().iter().map(of).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The files of the tree, below the folders that are built or that Git keeps; paths from the root.
fn files() -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap_or_default();
            if matches!(
                name.as_str(),
                "target" | ".git" | "corpus" | "artifacts" | "__pycache__"
            ) || name.starts_with("everpost-data")
            {
                continue;
            }
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                found.push(entry.path().strip_prefix(root()).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

fn sources() -> Vec<Source> {
    let paths = files().into_iter().filter(|path| path.ends_with(".rs"));
    paths
        .map(|path| Source {
            text: read(&path),
            path,
        })
        .collect()
}

fn none(problems: &[String]) {
    assert!(
        problems.is_empty(),
        "{} problems:\n  {}",
        problems.len(),
        problems.join("\n  ")
    );
}

/// What was found has to be what the list says, which may only shrink.
fn same(what: &str, found: &BTreeSet<String>, list: &[&str]) {
    let listed: BTreeSet<String> = list.iter().map(|entry| (*entry).to_owned()).collect();
    let mut text = String::new();
    for new in found.difference(&listed) {
        let _ = writeln!(text, "  new: {new}");
    }
    for gone in listed.difference(found) {
        let _ = writeln!(text, "  not needed any more, take it out of the list: {gone}");
    }
    assert!(text.is_empty(), "{what}:\n{text}");
}
