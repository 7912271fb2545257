//! `registrations.json`: registrations signed over a TLS exporter, and what a registry must refuse.

use serde_json::json;
use sremp_common::id::{SignatureBytes, hex};
use sremp_common::wire::{List, Registration, encode, registration_body};

use super::cast::{Actor, alice, bob, endpoint_list, mallory};
use super::file::File;
use super::mutate::flip;

pub(super) fn file() -> File {
    let mut file = File::new(
        "registrations.json",
        "The signature of REGISTER over the TLS exporter. Protocol section 10.2.",
    );
    let endpoints = endpoint_list(&["192.0.2.1:7330", "alice.example.org:7330"]);
    let listed = Registration { endpoints, ttl: 3_600, listed: true };
    let quiet = Registration { endpoints: List::default(), ttl: 60, listed: false };
    for (name, actor, registration) in
        [("alice, listed", alice(), listed), ("bob, quiet", bob(), quiet)]
    {
        let case = Case { exporter: [0xE1; 32], registration, signature: None };
        let signature = case.sign(&actor);
        let case = Case { signature: Some(signature), ..case };
        file.valid(name, case.describe(&actor));
        let mut refuse = |what: &str, why: &str, case: Case, actor: &Actor| {
            assert!(!case.holds(actor), "{what} holds");
            file.mutated(&format!("{name}, {what}"), why, case.describe(actor));
        };
        let elsewhere = Case { exporter: [0xE2; 32], ..case.clone() };
        refuse("other connection", "replayed on another connection", elsewhere, &actor);
        refuse("other identity", "the signature of somebody else", case.clone(), &mallory());
        let mut longer = case.clone();
        longer.registration.ttl = 86_400;
        refuse("other ttl", "the ttl is signed", longer, &actor);
        let mut shown = case.clone();
        shown.registration.listed = !shown.registration.listed;
        refuse("other listing", "whether it is listed is signed", shown, &actor);
        let mut moved = case.clone();
        moved.registration.endpoints = endpoint_list(&["192.0.2.66:7330"]);
        refuse("other endpoints", "the endpoints are signed", moved, &actor);
        let damaged: [u8; 64] = flip(signature.as_bytes(), 63, 0).try_into().unwrap();
        let damaged = Case { signature: Some(SignatureBytes::new(damaged)), ..case };
        refuse("other signature", "one bit differs", damaged, &actor);
    }
    file
}

#[derive(Clone)]
struct Case {
    exporter: [u8; 32],
    registration: Registration,
    signature: Option<SignatureBytes>,
}

impl Case {
    fn body(&self, actor: &Actor) -> Vec<u8> {
        registration_body(actor.identity.identity(), &self.registration)
    }

    fn sign(&self, actor: &Actor) -> SignatureBytes {
        self.registration.sign(&actor.identity_secret, actor.identity.identity(), &self.exporter)
    }

    fn holds(&self, actor: &Actor) -> bool {
        let signature = self.signature.unwrap();
        self.registration.verify(&signature, &actor.identity, &self.exporter).is_ok()
    }

    fn describe(&self, actor: &Actor) -> serde_json::Value {
        json!({
            "exporter": hex(&self.exporter),
            "identity": hex(&encode(actor.identity.identity())),
            "registration": hex(&encode(&self.registration)),
            "body": hex(&self.body(actor)),
            "signature": self.signature.unwrap().to_string(),
        })
    }
}
