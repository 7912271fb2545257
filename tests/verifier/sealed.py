"""Wrapped and sealed blobs (protocol sections 12.4 and 12.5)."""

import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from crypto import Refused, labelled_hash, require, x25519_public

MAX_BLOB = 3_932_160
OVERHEAD = 48
HEAD = 5
INFO = b"SREMP-seal-v1"


def padded_length(length):
    """Of the padded bytes of so many bytes."""
    needed, size = length + HEAD + OVERHEAD, 256
    while size < needed:
        size *= 2
    return min(size, MAX_BLOB) - OVERHEAD


def pad(kind, data):
    head = struct.pack("<BI", kind, len(data))
    return (head + data).ljust(padded_length(len(data)), b"\0")


def unpad(padded):
    require(len(padded) >= HEAD, "padded bytes without a head")
    kind, length = struct.unpack_from("<BI", padded)
    data, zeros = padded[HEAD:HEAD + length], padded[HEAD + length:]
    require(len(data) == length, "shorter than announced")
    require(not any(zeros), "padding is not zero")
    require(len(padded) == padded_length(length), "another bucket")
    return kind, data


# --- XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03) ---

def quarter_round(state, a, b, c, d):
    for add_to, add, mix, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        state[add_to] = (state[add_to] + state[add]) & 0xFFFFFFFF
        mixed = state[mix] ^ state[add_to]
        state[mix] = (mixed << turn | mixed >> 32 - turn) & 0xFFFFFFFF


def hchacha20(key, nonce):
    state = list(struct.unpack("<16I", b"expand 32-byte k" + key + nonce))
    for _ in range(10):
        for column in range(4):
            quarter_round(state, column, 4 + column, 8 + column, 12 + column)
        for start in range(4):
            quarter_round(state, start, 4 + (start + 1) % 4, 8 + (start + 2) % 4,
                          12 + (start + 3) % 4)
    return struct.pack("<8I", *state[:4], *state[12:])


def xchacha20(key, nonce):
    """Cipher and inner nonce."""
    return ChaCha20Poly1305(hchacha20(key, nonce[:16])), bytes(4) + nonce[16:]


# --- Wrap ---

def siphash24(key, data):
    """SipHash-2-4 (Aumasson, Bernstein: SipHash: a fast short-input PRF), 8 bytes little-endian."""
    mask = (1 << 64) - 1
    k0, k1 = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")
    v = [
        k0 ^ 0x736F6D6570736575,
        k1 ^ 0x646F72616E646F6D,
        k0 ^ 0x6C7967656E657261,
        k1 ^ 0x7465646279746573,
    ]

    def rotate(x, bits):
        return (x << bits | x >> (64 - bits)) & mask

    def rounds(count):
        for _ in range(count):
            v[0] = (v[0] + v[1]) & mask
            v[2] = (v[2] + v[3]) & mask
            v[1] = rotate(v[1], 13) ^ v[0]
            v[3] = rotate(v[3], 16) ^ v[2]
            v[0] = rotate(v[0], 32)
            v[2] = (v[2] + v[1]) & mask
            v[0] = (v[0] + v[3]) & mask
            v[1] = rotate(v[1], 17) ^ v[2]
            v[3] = rotate(v[3], 21) ^ v[0]
            v[2] = rotate(v[2], 32)

    whole = len(data) // 8 * 8
    last = data[whole:] + bytes(7 - len(data) % 8) + bytes([len(data) % 256])
    for at in range(0, whole, 8):
        word = int.from_bytes(data[at : at + 8], "little")
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    word = int.from_bytes(last, "little")
    v[3] ^= word
    rounds(2)
    v[0] ^= word
    v[2] ^= 0xFF
    rounds(4)
    return (v[0] ^ v[1] ^ v[2] ^ v[3]).to_bytes(8, "little")


def wrap_keys(exporter):
    return labelled_hash("wrap", b"", exporter), labelled_hash("tag", b"", exporter)[:16]


def wrap(exporter, nonce, kind, data):
    wrap_key, tag_key = wrap_keys(exporter)
    tag = siphash24(tag_key, nonce)
    cipher, inner = xchacha20(wrap_key, nonce)
    return nonce + tag + cipher.encrypt(inner, pad(kind, data), tag)


def unwrap(exporter, blob):
    wrap_key, tag_key = wrap_keys(exporter)
    nonce, tag, sealed = blob[:24], blob[24:32], blob[32:]
    require(len(tag) == 8, "shorter than nonce and tag")
    require(siphash24(tag_key, nonce) == tag, "the tag of no state")
    cipher, inner = xchacha20(wrap_key, nonce)
    try:
        return unpad(cipher.decrypt(inner, sealed, tag))
    except InvalidTag:
        raise Refused("the blob does not decrypt") from None


# --- Seal ---

SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)


def seal(seal_key, kind, data):
    return SUITE.encrypt(pad(kind, data), seal_key, INFO)


def unseal(secret, blob):
    try:
        return unpad(SUITE.decrypt(blob, X25519PrivateKey.from_private_bytes(secret), INFO))
    except (InvalidTag, ValueError):
        raise Refused("the blob does not open") from None


# --- Vectors ---

def check(item):
    get = lambda name: bytes.fromhex(item[name])  # noqa: E731
    if item["kind"] == "wrap":
        opened = unwrap(get("exporter"), get("blob"))
    else:
        if item["valid"]:
            require(x25519_public(get("secret")) == get("public"), "other public key")
        opened = unseal(get("secret"), get("blob"))
    if not item["valid"]:
        return
    content = get("content")
    require(opened == (item["content_kind"], content), "other content")
    if item["kind"] == "wrap":
        made = wrap(get("exporter"), get("blob")[:24], item["content_kind"], content)
        require(made == get("blob"), "another blob")
        names = ("wrap_key", "tag_key")
        require(wrap_keys(get("exporter")) == tuple(map(get, names)), "other keys")
