//! The rules of the house, read off the source text: who may import whom, who may have effects, how
//! long a file may be, which attacks must have a test. What lints can check is left to lints.
//!
//! The reading is plain: comments and test modules are taken out, then words are looked for. It
//! does not resolve macros or renamed imports; it is there against slips, not against malice.

use std::collections::BTreeSet;
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// Lines of any file of source.
const MAX_LINES: usize = 600;
/// Lines of a `main.rs`.
const MAX_MAIN_LINES: usize = 60;

/// Crates whose code runs in people's programs, and the simulator that must replay from a seed.
const PURE: [&str; 5] =
    ["common/src/", "relay-server/src/", "rendezvous/src/", "node/src/", "tests/sim/"];

/// Words of the outside world. Only `io` and `main.rs` may say them.
const EFFECTS: [(&str, &str); 17] = [
    ("tokio", "tasks and sockets belong into io"),
    ("tokio_rustls", "sockets belong into io"),
    ("rustls", "sockets belong into io"),
    ("axum", "the local interface is served by io"),
    ("hyper", "the local interface is served by io"),
    ("TcpStream", "sockets belong into io"),
    ("TcpListener", "sockets belong into io"),
    ("UdpSocket", "sockets belong into io"),
    ("UnixStream", "sockets belong into io"),
    ("UnixListener", "sockets belong into io"),
    ("ToSocketAddrs", "names are resolved in io"),
    ("std::time::Instant", "time is an argument; only io reads a clock"),
    ("SystemTime", "time is an argument; only io reads a clock"),
    ("getrandom", "entropy is an argument; only io opens the system's generator"),
    ("OsRng", "entropy is an argument; only io opens the system's generator"),
    ("std::thread", "threads are started only in io"),
    ("thread::spawn", "threads are started only in io"),
];

/// What no source may say, tests included.
const NOWHERE: [(&str, &str); 5] = [
    ("HashMap", "its order is random; use BTreeMap"),
    ("HashSet", "its order is random; use BTreeSet"),
    ("todo!", "finish it, or write down elsewhere what is missing"),
    ("unimplemented!", "finish it, or give a typed error"),
    ("#[ignore", "a test that does not run proves nothing"),
];

