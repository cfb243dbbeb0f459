//! The modules of each crate use one another one way: among the children of any module, what uses what has no circles.
//!
//! The graph is read from the sources: `use` declarations, and paths that begin with `crate`, `self` or `super`. A module and its
//! own children may use each other, as a whole and its parts do; tests are left out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The roots of the crates.
const ROOTS: [&str; 11] = [
    "dataplane/rcu/src/lib.rs",
    "dataplane/engine/src/lib.rs",
    "dataplane/pmd/src/lib.rs",
    "ctrl/stats/src/lib.rs",
    "ctrl/sandbox/src/lib.rs",
    "ctrl/control/src/lib.rs",
    "ctrl/portcullis/src/main.rs",
    "tests/src/lib.rs",
    "fuzz/src/lib.rs",
    "perf/src/lib.rs",
    "perf/pktgen/src/lib.rs",
];

/// Circles that are still there, by crate, parent and members: none may be added, and one that is opened must be taken out here.
const KNOWN: &[(&str, &str, &[&str])] = &[
    ("dataplane/pmd/src/lib.rs", "", &["port", "queue"]),
    ("ctrl/sandbox/src/lib.rs", "", &["capabilities", "threads"]),
    (
        "ctrl/control/src/lib.rs",
        "",
        &[
            "advise",
            "api",
            "commit",
            "diff",
            "explain",
            "health",
            "live",
            "metrics",
            "persisted",
            "plan",
            "store",
            "trace",
        ],
    ),
    ("ctrl/control/src/lib.rs", "api", &["auth", "tcp"]),
    ("ctrl/control/src/lib.rs", "config", &["flow_log", "read", "sandbox"]),
    ("ctrl/control/src/lib.rs", "store", &["doubt", "witness"]),
    ("ctrl/portcullis/src/main.rs", "", &["appliance", "machine"]),
    ("ctrl/portcullis/src/main.rs", "appliance", &["swap", "workers"]),
    ("ctrl/portcullis/src/main.rs", "client", &["listing", "table"]),
    ("tests/src/lib.rs", "", &["scenario", "sim"]),
    ("tests/src/lib.rs", "simulator", &["record", "world"]),
];

type Path1 = Vec<String>;

/// A source file's text without comments, strings and tests.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut code = String::with_capacity(text.len());
    let mut skips_item = false;
    for line in text.lines() {
        // A module of tests in the file is its last item, by the habit of the house.
        if line == "mod tests {" || skips_item && line.starts_with("mod ") && line.ends_with('{') {
            break;
        }
        let is_attribute = line.trim_start().starts_with("#[");
        if !skips_item || is_attribute {
            let without_comment = match line.find("//") {
                Some(at) if line[..at].matches('"').count() % 2 == 0 => &line[..at],
                _ => line,
            };
            for (n, part) in without_comment.split('"').enumerate() {
                code.push_str(if n % 2 == 0 { part } else { "\"\"" });
            }
            code.push('\n');
        }
        if is_attribute {
            skips_item |= line.contains("cfg(test)") || line.contains("cfg(all(test");
        } else if !line.trim().is_empty() {
            skips_item = false;
        }
    }
    code
}

/// Every module of a crate with its file.
fn modules(root: &Path) -> BTreeMap<Path1, PathBuf> {
    let mut found = BTreeMap::new();
    let mut open = vec![(Path1::new(), root.to_owned())];
    while let Some((module, file)) = open.pop() {
        let is_directory_root =
            file.ends_with("lib.rs") || file.ends_with("main.rs") || file.ends_with("mod.rs");
        let directory =
            if is_directory_root { file.parent().unwrap().to_owned() } else { file.with_extension("") };
        for line in code(&file).lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let Some(at) = words.iter().position(|word| *word == "mod") else { continue };
            let Some(name) = words.get(at + 1).and_then(|word| word.strip_suffix(';')) else { continue };
            let paths = [directory.join(format!("{name}.rs")), directory.join(name).join("mod.rs")];
            if let Some(path) = paths.into_iter().find(|path| path.exists()) {
                let mut child = module.clone();
                child.push(name.to_owned());
                open.push((child, path));
            }
        }
        found.insert(module, file);
    }
    found
}

/// The paths that a `use` declaration names.
fn expand(tree: &str, prefix: &[String], paths: &mut Vec<Path1>) {
    let tree = tree.trim();
    if let Some(inner) = tree.strip_prefix('{').and_then(|tree| tree.strip_suffix('}')) {
        let (mut depth, mut begin) = (0, 0);
        for (at, c) in inner.char_indices().chain([(inner.len(), ',')]) {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    if !inner[begin..at].trim().is_empty() {
                        expand(&inner[begin..at], prefix, paths);
                    }
                    begin = at + 1;
                }
                _ => {}
            }
        }
        return;
    }
    let mut path = prefix.to_vec();
    match tree.split_once("::") {
        Some((first, rest)) if !first.contains('{') => {
            path.push(first.trim().to_owned());
            expand(rest, &path, paths);
        }
        _ => {
            path.push(tree.split(" as ").next().unwrap().trim().to_owned());
            paths.push(path);
        }
    }
}

