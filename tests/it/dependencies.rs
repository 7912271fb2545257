//! What is not in the dependency tree of the shipped programs.

use std::fs;
use std::path::Path;

/// Packages that compress, or parts of their names.
const COMPRESSORS: [&str; 14] = [
    "flate",
    "deflate",
    "miniz",
    "zlib",
    "libz",
    "zopfli",
    "zstd",
    "brotli",
    "lz4",
    "lzma",
    "xz2",
    "bzip2",
    "snap",
    "compression",
];

/// L14: nothing is ever compressed, so a short message never becomes a long one in memory, and the
/// length of a ciphertext tells nothing about what stood beside a secret.
#[test]
fn l14_nothing_can_compress_or_decompress() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let lock = fs::read_to_string(root.join("Cargo.lock")).unwrap();
    let names: Vec<&str> =
        lock.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"')).collect();
    assert!(names.len() > 100 && names.contains(&"snow"), "the file was not understood");
    let found: Vec<&&str> =
        names.iter().filter(|name| COMPRESSORS.iter().any(|part| name.contains(part))).collect();
    assert!(found.is_empty(), "{found:?}");
    // What is asked of the tool that guards it, too.
    let deny = fs::read_to_string(root.join("deny.toml")).unwrap();
    for name in ["flate2", "zstd", "brotli"] {
        assert!(deny.contains(&format!("name = \"{name}\"")), "deny.toml says nothing of {name}");
    }
}
