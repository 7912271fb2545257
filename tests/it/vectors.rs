//! Golden bytes: what this code makes today is what `tests/vectors/` says, byte for byte, and
//! what is marked there as a mutation is refused.
//!
//! Set `UPDATE_VECTORS=1` to write the files anew, and then look at the difference: a changed
//! byte is a changed protocol. The files are also checked by `tests/verifier/`, which shares no
//! code with this.
mod cast;
mod chunks;
mod end_to_end;
mod file;
mod handshake;
mod hashes;
mod identities;
mod messages;
mod mutate;
mod registry;
mod samples;
mod sealed;
mod signatures;
mod texts;

use std::path::PathBuf;

use file::File;

fn all() -> Vec<File> {
    vec![
        signatures::file(),
        hashes::file(),
        identities::file(),
        texts::file(),
        messages::file(),
        chunks::file(),
        handshake::file(),
        registry::file(),
        sealed::file(),
        end_to_end::file(),
    ]
}

fn path_of(file: &File) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "vectors", file.name].iter().collect()
}

#[test]
fn vectors_are_what_this_code_makes() {
    let update = std::env::var_os("UPDATE_VECTORS").is_some();
    for file in all() {
        let made = file.to_text();
        let path = path_of(&file);
        if update {
            std::fs::write(&path, &made).unwrap();
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        let first_difference =
            made.lines().zip(kept.lines()).position(|(made, kept)| made != kept).unwrap_or(0);
        assert!(
            made == kept,
            "{} differs from what this code makes, first in line {}; run with UPDATE_VECTORS=1 \
             and review the difference",
            path.display(),
            first_difference.saturating_add(1),
        );
    }
}

#[test]
fn there_are_vectors_enough_of_both_kinds() {
    let files = all();
    let valid: usize = files.iter().map(|file| file.count(true)).sum();
    let mutated: usize = files.iter().map(|file| file.count(false)).sum();
    assert!(valid >= 80, "only {valid} valid vectors");
    assert!(mutated >= 120, "only {mutated} mutations");
    for file in &files {
        assert!(file.count(true) > 0, "{} proves nothing", file.name);
        assert!(file.count(false) > 0, "{} refuses nothing", file.name);
    }
}
