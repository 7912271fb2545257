//! The golden envelopes of `tests/vectors/sealed.json`: ours open and are made again byte for byte,
//! mutations do not open.

use serde_json::Value;
use sremp_common::id::unhex;

use crate::groups::wrap::{Blob, WrapKeys};

#[test]
fn wrapped_blobs_are_the_golden_ones() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/sealed.json");
    let file: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let items = file["items"].as_array().unwrap();
    let wrapped: Vec<&Value> = items.iter().filter(|item| item["kind"] == "wrap").collect();
    assert!(wrapped.len() > 10);
    for item in wrapped {
        let bytes = |name: &str| unhex(item[name].as_str().unwrap()).unwrap();
        let (keys, blob) = (WrapKeys::derive(&bytes("exporter")), bytes("blob"));
        let parsed = Blob::parse(&blob).filter(|blob| keys.matches(blob));
        let opened = parsed.and_then(|blob| keys.unwrap(&blob));
        if item["valid"] == false {
            assert_eq!(opened, None, "{}", item["name"]);
            continue;
        }
        let (kind, content) = opened.unwrap();
        assert_eq!(
            (u64::from(kind), &content),
            (item["content_kind"].as_u64().unwrap(), &bytes("content"))
        );
        let nonce = *blob.first_chunk().unwrap();
        assert_eq!(keys.wrap(nonce, kind, &content), Some(blob), "{}", item["name"]);
    }
}