/// A layer, and the layers of its own crate that it may import.
type Contract = [(&'static str, &'static [&'static str])];

/// Top to bottom. `io` and `main` may import everything; nobody but a crate's own command line
/// may import `io`.
const NODE: &Contract = &[
    ("cli", &["api", "config", "io"]),
    (
        "node",
        &["api", "config", "conversations", "delivery", "identity", "groups", "transport", "store"],
    ),
    ("conversations", &["api", "delivery", "identity", "groups", "store"]),
    ("delivery", &["api", "identity", "transport", "store"]),
    ("identity", &["api", "groups", "transport", "store"]),
    ("groups", &["store"]),
    ("transport", &["api"]),
    ("store", &[]),
    ("config", &["api"]),
    ("api", &[]),
];

const RELAY: &Contract = &[
    ("cli", &["config", "io"]),
    ("engine", &["store"]),
    ("store", &[]),
    ("config", &["engine", "store"]),
];

const RENDEZVOUS: &Contract = &[
    ("cli", &["config", "io"]),
    ("config", &["registry"]),
    ("protocol", &["registry"]),
    ("registry", &["store"]),
    ("store", &[]),
];

/// Attacks that have a test whose name begins with the id.
const ATTACKS: [&str; 93] = [
    "n01", "n02", "n03", "n04", "n05", "n06", "n07", "n08", "n09", "n10", "n11", "n12", "n13",
    "n14", "n15", "n16", "n17", "n18", "n19", "n20", "r01", "r02", "r03", "r04", "r05", "r06",
    "r07", "r08", "r09", "r10", "r11", "r12", "r13", "r14", "r15", "r16", "r17", "r18", "r19",
    "r20", "l01", "l02", "l04", "l07", "l08", "l11", "l12", "l13", "l14", "l15", "l16", "l17",
    "l18", "l19", "l21", "l22", "l23", "m01", "m02", "m03", "m04", "m05", "m06", "m07", "m08",
    "m09", "m10", "m11", "m12", "m13", "m14", "m15", "m16", "m17", "m18", "m19", "m20", "m21",
    "m22", "m23", "m24", "c01", "c02", "c03", "c05", "c07", "c08", "c12", "c13", "c14", "c15",
    "c17", "c18",
];

/// Files whose tests need characters beyond ASCII. Everywhere else they are written as escapes, so
/// that what a reviewer sees is what the compiler reads.
const MAY_BE_NON_ASCII: [&str; 3] = [
    "tests/it/vectors/cast.rs",
    "tests/it/vectors/end_to_end/contents.rs",
    "tests/it/vectors/samples.rs",
];
/// Arrows and lines: what drawings in comments are made of.
const DRAWING: [RangeInclusive<char>; 2] = ['\u{2190}'..='\u{21ff}', '\u{2500}'..='\u{257f}'];

#[test]
fn layers_import_downwards_only() {
    let mut violations = Vec::new();
    for (folder, contract) in
        [("node/src/", NODE), ("relay-server/src/", RELAY), ("rendezvous/src/", RENDEZVOUS)]
    {
        for source in sources().iter().filter(|source| source.path.starts_with(folder)) {
            violations.extend(wrong_imports(source, folder, contract));
        }
    }
    for source in sources().iter().filter(|source| source.path.starts_with("common/src/")) {
        let io = imports(source, "common/src/").into_iter().filter(|(_, layer)| layer == "io");
        violations.extend(io.filter(|_| !source.is_shell()).map(|(line, _)| {
            source.violation(line, "nobody imports io: what it offers is for other crates")
        }));
    }
    assert_none(&violations);
}

#[test]
fn effects_happen_in_io_only() {
    let violations: Vec<String> = sources()
        .iter()
        .filter(|source| PURE.iter().any(|folder| source.path.starts_with(folder)))
        .filter(|source| !source.is_shell() && !source.is_test())
        .flat_map(|source| found(source, &source.production, &EFFECTS))
        .collect();
    assert_none(&violations);
}

#[test]
fn nobody_says_what_nobody_may_say() {
    let violations: Vec<String> = sources()
        .iter()
        .filter(|source| source.path != "tests/it/layers.rs")
        .flat_map(|source| found(source, &source.code, &NOWHERE))
        .collect();
    assert_none(&violations);
}

#[test]
fn files_say_what_they_are_and_stay_short() {
    let mut violations = Vec::new();
    for source in sources() {
        if !source.text.starts_with("//! ") {
            violations.push(source.violation(1, "the first line says what the file is: `//! ...`"));
        }
        let is_main = source.path.ends_with("/src/main.rs");
        let bound = if is_main { MAX_MAIN_LINES } else { MAX_LINES };
        let lines = source.text.lines().count();
        if lines > bound {
            let rule = format!("{lines} lines, and at most {bound} are allowed: split by subject");
            violations.push(source.violation(lines, &rule));
        }
    }
    assert_none(&violations);
}

#[test]
fn every_attack_has_a_test() {
    let tests = sources().iter().flat_map(|source| test_names(&source.text)).collect();
    let violations: Vec<String> = without_test(&tests)
        .iter()
        .map(|id| format!("no test is named {id}_...: see the attack table"))
        .collect();
    assert_none(&violations);
}

/// Trojan source: text that reads otherwise than it compiles.
#[test]
fn s07_sources_are_plain_ascii() {
    let mut violations = Vec::new();
    for source in sources() {
        if MAY_BE_NON_ASCII.contains(&source.path.as_str()) {
            continue;
        }
        for (number, line) in (1..).zip(source.text.lines()) {
            let is_comment = line.trim_start().starts_with("//");
            if let Some(character) = line.chars().find(|c| !is_plain(*c, is_comment)) {
                let rule = format!("write U+{:04X} as an escape", u32::from(character));
                violations.push(source.violation(number, &rule));
            }
        }
    }
    assert_none(&violations);
}

/// A rule that finds nothing is right or broken: each is shown something to find.
#[test]
fn the_rules_find_what_they_look_for() {
    let text = "//! Text.\nuse crate::{store::Tx, io::Socket};\nuse super::super::cli;\n\
        // tokio in a comment\nlet a = tokio::spawn();\n\
        #[cfg(test)]\nmod tests {\n    use std::thread::spawn;\n}\n";
    let source = Source::new("node/src/groups/text.rs", text.to_owned());

    assert_eq!(
        imports(&source, "node/src/"),
        vec![(2, "io".to_owned()), (2, "store".to_owned()), (3, "cli".to_owned())]
    );
    assert_eq!(wrong_imports(&source, "node/src/", NODE).len(), 2);
    let effects = found(&source, &source.production, &EFFECTS);
    assert_eq!(
        effects,
        vec!["node/src/groups/text.rs:5: `tokio`: tasks and sockets belong into io"]
    );
    assert_eq!(found(&source, "let a: HashMap<u8, u8>;\n    todo!()", &NOWHERE).len(), 2);
    assert_eq!(found(&source, "MyHashMapping; mastodo!()", &NOWHERE).len(), 0);
    assert_eq!(test_names("#[test]\n    fn n01_a() {}\nfn n02_b()"), vec!["n01_a"]);
    assert!(
        is_plain('\u{2500}', true) && !is_plain('\u{2500}', false) && !is_plain('\u{202e}', true)
    );
    let all = ATTACKS.iter().map(|id| format!("{id}_x"));
    assert_eq!(without_test(&all.skip(1).collect()), vec!["n01"]);
}

// Reading -----------------------------------------------------------------------------------------

/// One file, as the rules see it.
struct Source {
    /// Relative to the repository, with slashes.
    path: String,
    text: String,
    /// The text without comments. Line breaks stay, so that line numbers do.
    code: String,
    /// The code before the first test module.
    production: String,
}

impl Source {
    fn new(path: &str, text: String) -> Self {
        let code = without_comments(&text);
        let production = before_tests(&code).to_owned();
        Self { path: path.to_owned(), text, code, production }
    }

    /// Part of the shell, where effects live.
    fn is_shell(&self) -> bool {
        let file = self.path.rsplit('/').next().unwrap_or_default();
        let folders = ["/io/", "/bin/"];
        folders.iter().any(|folder| self.path.contains(folder))
            || file == "io.rs"
            || file == "main.rs"
    }

    /// Compiled for tests only.
    fn is_test(&self) -> bool {
        self.path.ends_with("/tests.rs") || self.path.contains("/tests/")
    }

    fn violation(&self, line: usize, rule: &str) -> String {
        format!("{}:{line}: {rule}", self.path)
    }
}

fn sources() -> Vec<Source> {
    let root = repository();
    let mut files = Vec::new();
    for folder in ["common", "relay-server", "rendezvous", "node", "tests", "fuzz"] {
        collect(&root.join(folder), &mut files);
    }
    files.sort();
    assert!(files.len() > 50, "the sources were not found below {}", root.display());
    let relative =
        |file: &PathBuf| file.strip_prefix(&root).unwrap().to_string_lossy().replace('\\', "/");
    files
        .iter()
        .map(|file| Source::new(&relative(file), fs::read_to_string(file).unwrap()))
        .collect()
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn without_comments(text: &str) -> String {
    let code = |line: &str| match line.find("//") {
        // `://` is an address inside a text, not a comment.
        Some(at) if !line[..at].ends_with(':') => line[..at].to_owned(),
        _ => line.to_owned(),
    };
    text.lines().map(|line| code(line) + "\n").collect()
}

fn before_tests(code: &str) -> &str {
    let test_module = code.match_indices("#[cfg(test)]").map(|(at, _)| at).find(|at| {
        let after = code[*at..].lines().skip(1).find(|line| !line.trim().starts_with("#["));
        after.is_some_and(|line| line.starts_with("mod ") && line.trim_end().ends_with('{'))
    });
    test_module.map_or(code, |at| &code[..at])
}

// Judging -----------------------------------------------------------------------------------------

/// Every import of a layer that stands above or beside the importing one.
fn wrong_imports(source: &Source, folder: &str, contract: &Contract) -> Vec<String> {
    let layer = layer_of(&source.path, folder);
    if ["io", "main", "lib"].contains(&layer.as_str()) || source.is_test() {
        return Vec::new();
    }
    let Some((_, allowed)) = contract.iter().find(|(name, _)| *name == layer) else {
        return vec![source.violation(1, &format!("layer `{layer}` is not in the contract"))];
    };
    imports(source, folder)
        .into_iter()
        .filter(|(_, imported)| *imported != layer && !allowed.contains(&imported.as_str()))
        .map(|(line, imported)| {
            source.violation(line, &format!("`{layer}` may not import `{imported}`"))
        })
        .collect()
}

/// The layer that a file belongs to: the first name below the folder.
fn layer_of(path: &str, folder: &str) -> String {
    let below = path.strip_prefix(folder).unwrap_or(path);
    let name = below.split('/').next().unwrap_or_default();
    name.strip_suffix(".rs").unwrap_or(name).to_owned()
}

/// Modules at the root of the crate that the file's production code names, with line numbers.
fn imports(source: &Source, folder: &str) -> Vec<(usize, String)> {
    let depth = source.path.strip_prefix(folder).unwrap_or_default().matches('/').count() + 1;
    let from_root = ["crate::".to_owned(), "super::".repeat(depth)];
    let mut found = Vec::new();
    for prefix in from_root {
        for (at, _) in source.production.match_indices(&prefix) {
            let before = source.production[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            let line = source.production[..at].matches('\n').count() + 1;
            let rest = &source.production[at + prefix.len()..];
            found.extend(first_names(rest).into_iter().map(|name| (line, name)));
        }
    }
    found.retain(|(_, name)| name.starts_with(|c: char| c.is_lowercase()) && name != "super");
    found.sort();
    found.dedup();
    found
}

/// `store::Tx` gives `store`; `{store::Tx, io::{A, B}}` gives `store` and `io`.
fn first_names(path: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    if !path.starts_with('{') {
        return vec![name(path)];
    }
    let mut names = Vec::new();
    let mut depth = 0_usize;
    for (at, character) in path.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
        if depth == 1 && (character == '{' || character == ',') {
            names.push(name(&path[at + 1..]));
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// Every place where one of the words stands as a whole word.
fn found(source: &Source, code: &str, words: &[(&str, &str)]) -> Vec<String> {
    let mut violations = Vec::new();
    for (number, line) in (1..).zip(code.lines()) {
        for (word, rule) in words {
            if has_word(line, word) {
                violations.push(source.violation(number, &format!("`{word}`: {rule}")));
            }
        }
    }
    violations
}

fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word).any(|(at, _)| {
        let ends_open = word.ends_with(|c: char| !c.is_alphanumeric());
        !is_part(line[..at].chars().next_back())
            && (ends_open || !is_part(line[at + word.len()..].chars().next()))
    })
}

/// Names of all functions marked as tests.
fn test_names(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim_start) {
        if let Some(rest) = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ") {
            let is_name = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
            names.extend(is_test.then(|| rest.chars().take_while(is_name).collect()));
            is_test = false;
        }
        is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
    }
    names
}

fn is_plain(character: char, is_comment: bool) -> bool {
    let draws = || DRAWING.iter().any(|range| range.contains(&character));
    character.is_ascii() || (is_comment && draws())
}

fn without_test(tests: &BTreeSet<String>) -> Vec<&'static str> {
    let ids: BTreeSet<&str> =
        tests.iter().filter_map(|name| Some(name.split_once('_')?.0)).collect();
    ATTACKS.iter().copied().filter(|id| !ids.contains(id)).collect()
}

fn assert_none(violations: &[String]) {
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}
