"""Identities and text forms (protocol sections 4 and 5)."""

import unicodedata

from crypto import Refused, require, sha256, verify
from wire import (
    ENDPOINT, ID16, IDENTITY, IDENTITY_KEY, RELAY_LINK, RELAY_RECORD, U64, X25519_KEY,
    Bin, Bool, List, Metadata, Optional, Struct, Text, decode, encode,
)


def check_name(name):
    require(1 <= len(name) <= 40, "a name has 1 to 40 characters")
    require(unicodedata.is_normalized("NFC", name), "a name is in NFC")
    require(name == name.strip(" ") and "  " not in name, "spaces only between words")
    marks = 0
    for character in name:
        category = unicodedata.category(character)
        forbidden = category in ("Cc", "Co", "Cs", "Cn", "Zl", "Zp")
        forbidden |= category == "Cf" and character != "\u200d"
        forbidden |= category == "Zs" and character != " "
        require(not forbidden, f"a name does not contain U+{ord(character):04X}")
        marks = marks + 1 if category.startswith("M") else 0
        require(marks <= 2, "at most two marks in a row")


USERNAME = Text(160, check_name)
FLAGS = Struct(uses_relay=Bool(), is_machine_account=Bool(), is_relay_server=Bool(),
               prefers_async=Bool())
EXTENSIONS = Struct(profile_picture=Optional(Bin(16 * 1024)),
                    additional_metadata=Optional(Metadata()))
IDENTITY_DATA = Struct(
    username=USERNAME, identity_key=IDENTITY_KEY, noise_key=X25519_KEY, flags=FLAGS,
    extensions=Optional(EXTENSIONS), version=U64, created=U64)
RELAYS = List(RELAY_RECORD, 4)
CONTACT_LINK = Struct(
    identity_key=IDENTITY_KEY, name=USERNAME, addresses=List(ENDPOINT, 8), relays=RELAYS,
    rendezvous=List(ENDPOINT, 4), token=Optional(ID16))


class Identity:
    """A verified identity: its encoded bytes and its fields."""

    def __init__(self, encoded):
        pair = decode(encoded)
        IDENTITY.view(pair)
        data, signature = pair
        self.encoded, self.digest = encoded, sha256(encoded)
        self.fields = IDENTITY_DATA.view(decode(data))
        self.key = bytes.fromhex(self.fields["identity_key"])
        self.noise_key = bytes.fromhex(self.fields["noise_key"])
        verify(self.key, "identity", b"", data, signature)
        require(self.fields["version"] > 0, "version 0")
        metadata = (self.fields["extensions"] or {}).get("additional_metadata") or {}
        relays = decode(bytes.fromhex(metadata.get("relays", "90")))
        RELAYS.view(relays)
        self.relays = [encode(relay).hex() for relay in relays]
        self.seal_key = metadata.get("seal_key")
        if self.seal_key is not None:
            X25519_KEY.view(bytes.fromhex(self.seal_key))


# --- Bech32m (BIP 350), without its limit of 90 characters ---

ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
BECH32M = 0x2BC830A3
MAX_TEXT_FORM = 4096
PREFIXES = {"id": "sremp", "contact link": "sremplink", "relay link": "sremprelay",
            "invitation": "srempinvite"}


def polymod(values):
    checksum = 1
    for value in values:
        top = checksum >> 25
        checksum = (checksum & 0x1FFFFFF) << 5 ^ value
        for bit, term in enumerate(GENERATOR):
            checksum ^= term if top >> bit & 1 else 0
    return checksum


def expanded(prefix):
    return [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix]


def regroup(values, from_bits, to_bits, pad):
    collected = bits = 0
    result = []
    for value in values:
        collected, bits = collected << from_bits | value, bits + from_bits
        while bits >= to_bits:
            bits -= to_bits
            result.append(collected >> bits & (1 << to_bits) - 1)
        collected &= (1 << bits) - 1
    if pad and bits:
        result.append(collected << to_bits - bits)
    if not pad:
        require(bits < from_bits and collected == 0, "padding is not zero")
    return result


def to_text(role, content):
    prefix = PREFIXES[role]
    values = regroup(content, 8, 5, pad=True)
    checksum = polymod(expanded(prefix) + values + [0] * 6) ^ BECH32M
    values += [checksum >> 5 * (5 - i) & 31 for i in range(6)]
    return prefix + "1" + "".join(ALPHABET[value] for value in values)


def from_text(role, text):
    """The content of a text form, checked for its role."""
    text = text.strip()
    require(len(text) <= MAX_TEXT_FORM, "too long")
    require(text in (text.lower(), text.upper()), "mixed case")
    prefix, separator, data = text.lower().rpartition("1")
    require(separator and prefix == PREFIXES[role], "another role")
    require(set(data) <= set(ALPHABET) and len(data) >= 6, "not a character of the alphabet")
    values = [ALPHABET.index(character) for character in data]
    require(polymod(expanded(prefix) + values) == BECH32M, "the checksum does not match")
    content = bytes(regroup(values[:-6], 5, 8, pad=False))
    if role == "id":
        IDENTITY_KEY.view(content)
    elif role == "invitation":
        require(len(content) == 16, "an invitation has 16 bytes")
    else:
        (CONTACT_LINK if role == "contact link" else RELAY_LINK).view(decode(content))
    return content


__all__ = ["Identity", "Refused", "from_text", "to_text"]
