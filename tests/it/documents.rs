//! The documents say what the code says: numbers, labels and limits of `docs/protocol.md`, and the
//! code map of `docs/architecture.md`.
//!
//! The code map is made of the first sentence of each file. `UPDATE_DOCS=1` writes it anew.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use sremp_common::label::{self, SignatureLabel};
use sremp_common::limit;
use sremp_common::wire::{ErrorCode, Message};

/// What is in the code map: sources of the programs, the simulator, and what is run by hand.
const MAPPED: [&str; 7] = [
    "common/src",
    "relay-server/src",
    "rendezvous/src",
    "node/src",
    "tests/sim",
    "tests/bench",
    "tests/flood",
];
const MAP_BEGIN: &str =
    "<!-- code map: made by UPDATE_DOCS=1 cargo test -p sremp-tests documents -->\n";
const MAP_END: &str = "<!-- end of code map -->\n";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn document(name: &str) -> String {
    fs::read_to_string(root().join("docs").join(name)).unwrap()
}

/// The lines of the section that begins with this heading.
fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let (_, rest) = text.split_once(&format!("\n{heading}")).unwrap();
    let level = heading.split(' ').next().unwrap();
    let end = rest.find(&format!("\n{level} ")).unwrap_or(rest.len());
    rest.split_at(end).0
}

/// The cells of each row of the tables in a section, but for their heads.
fn rows(section: &str) -> Vec<Vec<&str>> {
    section
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("|-"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect()
}

#[test]
fn every_message_type_stands_in_the_protocol() {
    let text = document("protocol.md");
    let rows = rows(section(&text, "## 8. Messages"));
    let numbers: Vec<u8> = rows
        .iter()
        .filter(|row| row.len() == 4 && row[1].starts_with('`') && row[1].to_uppercase() == row[1])
        .filter_map(|row| row[0].parse().ok())
        .collect();
    assert_eq!(numbers, Message::TYPE_NUMBERS);
}

#[test]
fn every_label_stands_in_the_protocol() {
    let text = document("protocol.md");
    let signatures = section(&text, "### 3.1 Signature labels");
    let written: Vec<&str> = rows(signatures).into_iter().skip(1).map(|row| row[0]).collect();
    let labels: Vec<String> =
        SignatureLabel::ALL.iter().map(|label| format!("`{}`", label.as_str())).collect();
    assert_eq!(written, labels);
    let others = section(&text, "### 3.3 Other fixed strings");
    let ascii = |bytes: &'static [u8]| std::str::from_utf8(bytes).unwrap();
    for fixed in [
        label::NOISE_PATTERN,
        label::MLS_EXPORTER,
        ascii(label::TLS_EXPORTER),
        ascii(label::RENDEZVOUS_ALPN),
        ascii(label::SEAL_INFO),
        ascii(label::NOISE_PROLOGUE).trim_end_matches('\0'),
    ] {
        assert!(others.contains(fixed), "{fixed} is missing");
    }
    let input_prefix = ascii(label::INPUT_PREFIX).trim_end_matches('\0');
    assert!(text.contains(&format!("\"{input_prefix}\" 00")));
}

#[test]
fn every_error_code_stands_in_the_protocol() {
    let text = document("protocol.md");
    let mut next = 1;
    for row in rows(section(&text, "## 11. Error codes")).iter().skip(1) {
        let number: u16 = row[0].parse().unwrap();
        assert_eq!(number, next);
        let code = ErrorCode::from_number(number);
        assert_ne!(code, ErrorCode::Other(number), "code {number} does not exist");
        assert_eq!(row[3] == "yes", code.is_temporary(), "code {number}");
        next += 1;
    }
    assert_eq!(ErrorCode::from_number(next), ErrorCode::Other(next), "code {next} is missing");
}

#[test]
fn the_limits_are_those_of_the_code() {
    let text = document("protocol.md");
    let rows = rows(section(&text, "## 13. Limits"));
    let written: BTreeMap<&str, &str> = rows.iter().map(|row| (row[0], row[1])).collect();
    let seconds = |time: std::time::Duration| format!("{} s", time.as_secs());
    for (what, limit) in [
        ("Noise message", format!("{} bytes", grouped(limit::MAX_NOISE_MESSAGE))),
        ("chunk payload", format!("{} bytes", grouped(limit::CHUNK_PAYLOAD))),
        ("reassembled message, known peer", size(limit::MAX_MESSAGE)),
        ("reassembled message, stranger", size(limit::MAX_MESSAGE_STRANGER)),
        (
            "header, handshake and checks",
            format!("{}, {}", seconds(limit::HANDSHAKE_TIMEOUT), size(limit::MAX_HANDSHAKE_BYTES)),
        ),
        ("ping after silence", format!("{} \u{b1} 20 %", seconds(limit::PING_AFTER))),
        ("dead after silence", seconds(limit::IDLE_TIMEOUT)),
        (
            "requests waiting for an answer",
            format!("{} of one connection", grouped(limit::MAX_OPEN_REQUESTS)),
        ),
        ("rendezvous message", size(limit::MAX_RENDEZVOUS_MESSAGE)),
        ("nesting", limit::MAX_DEPTH.to_string()),
        ("identity", size(limit::MAX_IDENTITY)),
        ("profile picture", size(limit::MAX_PICTURE)),
        ("relays of an identity", limit::MAX_RELAYS.to_string()),
        ("endpoints of a registration, link or relay", limit::MAX_ENDPOINTS.to_string()),
        ("DNS name", format!("{} bytes", limit::MAX_DNS_NAME)),
        ("text form", format!("{} characters", grouped(limit::MAX_TEXT_FORM))),
        ("blob", format!("{} bytes (4 MiB \u{2212} 256 KiB)", grouped(limit::MAX_BLOB))),
        ("blob from a stranger", size(limit::MAX_BLOB_STRANGER)),
        ("recipients of one store", grouped(limit::MAX_RECIPIENTS)),
        ("tokens of a mailbox", grouped(limit::MAX_ADMISSIONS)),
        ("messages of one batch", limit::MAX_BATCH.to_string()),
        ("acknowledgements in one message", grouped(limit::MAX_ACKS)),
        ("window", size(usize::try_from(limit::MAX_WINDOW).unwrap())),
        ("key package", size(limit::MAX_KEY_PACKAGE)),
        ("key packages in stock", limit::MAX_KEY_PACKAGES.to_string()),
        ("page of a listing", limit::MAX_LIST_PAGE.to_string()),
        ("list of servers", limit::MAX_SERVERS.to_string()),
        ("text of an error", format!("{} bytes", limit::MAX_ERROR_TEXT)),
        ("text of a message", size(limit::MAX_TEXT)),
        ("members of a group that still confirm delivery", limit::MAX_RECEIPT_MEMBERS.to_string()),
        ("message ids in one receipt", limit::MAX_RECEIPT_IDS.to_string()),
    ] {
        assert_eq!(written.get(what), Some(&limit.as_str()), "{what}");
    }
}

/// With a comma between thousands.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let first = digits.len() % 3;
    let mut parts = vec![&digits[..first]];
    parts.extend((first..digits.len()).step_by(3).map(|at| &digits[at..at + 3]));
    parts.retain(|part| !part.is_empty());
    parts.join(",")
}

