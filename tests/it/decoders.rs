//! Every decoder, over the golden vectors and many perturbations of them: the fuzz targets' own
//! functions, on a stable toolchain and in seconds. What they check is said where they are.

#[path = "../../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "it is public where it is a crate of its own")]
mod bodies;

use std::collections::BTreeSet;
use std::panic::catch_unwind;
use std::path::Path;
use std::{fs, iter};

use serde_json::Value;
use sremp_common::entropy::Entropy;

use bodies::{BODIES, Body};

/// Perturbations of each seed for each decoder.
const ROUNDS: usize = 12;
/// Longer seeds are cut: what is at stake is structure, and structure is at the front.
const MAX_SEED: usize = 4096;

/// One test for each decoder, under its name.
macro_rules! decoders {
    ($($name:ident)+) => {
        const TESTED: &[&str] = &[$(stringify!($name)),+];
        $(
            #[test]
            fn $name() {
                keeps_its_promises(stringify!($name), bodies::$name);
            }
        )+
    };
}

decoders! {
    version_header frame long_frame chunk handshake message identity text_form username endpoint
    connection rendezvous_session config content leaf_certificate leaf_info sealed_blob group_blob
    welcome key_package
}

#[test]
fn every_decoder_has_a_test_and_a_fuzz_target() {
    let names: Vec<&str> = BODIES.iter().map(|(name, _)| *name).collect();
    assert_eq!(TESTED, names, "each is tested here, in the same order");
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    let targets = fs::read_dir(fuzz.join("fuzz_targets")).unwrap().count();
    assert_eq!(targets, BODIES.len(), "one target for each decoder, and none besides");
    for (name, _) in BODIES {
        let target = fs::read_to_string(fuzz.join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(target.contains(&format!("sremp_fuzz::{name}(data)")), "{name} tests another");
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not in the manifest");
    }
}

fn keeps_its_promises(name: &str, body: Body) {
    let seeds = seeds();
    assert!(seeds.len() > 100, "only {} seeds: are the vectors there?", seeds.len());
    let mut entropy = Entropy::from_number(42);
    for seed in &seeds {
        survives(name, body, seed);
        for _ in 0..ROUNDS {
            survives(name, body, &perturbed(seed, &seeds, &mut entropy));
        }
    }
}

/// A failure names its input, so that it can become a vector.
fn survives(name: &str, body: Body, input: &[u8]) {
    if catch_unwind(|| body(input)).is_err() {
        let bytes: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
        panic!("{name} broke its promise on the bytes {bytes}");
    }
}

/// Every text in the vectors, and the bytes of those that are hexadecimal.
fn seeds() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors");
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let text = fs::read_to_string(path).unwrap();
            collect(&serde_json::from_str(&text).unwrap(), &mut found);
        }
    }
    found.into_iter().collect()
}

fn collect(value: &Value, found: &mut BTreeSet<Vec<u8>>) {
    match value {
        Value::String(text) => {
            for mut seed in iter::once(text.as_bytes().to_vec()).chain(from_hex(text)) {
                seed.truncate(MAX_SEED);
                found.insert(seed);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        Value::Object(fields) => fields.values().for_each(|field| collect(field, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let digits = digits.filter(|digits| !digits.is_empty() && digits.len() % 2 == 0)?;
    Some(digits.chunks(2).map(|pair| (pair[0] << 4) | pair[1]).collect())
}

/// One to three of the things that go wrong with bytes.
fn perturbed(seed: &[u8], seeds: &[Vec<u8>], entropy: &mut Entropy) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=pick(entropy, 3) {
        perturb(&mut bytes, seeds, entropy);
    }
    bytes
}

fn perturb(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], entropy: &mut Entropy) {
    let at = pick(entropy, bytes.len() + 1);
    match pick(entropy, 8) {
        0 => bytes.truncate(at),
        1 => bytes.insert(at, entropy.array::<1>()[0]),
        2 => bytes.extend_from_slice(&entropy.array::<8>()),
        3 if at < bytes.len() => drop(bytes.remove(at)),
        4 if at < bytes.len() => bytes[at] ^= 1 << pick(entropy, 8),
        // Where MessagePack announces lengths, and where integers end.
        5 if at < bytes.len() => {
            let edges = [0x00, 0x7F, 0x80, 0xC0, 0xC4, 0xC6, 0xCF, 0xDC, 0xDD, 0xDF, 0xFF];
            bytes[at] = edges[pick(entropy, edges.len())];
        }
        6 => {
            let other = &seeds[pick(entropy, seeds.len())];
            bytes.truncate(at);
            bytes.extend_from_slice(&other[pick(entropy, other.len() + 1)..]);
        }
        _ => {
            let repeated = bytes[at..].to_vec();
            bytes.extend(repeated.iter().take(MAX_SEED));
        }
    }
}

fn pick(entropy: &mut Entropy, below: usize) -> usize {
    usize::try_from(entropy.below(u64::try_from(below).unwrap())).unwrap()
}
