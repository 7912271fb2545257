"""Checks every file of `tests/vectors/`: valid items must hold and be reproduced, mutations must fail."""

import json
import pathlib

import end_to_end
import handshake
import sealed
from crypto import (
    Refused, ed25519_public, labelled_hash, labelled_input, require, sha256, sign, verify,
)
from identity import IDENTITY_DATA, Identity, from_text, to_text
from wire import REGISTRATION, decode, decode_message, encode, encode_message


def unhex(item, name):
    return bytes.fromhex(item[name])


def check_signature(item):
    body = unhex(item, "body") if "body" in item else bytes(
        i % 251 for i in range(item["body_length"]))
    label, ctx = item["label"], unhex(item, "ctx")
    if item["valid"]:
        signed = labelled_input(label, ctx, body)
        if "input" in item:
            require(signed == unhex(item, "input"), "other input bytes")
        else:
            require(sha256(signed) == unhex(item, "input_sha256"), "other input bytes")
        seed = unhex(item, "secret")
        require(ed25519_public(seed) == unhex(item, "public"), "other public key")
        require(sign(seed, label, ctx, body) == unhex(item, "signature"), "other signature")
    verify(unhex(item, "public"), label, ctx, body, unhex(item, "signature"))


def check_hash(item):
    kind = item["kind"]
    if kind == "labelled":
        made = labelled_hash(item["label"], unhex(item, "ctx"), unhex(item, "body"))
        require(made == unhex(item, "hash"), "other hash")
    elif kind == "blob id":
        made = labelled_hash("blob-id", unhex(item, "recipient"), unhex(item, "blob"))
        require(made[:16] == unhex(item, "blob_id"), "other blob id")
    elif kind == "token hash":
        made = labelled_hash("token-hash", b"", unhex(item, "token"))
        require(made == unhex(item, "hash"), "other token hash")
    elif kind == "proof of work":
        bits = proof_bits(unhex(item, "relay"), unhex(item, "recipient"),
                          bytes.fromhex(item["blob_id"] or ""), item["hour"], item["nonce"])
        require(bits == item["zero_bits"], "other number of zero bits")
        require(bits >= item["difficulty"], "too little work")
    else:
        raise ValueError(f"unknown kind {kind}")


def proof_bits(relay, recipient, blob_id, hour, nonce):
    subject = blob_id or recipient
    body = recipient + subject + hour.to_bytes(8, "little") + nonce.to_bytes(8, "little")
    return 256 - int.from_bytes(labelled_hash("pow", relay, body), "big").bit_length()


def check_identity(item):
    identity = Identity(unhex(item, "identity"))
    if item["valid"]:
        require(identity.fields == item["fields"], "other fields")
        require(identity.digest == unhex(item, "digest"), "other digest")
        require(identity.relays == item["relays"], "other relays")
        require(identity.seal_key == item["seal_key"], "other seal key")
        data = encode(IDENTITY_DATA.build(item["fields"]))
        made = encode([data, sign(unhex(item, "secret"), "identity", b"", data)])
        require(made == identity.encoded, "other bytes")


def check_text(item):
    content = from_text(item["role"], item["text"])
    if item["valid"]:
        require(content == unhex(item, "content"), "other content")
        require(to_text(item["role"], content) == item["text"].lower(), "other text")


def check_message(item):
    number, request_id, fields = decode_message(unhex(item, "bytes"))
    if item["valid"]:
        require((number, request_id) == (item["type"], item["request_id"]), "other envelope")
        require(fields == item["fields"], "other fields")
        made = encode_message(number, request_id, item["fields"])
        require(made == unhex(item, "bytes"), "other bytes")


def check_registration(item):
    identity = Identity(unhex(item, "identity"))
    registration = decode(unhex(item, "registration"))
    REGISTRATION.view(registration)
    body = encode([identity.digest, *registration])
    require(body == unhex(item, "body"), "other body")
    verify(identity.key, "rdv-register", unhex(item, "exporter"), body, unhex(item, "signature"))


CHECKS = {
    "chunks.json": handshake.check_chunks,
    "end_to_end.json": end_to_end.check,
    "handshakes.json": handshake.check_handshake,
    "hashes.json": check_hash,
    "identities.json": check_identity,
    "messages.json": check_message,
    "registrations.json": check_registration,
    "sealed.json": sealed.check,
    "signatures.json": check_signature,
    "texts.json": check_text,
}


def holds(check, item):
    """Whether the item verifies; anything but a refusal is a defect of the verifier."""
    try:
        check(item)
    except Refused as refusal:
        return False, str(refusal)
    return True, "accepted"


def run(folder):
    """Prints one line for each file; gives the number of items that are wrong."""
    files = {path.name: path for path in pathlib.Path(folder).glob("*.json")}
    wrong = [f"{name}: no such file" for name in sorted(CHECKS.keys() - files.keys())]
    wrong += [f"{name}: nobody checks it" for name in sorted(files.keys() - CHECKS.keys())]
    totals = {True: 0, False: 0}
    for name in sorted(CHECKS.keys() & files.keys()):
        counts = {True: 0, False: 0}
        for item in json.loads(files[name].read_text(encoding="utf-8"))["items"]:
            accepted, why = holds(CHECKS[name], item)
            counts[item["valid"]] += 1
            if accepted != item["valid"]:
                wrong.append(f"{name}: {item['name']}: {why}")
        print(f"{name:20} {counts[True]:4} valid {counts[False]:4} mutated")
        totals = {kind: totals[kind] + counts[kind] for kind in totals}
    print(f"{'together':20} {totals[True]:4} valid {totals[False]:4} mutated")
    if sum(totals.values()) < 200 or not all(totals.values()):
        wrong.append("too few vectors to prove anything")
    for line in wrong:
        print(f"WRONG {line}")
    return len(wrong)
