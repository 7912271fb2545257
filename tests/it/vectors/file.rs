//! One file of vectors: items with a name, each marked as valid or as a mutation.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

/// One JSON file in `tests/vectors/`.
pub(super) struct File {
    pub(super) name: &'static str,
    about: &'static str,
    items: Vec<Value>,
    names: BTreeSet<String>,
}

impl File {
    pub(super) fn new(name: &'static str, about: &'static str) -> Self {
        Self { name, about, items: Vec::new(), names: BTreeSet::new() }
    }

    /// An item that a correct implementation accepts and reproduces.
    pub(super) fn valid(&mut self, name: &str, fields: Value) {
        self.push(name, true, fields);
    }

    /// An item that a correct implementation refuses, and why.
    pub(super) fn mutated(&mut self, name: &str, why: &str, mut fields: Value) {
        fields["why"] = why.into();
        self.push(name, false, fields);
    }

    fn push(&mut self, name: &str, valid: bool, fields: Value) {
        assert!(self.names.insert(name.to_owned()), "two vectors are called {name}");
        let mut item = Map::new();
        item.insert("name".into(), name.into());
        item.insert("valid".into(), valid.into());
        item.extend(fields.as_object().unwrap().clone());
        self.items.push(item.into());
    }

    pub(super) fn count(&self, valid: bool) -> usize {
        self.items.iter().filter(|item| item["valid"] == valid).count()
    }

    /// Pretty JSON with a newline at the end; keys sorted, so the same for every run.
    pub(super) fn to_text(&self) -> String {
        let whole = json!({ "about": self.about, "items": self.items });
        serde_json::to_string_pretty(&whole).unwrap() + "\n"
    }
}