/// In whole KiB or MiB.
fn size(bytes: usize) -> String {
    assert_eq!(bytes % 1024, 0);
    match bytes / 1024 {
        kib if kib % 1024 == 0 => format!("{} MiB", kib / 1024),
        kib => format!("{kib} KiB"),
    }
}

#[test]
fn documents_name_only_files_that_exist() {
    let folders = [
        "common/",
        "node/",
        "relay-server/",
        "rendezvous/",
        "tests/",
        "scripts/",
        "docs/",
        "deploy/",
        "fuzz/",
        ".ci/",
    ];
    let mut missing = Vec::new();
    for folder in [root(), root().join("docs")] {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "md") {
                continue;
            }
            let mut text = fs::read_to_string(&path).unwrap();
            if let (Some(begin), Some(end)) = (text.find(MAP_BEGIN), text.find(MAP_END)) {
                text.replace_range(begin..end, "");
            }
            // Between two backticks stands every second piece.
            for quoted in text.lines().flat_map(|line| line.split('`').skip(1).step_by(2)) {
                let name = quoted.split(' ').next().unwrap_or_default();
                let is_path = folders.iter().any(|folder| name.starts_with(folder));
                if is_path && !root().join(name).exists() {
                    missing.push(format!("{}: {name}", path.display()));
                }
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn the_code_map_names_every_file() {
    let path = root().join("docs/architecture.md");
    let text = fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(MAP_BEGIN).unwrap();
    let (written, after) = rest.split_once(MAP_END).unwrap();
    let made = code_map();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, [before, MAP_BEGIN, &made, MAP_END, after].concat()).unwrap();
        return;
    }
    let missing: Vec<&str> = made.lines().filter(|line| !written.contains(line)).collect();
    let stale: Vec<&str> = written.lines().filter(|line| !made.contains(line)).collect();
    assert!(
        written == made,
        "the code map is not up to date (UPDATE_DOCS=1 writes it);\nmissing: {missing:#?}\nstale: {stale:#?}"
    );
}

/// One table for each folder, one row for each file.
fn code_map() -> String {
    let mut map = String::from("\n");
    for folder in MAPPED {
        let mut files = Vec::new();
        collect(&root().join(folder), &mut files);
        // A module before its folder.
        files.sort_by_key(|file| file.with_extension(""));
        map.push_str(&format!("### `{folder}/`\n\n| file | what it is |\n|---|---|\n"));
        for file in files {
            let name = file.strip_prefix(root().join(folder)).unwrap().display().to_string();
            map.push_str(&format!("| `{name}` | {} |\n", first_sentence(&file)));
        }
        map.push('\n');
    }
    map
}

/// All sources but tests.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if name == "tests" {
            continue;
        }
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Of the file's own documentation, without links and signs that a table does not bear.
fn first_sentence(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    let lines = text.lines().map_while(|line| line.strip_prefix("//!"));
    let paragraph: Vec<&str> = lines.map(str::trim).take_while(|line| !line.is_empty()).collect();
    let paragraph = paragraph.join(" ").replace("[`", "`").replace("`]", "`").replace('|', "/");
    let end = paragraph.find(". ").unwrap_or(paragraph.len());
    paragraph.split_at(end).0.trim_end_matches('.').to_owned()
}
