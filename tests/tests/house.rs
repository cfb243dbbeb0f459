//! The rules of the house: who may import whom, and what no file may hold. `ARCHITECTURE.md` says why.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

/// Each package and the packages of ours that it may import. Nothing else may, and `perf`, above all, is imported by nobody.
const IMPORTS: &[(&str, &[&str])] = &[
    ("dpdk-sys", &[]),
    ("rcu", &[]),
    ("engine", &["rcu"]),
    ("pmd", &["dpdk-sys", "engine"]),
    ("stats", &[]),
    ("sandbox", &[]),
    ("control", &["engine", "rcu", "stats"]),
    ("portcullis", &["pmd", "control", "engine", "rcu", "sandbox", "stats"]),
    ("testkit", &["engine", "control", "rcu"]),
    ("fuzz", &["engine", "control", "rcu", "testkit"]),
    ("pktgen", &["pmd", "engine"]),
    ("perf", &["control", "engine", "pktgen", "pmd", "rcu", "testkit"]),
];

/// Those that must build, be fuzzed and replay where there is no DPDK, whatever they import indirectly.
const WITHOUT_DPDK: &[&str] = &["rcu", "engine", "stats", "sandbox", "control", "testkit", "fuzz"];

const LONGEST_FILE: usize = 600;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().canonicalize().unwrap()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Files below these directories, but for what is built or hidden.
fn files(below: &[&str]) -> Vec<PathBuf> {
    let mut directories: Vec<PathBuf> = below.iter().map(|directory| root().join(directory)).collect();
    let mut files = Vec::new();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            if name == "target" || name.to_string_lossy().starts_with('.') {
                continue;
            }
            if path.is_dir() { directories.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    files
}

fn with_extension(extension: &str) -> impl Iterator<Item = PathBuf> {
    files(&["."]).into_iter().filter(move |path| path.extension().is_some_and(|its| its == extension))
}

fn manifests() -> Vec<PathBuf> {
    with_extension("toml")
        .filter(|path| path.ends_with("Cargo.toml") && *path != root().join("Cargo.toml"))
        .collect()
}

/// Packages of ours that `package` depends on by these kinds of edges, itself left out. `depth`: 1 for direct ones.
fn imports(package: &str, edges: &str, depth: Option<u8>) -> BTreeSet<String> {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(root()).args([
        "tree",
        "--offline",
        "--locked",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ]);
    command.args(["--package", package, "--edges", edges]);
    if let Some(depth) = depth {
        command.args(["--depth", &depth.to_string()]);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    // "engine v0.1.0 (/path/of/ours)": the registry's have no path.
    let ours = format!("({}", root().display());
    let listed = String::from_utf8(output.stdout).unwrap();
    let names = listed.lines().filter(|line| line.contains(&ours)).filter_map(|line| line.split(' ').next());
    names.filter(|name| *name != package).map(str::to_owned).collect()
}

#[test]
fn imports_run_one_way() {
    for (package, allowed) in IMPORTS {
        let allowed: BTreeSet<String> = allowed.iter().map(|name| name.to_string()).collect();
        let found = imports(package, "normal,build", Some(1));
        let too_many: Vec<_> = found.difference(&allowed).collect();
        assert!(too_many.is_empty(), "{package} imports {too_many:?}; it may import {allowed:?}");
    }
    // The test can fail: what must be there is seen.
    assert!(imports("pmd", "normal,build", None).contains("dpdk-sys"));
    assert!(imports("portcullis", "normal,build", None).contains("dpdk-sys"));
}

#[test]
fn every_package_has_its_place() {
    let known: BTreeSet<&str> = IMPORTS.iter().map(|(package, _)| *package).collect();
    let found: Vec<String> = manifests()
        .iter()
        .filter_map(|path| {
            read(path)
                .lines()
                .find_map(|line| Some(line.strip_prefix("name = \"")?.strip_suffix('"')?.to_owned()))
        })
        .collect();
    assert_eq!(known, found.iter().map(String::as_str).collect());
}

#[test]
fn dpdk_is_reached_by_pmd_and_what_stands_above_it_only() {
    for package in WITHOUT_DPDK {
        // Tests and benches included: they run where there is no DPDK, too.
        let found = imports(package, "normal,build,dev", None);
        for dpdk in ["dpdk-sys", "pmd"] {
            assert!(!found.contains(dpdk), "{package} reaches {dpdk}");
        }
    }
    for (package, allowed) in IMPORTS {
        assert!(*package == "pmd" || !allowed.contains(&"dpdk-sys"));
    }
}

#[test]
fn versions_lints_and_profiles_live_in_the_workspace() {
    for path in manifests() {
        let (text, path) = (read(&path), path.display());
        assert!(text.contains("[lints]\nworkspace = true"), "{path}: the workspace's lints are not taken");
        assert!(text.contains("version.workspace = true"), "{path}: a version of its own");
        assert!(!text.contains("[profile"), "{path}: a profile of its own");
        let mut in_dependencies = false;
        for line in text.lines() {
            if line.starts_with('[') {
                in_dependencies = line.contains("dependencies");
            } else if in_dependencies && !line.trim().is_empty() && !line.starts_with('#') {
                let shared = line.contains(".workspace = true") || line.contains("workspace = true,");
                assert!(shared || line.contains("{ workspace = true }"), "{path}: {line}");
            }
        }
    }
}

#[test]
fn no_source_file_is_long_or_holds_what_is_left_undone() {
    // Put together here, or this file would be the first to be found.
    let undone = ["todo", "unimplemented"].map(|name| format!("{name}!("));
    let marks = ["FIX", "XX", "HA"].into_iter().zip(["ME", "X:", "CK:"]).map(|(a, b)| [a, b].concat());
    let ignored = ["#[ig", "nore"].concat();
    let banned: Vec<String> = undone.into_iter().chain(marks).chain([ignored]).collect();
    let mut seen = 0;
    for path in with_extension("rs") {
        let text = read(&path);
        let lines = text.lines().count();
        assert!(lines <= LONGEST_FILE, "{}: {lines} lines; split it", path.display());
        for (number, line) in text.lines().enumerate() {
            for word in &banned {
                assert!(!line.contains(word), "{}:{}: {word}", path.display(), number + 1);
            }
        }
        seen += 1;
    }
    assert!(seen > 60, "only {seen} files found");
}

/// Where comments are wrapped; elsewhere they are still to be.
const WRAPPED: [&str; 7] =
    ["bindings", "ctrl/stats", "dataplane/engine", "dataplane/rcu", "fuzz", "perf", "tests/src"];

#[test]
fn comments_are_wrapped_at_a_hundred_columns() {
    let mut seen = 0;
    for path in files(&WRAPPED).into_iter().filter(|path| path.extension().is_some_and(|its| its == "rs")) {
        let mut is_code = false;
        for (number, line) in read(&path).lines().enumerate() {
            let Some(comment) = line.trim_start().strip_prefix("//") else { continue };
            let comment = comment.trim_start_matches(['/', '!']);
            is_code ^= comment.trim_start().starts_with("```");
            // Tables and code stay as they are.
            let is_prose =
                !is_code && !comment.trim_start().starts_with('|') && !comment.starts_with("     ");
            let length = line.chars().count();
            assert!(!is_prose || length <= 100, "{}:{}: {length} columns", path.display(), number + 1);
            seen += 1;
        }
    }
    assert!(seen > 3_000, "only {seen} lines of comments found");
}

#[test]
fn scripts_are_executable_and_parse() {
    for path in files(&["scripts", ".ci"]) {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        if path.components().any(|part| part.as_os_str() == "demo-data") {
            continue;
        }
        let name = path.display();
        assert!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o111 == 0o111,
            "{name} is not executable"
        );
        if text.starts_with("#!/usr/bin/env bash") {
            assert!(
                text.contains("\nset -euo pipefail\n") || path.ends_with(".ci/run"),
                "{name} goes on after an error"
            );
            let output = Command::new("bash").arg("-n").arg(&path).output().unwrap();
            assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        } else {
            assert!(text.starts_with("#!/usr/bin/env python3"), "{name}: neither bash nor python3");
        }
    }
}

#[test]
fn documents_link_to_what_is_there() {
    for path in with_extension("md") {
        let text = read(&path);
        let mut fenced = false;
        let prose = text.lines().filter(|line| {
            fenced ^= line.starts_with("```");
            !fenced
        });
        for target in
            prose.flat_map(|line| line.split("](").skip(1)).filter_map(|rest| rest.split(')').next())
        {
            let file = target.split('#').next().unwrap();
            let there = file.is_empty() || file.contains("://") || path.parent().unwrap().join(file).exists();
            assert!(there, "{}: {target} is not there", path.display());
        }
        assert!(!text.contains("../shared"), "{}: a user's clone has no such neighbour", path.display());
    }
}

/// Succeeds silently, or fails with what the script says.
fn succeeds(script: &str, argument: &str) {
    let output = Command::new(root().join(script)).arg(argument).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{script} {argument}:\n{}", String::from_utf8_lossy(&said));
}

#[test]
fn every_numbered_sentence_has_a_test_that_is_there() {
    succeeds("scripts/prove", "--static");
}

#[test]
fn every_fault_to_be_planted_has_its_place() {
    succeeds("scripts/mutants", "--static");
}

#[test]
fn every_reason_is_documented() {
    let page = read(&root().join("docs/interfaces.md"));
    for reason in engine::Reason::ALL {
        let name = format!("`{}`", reason.name());
        assert!(page.contains(&name), "docs/interfaces.md lacks {name}");
    }
}

#[test]
fn every_fault_of_the_reliability_page_names_tests_that_are_there() {
    let page = read(&root().join("docs/reliability.md"));
    let script = read(&root().join("scripts/reliability"));
    let sources: String = with_extension("rs").map(|path| read(&path)).collect();
    let rows = page
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| fault") && !line.starts_with("| ---"));
    let mut seen = 0;
    for row in rows {
        let held_by = row.trim_end_matches('|').rsplit('|').next().unwrap();
        let mut quoted = held_by.split('`');
        let mut names = 0;
        while let (Some(before), Some(name)) = (quoted.next(), quoted.next()) {
            let (kind, known) = if before.trim_end().ends_with("case") {
                ("case", script.contains(&format!("\ndef {name}(")))
            } else if before.trim_end().ends_with("script") {
                ("script", root().join("scripts").join(name).exists())
            } else {
                ("test", sources.contains(&format!("fn {name}(")))
            };
            assert!(known, "docs/reliability.md: there is no {kind} {name}");
            names += 1;
        }
        assert!(names > 0, "docs/reliability.md: nothing holds {row}");
        seen += 1;
    }
    assert!(seen > 20, "only {seen} faults found");
}

#[test]
fn every_option_and_command_of_the_documentation_is_one() {
    let Some(program) = std::env::var_os("PORTCULLIS_BIN") else {
        return eprintln!("skipped: PORTCULLIS_BIN names no program");
    };
    let help = |words: &[&str]| {
        let output = Command::new(&program).args(words).arg("--help").output().unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    };
    let mut seen = 0;
    for page in ["README.md", "docs/interfaces.md", "docs/profiles.md", "docs/reliability.md"] {
        let text = read(&root().join(page));
        let mut fenced = false;
        let commands = text.lines().filter_map(|line| {
            fenced ^= line.starts_with("```");
            fenced.then(|| line.trim_start_matches("$ ").strip_prefix("portcullis ")).flatten()
        });
        for command in commands {
            // What stands behind a sign of the shell's is none of it.
            let words: Vec<&str> = command.split('#').next().unwrap().split_whitespace().collect();
            let is_name = |word: &&&str| {
                word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-') && !word.starts_with('-')
            };
            let names: Vec<&str> = words.iter().take_while(is_name).copied().collect();
            // The longest run of words that is a command.
            let told = (1..=names.len().min(2)).rev().find_map(|count| help(&names[..count]));
            let told = told.unwrap_or_else(|| panic!("{page}: portcullis {command}: no such command"));
            for option in words.iter().filter(|word| word.trim_start_matches('[').starts_with("--")) {
                let option = option.trim_matches(['[', ']', ',']).split('=').next().unwrap();
                assert!(told.contains(option), "{page}: portcullis {command}: {option} is not in its help");
            }
            seen += 1;
        }
    }
    assert!(seen > 15, "only {seen} commands found");
}