/// Every path that a file names: in `use` declarations, and elsewhere those from `crate`, `self` and `super` on.
fn paths(code: &str) -> Vec<Path1> {
    let mut paths = Vec::new();
    let mut rest = String::new();
    let mut pieces = code.split(';').peekable();
    while let Some(piece) = pieces.next() {
        let declaration = piece.rfind("use ").filter(|at| {
            let line = piece[..*at].rsplit('\n').next().unwrap().trim();
            pieces.peek().is_some() && (line.is_empty() || line.starts_with("pub"))
        });
        match declaration {
            Some(at) => {
                expand(&piece[at + 4..].replace('\n', " "), &[], &mut paths);
                rest.push_str(&piece[..at]);
            }
            None => rest.push_str(piece),
        }
        rest.push(';');
    }
    for start in ["crate::", "super::", "self::"] {
        for (at, _) in rest.match_indices(start) {
            if rest[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            let end = rest[at..].find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
            let path = &rest[at..end.map_or(rest.len(), |end| at + end)];
            paths.push(path.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect());
        }
    }
    paths
}

/// The module that a path, named in another, leads to or through.
fn resolve(path: &[String], from: &Path1, modules: &BTreeMap<Path1, PathBuf>) -> Option<Path1> {
    let mut rest = path;
    let mut module = match path.first()?.as_str() {
        "crate" => Path1::new(),
        "self" | "super" => from.clone(),
        child => {
            let mut below = from.clone();
            below.push(child.to_owned());
            return modules.contains_key(&below).then_some(below);
        }
    };
    while let Some(first @ ("crate" | "self" | "super")) = rest.first().map(String::as_str) {
        if first == "super" {
            module.pop()?;
        }
        rest = &rest[1..];
    }
    for name in rest {
        module.push(name.clone());
        if !modules.contains_key(&module) {
            module.pop();
            break;
        }
    }
    Some(module)
}

/// By parent: which of its children use which others, themselves or by what is in them.
fn graphs(root: &Path) -> BTreeMap<Path1, BTreeMap<String, BTreeSet<String>>> {
    let modules = modules(root);
    let mut graphs: BTreeMap<Path1, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for (from, file) in &modules {
        for to in paths(&code(file)).iter().filter_map(|path| resolve(path, from, &modules)) {
            let common = from.iter().zip(&to).take_while(|(one, other)| one == other).count();
            if let (Some(user), Some(used)) = (from.get(common), to.get(common)) {
                let graph = graphs.entry(from[..common].to_vec()).or_default();
                graph.entry(user.clone()).or_default().insert(used.clone());
            }
        }
    }
    graphs
}

/// Those that a module leads to.
fn reached<'g>(from: &'g str, graph: &'g BTreeMap<String, BTreeSet<String>>) -> BTreeSet<&'g str> {
    let (mut reached, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(next) = open.pop() {
        for used in graph.get(next).into_iter().flatten() {
            if reached.insert(used.as_str()) {
                open.push(used);
            }
        }
    }
    reached
}

/// The circles among the children of each module of a crate: parent and members.
fn circles(root: &Path) -> BTreeSet<(String, Vec<String>)> {
    let mut found = BTreeSet::new();
    for (parent, graph) in graphs(root) {
        for start in graph.keys() {
            let all = reached(start, &graph);
            if all.contains(start.as_str()) {
                let members = all.into_iter().filter(|other| reached(other, &graph).contains(start.as_str()));
                found.insert((parent.join("::"), members.map(str::to_owned).collect()));
            }
        }
    }
    found
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().canonicalize().unwrap()
}

#[test]
fn no_modules_use_one_another_in_a_circle() {
    for root in ROOTS {
        let found = circles(&workspace().join(root));
        let known: BTreeSet<(String, Vec<String>)> = KNOWN
            .iter()
            .filter(|(of, ..)| *of == root)
            .map(|(_, parent, members)| {
                (parent.to_string(), members.iter().map(|member| member.to_string()).collect())
            })
            .collect();
        let new: Vec<_> = found.difference(&known).collect();
        assert!(new.is_empty(), "{root}: modules that use one another in a circle: {new:#?}");
        let gone: Vec<_> = known.difference(&found).collect();
        assert!(gone.is_empty(), "{root}: take these circles out of the list, they are open: {gone:#?}");
    }
}

#[test]
fn the_graph_has_the_edges_that_are_known() {
    let graphs = graphs(&workspace().join("dataplane/engine/src/lib.rs"));
    let top = &graphs[&Path1::new()];
    assert!(top.len() > 25, "{} modules", top.len());
    for (user, used) in
        [("worker", "burst"), ("burst", "judge"), ("judge", "conntrack"), ("snapshot", "classify")]
    {
        assert!(top[user].contains(used), "{user} does not use {used}");
    }
    assert!(reached("worker", top).contains("types") || reached("worker", top).contains("reason"));
}
