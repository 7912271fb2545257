"""Labelled input, hashes, strict signatures, keys of small order (protocol section 3)."""

import hashlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

PREFIX = b"SREMP-v1\0"


class Refused(Exception):
    """The bytes break a rule of the protocol."""


def require(condition, rule):
    if not condition:
        raise Refused(rule)


def labelled_input(label, ctx, body):
    name = label.encode("ascii")
    return b"".join(
        (
            PREFIX,
            len(name).to_bytes(1, "little"),
            name,
            len(ctx).to_bytes(2, "little"),
            ctx,
            len(body).to_bytes(4, "little"),
            body,
        )
    )


def sha256(data):
    return hashlib.sha256(data).digest()


def labelled_hash(label, ctx, body):
    return sha256(labelled_input(label, ctx, body))


def raw(public_key):
    return public_key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def ed25519_public(seed):
    return raw(Ed25519PrivateKey.from_private_bytes(seed).public_key())


def x25519_public(secret):
    return raw(X25519PrivateKey.from_private_bytes(secret).public_key())


def sign(seed, label, ctx, body):
    return Ed25519PrivateKey.from_private_bytes(seed).sign(labelled_input(label, ctx, body))


def verify(public, label, ctx, body, signature):
    """Strict: neither key nor R of small order, canonical encodings, cofactorless equation."""
    check_ed25519_key(public)
    require(len(signature) == 64, "a signature has 64 bytes")
    require(not has_small_order(decompress(signature[:32])), "R has small order")
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(
            signature, labelled_input(label, ctx, body)
        )
    except InvalidSignature:
        raise Refused("the signature does not hold") from None


# --- Edwards25519, as far as judging a public key needs it (RFC 8032 section 5.1) ---

P = 2**255 - 19
D = -121665 * pow(121666, P - 2, P) % P
SQRT_MINUS_1 = pow(2, (P - 1) // 4, P)


def decompress(encoded):
    """The point (x, y) of a canonical encoding."""
    require(len(encoded) == 32, "a point has 32 bytes")
    y = int.from_bytes(encoded, "little")
    sign_bit, y = y >> 255, y & ((1 << 255) - 1)
    require(y < P, "a point in an encoding that is not canonical")
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * SQRT_MINUS_1 % P
    require((x * x - square) % P == 0, "not a point on the curve")
    require(x or not sign_bit, "a point in an encoding that is not canonical")
    if x & 1 != sign_bit:
        x = P - x
    return x, y


def double(point):
    x, y = point
    product = D * x * x * y * y % P
    return (
        2 * x * y * pow(1 + product, P - 2, P) % P,
        (y * y + x * x) * pow(1 - product, P - 2, P) % P,
    )


def has_small_order(point):
    return double(double(double(point))) == (0, 1)


def check_ed25519_key(encoded):
    require(not has_small_order(decompress(encoded)), "a key of small order")


def check_x25519_key(encoded):
    require(len(encoded) == 32, "an X25519 key has 32 bytes")
    try:
        secret = X25519PrivateKey.from_private_bytes(b"\x40" * 32)
        shared = secret.exchange(X25519PublicKey.from_public_bytes(encoded))
    except ValueError:
        raise Refused("a key of small order") from None
    require(any(shared), "a key of small order")
