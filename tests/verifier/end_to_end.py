"""What stands inside blobs, and what is derived from it (protocol section 12)."""

from crypto import ed25519_public, labelled_hash, require, sign, verify
from identity import RELAYS, USERNAME, Identity
from wire import (
    ID16, IDENTITY, IDENTITY_KEY, SIGNATURE, U8, U16, U64, X25519_KEY,
    Bin, List, Optional, Struct, Text, Uint, decode, encode,
)

CERTIFICATE = Struct(body=Bin(256), signature=SIGNATURE)
CERTIFICATE_BODY = Struct(
    identity_key=IDENTITY_KEY, device_id=ID16, mls_signature_key=Bin(32, exact=True),
    not_before=U64, not_after=U64)
LEAF = Struct(relays=RELAYS, seal_key=X25519_KEY, token=ID16)
POLICY = Struct(rules=U8, kind=U8, name=Text(160), admins=List(IDENTITY_KEY, 64))
LIFETIME = Uint(32, least=60, most=31_536_000)
CONTENT = Struct(message_id=ID16, kind=U16, lamport=U64, sent_at=U64, body=Bin(66_560))
BODIES = {
    1: Struct(text=Text(65_536), reply_to=Optional(ID16)),
    2: Struct(identity=IDENTITY),
    3: Struct(author=IDENTITY_KEY, target=ID16, reaction=Text(64)),
    4: Struct(target=ID16, text=Text(65_536), lifetime=Optional(LIFETIME)),
    5: Struct(target=ID16),
    6: Struct(lifetime=Optional(LIFETIME)),
    7: Struct(text=Text(65_536), reply_to=Optional(ID16), lifetime=LIFETIME),
}
RECEIPT = Struct(**{"from": IDENTITY_KEY}, body=Bin(9_344), signature=SIGNATURE)
RECEIPT_BODY = Struct(author=IDENTITY_KEY, message_ids=List(ID16, 512), kind=U8, time=U64)
INVITATION = Struct(identity=IDENTITY, welcome=Bin(3 * 1024 * 1024))


def hexed(item, name):
    return bytes.fromhex(item[name])


def parsed(kind, data):
    """The bytes' fields, and the decoded value."""
    value = decode(data)
    return kind.view(value), value


def check_certificate(item):
    _, (body, signature) = parsed(CERTIFICATE, hexed(item, "certificate"))
    fields, value = parsed(CERTIFICATE_BODY, body)
    identity_key, _, leaf_key, *_ = value
    verify(identity_key, "mls-leaf", b"", body, signature)
    require(leaf_key == hexed(item, "leaf_key"), "it certifies another key")
    require(leaf_key != identity_key, "the identity key is the leaf key")
    if item["valid"]:
        require(fields == item["fields"], "other fields")
        require(ed25519_public(hexed(item, "leaf_secret")) == leaf_key, "other leaf key")
        body = encode(CERTIFICATE_BODY.build(item["fields"]))
        made = encode([body, sign(hexed(item, "identity_secret"), "mls-leaf", b"", body)])
        require(made == hexed(item, "certificate"), "other bytes")


def check_leaf(item):
    fields, _ = parsed(LEAF, hexed(item, "bytes"))
    if item["valid"]:
        require(fields == item["fields"], "other fields")
        require(encode(LEAF.build(fields)) == hexed(item, "bytes"), "other bytes")


def check_policy(item):
    fields, _ = parsed(POLICY, hexed(item, "bytes"))
    kind, name, admins = fields["kind"], fields["name"], fields["admins"]
    require(fields["rules"] == 1, "other rules")
    require(kind in (0, 1), "another kind")
    require(admins == sorted(set(admins)), "admins are not ascending")
    if kind == 0:
        require(not name and not admins, "a direct group has neither name nor admins")
    else:
        USERNAME.view(name)
    if item["valid"]:
        require(fields == item["fields"], "other fields")
        require(encode(POLICY.build(fields)) == hexed(item, "bytes"), "other bytes")


def check_content(item):
    fields, value = parsed(CONTENT, hexed(item, "bytes"))
    body = None
    if fields["kind"] in BODIES:
        body, _ = parsed(BODIES[fields["kind"]], value[-1])
    if item["valid"]:
        require(body == item["body"], "another body")
        made = b"" if body is None else encode(BODIES[fields["kind"]].build(body))
        require(fields == {**item["fields"], "body": made.hex()}, "other fields")
        require(encode(CONTENT.build(fields)) == hexed(item, "bytes"), "other bytes")


def check_receipt(item):
    outer, (_, body, signature) = parsed(RECEIPT, hexed(item, "bytes"))
    fields, _ = parsed(RECEIPT_BODY, body)
    require(fields["kind"] in (0, 1), "another kind")
    ctx = encode([hexed(item, "group_id"), item["epoch"]])
    verify(hexed(item, "leaf_key"), "delivery", ctx, body, signature)
    if item["valid"]:
        require(outer["from"] == item["from"], "from somebody else")
        require(fields == item["fields"], "other fields")
        require(sign(hexed(item, "leaf_secret"), "delivery", ctx, body) == signature, "signature")


def check_invitation(item):
    fields, _ = parsed(INVITATION, hexed(item, "bytes"))
    Identity(bytes.fromhex(fields["identity"]))
    require(fields == {name: item[name] for name in fields}, "other fields")


def check_state_id(item):
    made = labelled_hash("state-id", hexed(item, "ctx"), hexed(item, "body"))
    require(made[:16] == hexed(item, "state_id"), "another state id")


def check_safety_number(item):
    keys = b"".join(sorted((hexed(item, "one"), hexed(item, "other"))))
    blocks = []
    for block in range(12):
        made = labelled_hash("safety-number", block.to_bytes(2, "little"), keys)
        blocks.append(f"{int.from_bytes(made[:8], 'little') % 100_000:05}")
    require(" ".join(blocks) == item["number"], "another number")


CHECKS = {
    "certificate": check_certificate,
    "content": check_content,
    "invitation": check_invitation,
    "leaf": check_leaf,
    "policy": check_policy,
    "receipt": check_receipt,
    "safety number": check_safety_number,
    "state id": check_state_id,
}


def check(item):
    CHECKS[item["kind"]](item)
