"""The encoding profile, and every message by its table (protocol sections 2, 7 and 8).

Each type knows three things: `view` checks a decoded MessagePack value and gives it in the form of the
vector files, `build` does the opposite. Canonical form is proved by encoding again.
"""

import ipaddress

import msgpack

from crypto import Refused, check_ed25519_key, check_x25519_key, require

MAX_DEPTH = 8


def encode(value):
    return msgpack.packb(value, use_bin_type=True)


def decode(data):
    """One canonical MessagePack value."""
    try:
        value = msgpack.unpackb(data, raw=False, strict_map_key=True)
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise Refused(f"malformed: {error}") from None
    require(depth(value) <= MAX_DEPTH, "nested too deeply")
    require(encode(value) == data, "not in canonical form")
    return value


def depth(value):
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)
    return 0


class Uint:
    def __init__(self, bits, least=0, most=None):
        self.min, self.max = least, 2**bits - 1 if most is None else most

    def view(self, value):
        require(isinstance(value, int) and not isinstance(value, bool), "not an integer")
        require(self.min <= value <= self.max, "an integer out of range")
        return value

    build = view


class Bool:
    def view(self, value):
        require(isinstance(value, bool), "not a boolean")
        return value

    build = view


class Text:
    def __init__(self, bound, rule=lambda text: None):
        self.bound, self.rule = bound, rule

    def view(self, value):
        require(isinstance(value, str), "not a text")
        require(len(value.encode()) <= self.bound, "a text too long")
        self.rule(value)
        return value

    build = view


class Bin:
    def __init__(self, bound, exact=False, rule=lambda data: None):
        self.bound, self.exact, self.rule = bound, exact, rule

    def view(self, value):
        require(isinstance(value, bytes), "not bytes")
        require(len(value) == self.bound if self.exact else len(value) <= self.bound, "wrong length")
        self.rule(value)
        return value.hex()

    def build(self, view):
        data = bytes.fromhex(view)
        self.view(data)
        return data


class Optional:
    def __init__(self, inner):
        self.inner = inner

    def view(self, value):
        return None if value is None else self.inner.view(value)

    def build(self, view):
        return None if view is None else self.inner.build(view)


class List:
    def __init__(self, inner, bound):
        self.inner, self.bound = inner, bound

    def view(self, value):
        require(isinstance(value, list), "not a list")
        require(len(value) <= self.bound, "a list too long")
        return [self.inner.view(element) for element in value]

    def build(self, view):
        return [self.inner.build(element) for element in view]


class Struct:
    def __init__(self, **fields):
        self.fields = fields

    def view(self, value):
        require(isinstance(value, list), "a struct is an array")
        require(len(value) == len(self.fields), "a struct has exactly its fields")
        return {
            name: kind.view(part) for (name, kind), part in zip(self.fields.items(), value)
        }

    def build(self, view):
        require(set(view) == set(self.fields), "other fields than the table says")
        return [kind.build(view[name]) for name, kind in self.fields.items()]


class WithLast:
    """A struct with one more field at its end that is left out, instead of nil, when absent."""

    def __init__(self, base, name, kind):
        self.base, self.name, self.kind = base, name, kind

    def view(self, value):
        require(isinstance(value, list), "a struct is an array")
        if len(value) <= len(self.base.fields):
            return {**self.base.view(value), self.name: None}
        return {**self.base.view(value[:-1]), self.name: self.kind.view(value[-1])}

    def build(self, view):
        rest = {name: part for name, part in view.items() if name != self.name}
        last = view.get(self.name)
        return self.base.build(rest) + ([] if last is None else [self.kind.build(last)])


class Metadata:
    """The one map: text to bytes, keys ascending by their bytes."""

    def view(self, value):
        require(isinstance(value, dict), "not a map")
        require(len(value) <= 16, "too many metadata entries")
        keys = [key.encode() if isinstance(key, str) else None for key in value]
        require(None not in keys, "a metadata key is text")
        require(keys == sorted(set(keys)), "metadata keys are not ascending")
        require(all(1 <= len(key) <= 64 for key in keys), "a metadata key of illegal length")
        return {key: Bin(1024).view(data) for key, data in value.items()}

    def build(self, view):
        return {key: bytes.fromhex(view[key]) for key in sorted(view, key=str.encode)}


def check_dns_name(name):
    require(1 <= len(name) <= 253, "a DNS name of illegal length")
    labels = name.split(".")
    legal = set("abcdefghijklmnopqrstuvwxyz0123456789-")
    for label in labels:
        require(1 <= len(label) <= 63 and set(label) <= legal, "not a DNS name")
        require(label[0] != "-" and label[-1] != "-", "a label with a hyphen at its end")
    require(not labels[-1].isdigit(), "a DNS name that looks like an address")


class Endpoint:
    """`[host, port]`, shown as `host:port`."""

    def view(self, value):
        require(isinstance(value, list) and len(value) == 2, "an endpoint is [host, port]")
        host, port = value[0], Uint(16).view(value[1])
        if isinstance(host, str):
            check_dns_name(host)
        else:
            require(isinstance(host, bytes) and len(host) in (4, 16), "not a host")
            host = str(ipaddress.ip_address(host))
            host = f"[{host}]" if ":" in host else host
        return f"{host}:{port}"

    def build(self, view):
        host, port = view.rsplit(":", 1)
        try:
            host = ipaddress.ip_address(host.strip("[]")).packed
        except ValueError:
            pass
        return [host, int(port)]


class Admission:
    """`[tag, value]`."""

    KINDS = (("session", None), ("token", Bin(16, exact=True)),
             ("proof_of_work", Struct(hour=Uint(64), nonce=Uint(64))))

    def view(self, value):
        require(isinstance(value, list) and len(value) == 2, "an admission is [tag, value]")
        tag, inner = Uint(8).view(value[0]), value[1]
        require(tag < len(self.KINDS), "unknown admission")
        name, kind = self.KINDS[tag]
        if kind is None:
            require(inner is None, "session has no value")
            return {name: None}
        return {name: kind.view(inner)}

    def build(self, view):
        for tag, (name, kind) in enumerate(self.KINDS):
            if name in view:
                return [tag, None if kind is None else kind.build(view[name])]
        raise Refused("unknown admission")


class IdentityPair:
    """`[bin(identity_data), signature]`, shown as its encoded bytes. Verified elsewhere."""

    PAIR = Struct(data=Bin(32 * 1024), signature=Bin(64, exact=True))

    def view(self, value):
        self.PAIR.view(value)
        return encode(value).hex()

    def build(self, view):
        value = decode(bytes.fromhex(view))
        self.PAIR.view(value)
        return value


class AdmissionClass(Uint):
    def __init__(self):
        super().__init__(1)


U8, U16, U32, U64 = Uint(8), Uint(16), Uint(32), Uint(64)
IDENTITY_KEY = Bin(32, exact=True, rule=check_ed25519_key)
X25519_KEY = Bin(32, exact=True, rule=check_x25519_key)
SIGNATURE = Bin(64, exact=True)
ID16, HASH = Bin(16, exact=True), Bin(32, exact=True)
BLOB, KEY_PACKAGE = Bin(3_932_160), Bin(16 * 1024)
ENDPOINT, ADMISSION, IDENTITY = Endpoint(), Admission(), IdentityPair()
RELAY_RECORD = Struct(identity_key=IDENTITY_KEY, endpoints=List(ENDPOINT, 8))
RELAY_LINK = WithLast(RELAY_RECORD, "invite", ID16)

EMPTY = Struct()
RELAY_INFO = Struct(
    limits=Struct(max_blob=U32, max_messages=U32, max_bytes=U64, retention=U32),
    pow_difficulty=U8, time=U64, incarnation=ID16, observed=Optional(ENDPOINT))
REGISTRATION = Struct(endpoints=List(ENDPOINT, 8), ttl=U32, listed=Bool())
COUNT = Struct(count=U32)

MESSAGES = {
    0: ("ERROR", Struct(code=U16, text=Text(256), retry_after=Optional(U32))),
    1: ("PING", EMPTY),
    2: ("PONG", EMPTY),
    3: ("CLOSE", Struct(code=U16)),
    4: ("DONE", EMPTY),
    16: ("RELAY_INFO_REQUEST", EMPTY),
    17: ("RELAY_INFO", RELAY_INFO),
    18: ("RELAY_REGISTER", WithLast(Struct(
        capabilities=Struct(max_message_size=U32, max_storage_duration=U32)), "invite", ID16)),
    19: ("RELAY_REGISTERED", Struct(info=RELAY_INFO, messages=U64, bytes=U64, key_packages=U32)),
    20: ("SET_ADMISSION", Struct(entries=List(
        Struct(token_hash=HASH, **{"class": AdmissionClass()}, daily_quota=U32), 8192))),
    21: ("STORE_MESSAGE", Struct(blob=BLOB, recipients=List(
        Struct(identity_key=IDENTITY_KEY, admission=ADMISSION), 1024))),
    22: ("STORE_RESPONSE", Struct(results=List(Struct(
        refused=Optional(U16), expires_at=Optional(U64), retry_after=Optional(U32)), 1024))),
    23: ("RETRIEVE_MESSAGES", Struct(window=U32)),
    24: ("MESSAGE_BATCH", Struct(messages=List(Struct(
        sequence=U64, blob_id=ID16, stored_at=U64, blob=BLOB), 256), has_more=Bool())),
    25: ("ACK", Struct(sequences=List(U64, 4096))),
    26: ("PUBLISH_KEY_PACKAGES", Struct(
        identity=IDENTITY, key_packages=List(KEY_PACKAGE, 128),
        last_resort=Optional(KEY_PACKAGE), replace=Bool())),
    27: ("KEY_PACKAGE_STOCK", COUNT),
    28: ("TAKE_KEY_PACKAGE", Struct(owner=IDENTITY_KEY, admission=ADMISSION)),
    29: ("KEY_PACKAGE_TAKEN", Struct(identity=IDENTITY, key_package=KEY_PACKAGE)),
    30: ("KEY_PACKAGES_LOW", COUNT),
    32: ("TYPING", Struct(group=ID16, typing=Bool())),
    31: ("CLAIM_MAILBOX", Struct(fresh=ID16, known=List(ID16, 2), started=Bool())),
    64: ("REGISTER", WithLast(Struct(
        identity=IDENTITY, registration=REGISTRATION, signature=SIGNATURE), "invite", ID16)),
    65: ("REGISTERED", Struct(
        expires_at=U64, renewal_interval=U32, observed=Optional(ENDPOINT))),
    66: ("LOOKUP", Struct(
        target=Optional(IDENTITY_KEY), list_all=Bool(), after=Optional(IDENTITY_KEY))),
    67: ("LOOKUP_RESPONSE", Struct(peers=List(Struct(
        identity=IDENTITY, endpoints=List(ENDPOINT, 8), last_seen=U64, online=Bool()), 16),
        has_more=Bool())),
    68: ("LIST_SERVERS", EMPTY),
    69: ("SERVERS", Struct(servers=List(ENDPOINT, 64), time=U64)),
}
NUMBERS = {name: number for number, (name, _) in MESSAGES.items()}


def encode_message(number, request_id, fields):
    return encode([number, request_id, MESSAGES[number][1].build(fields)])


def decode_message(data):
    """Type number, request id and fields."""
    value = decode(data)
    require(isinstance(value, list) and len(value) == 3, "not [type, request_id, body]")
    number, request_id = U8.view(value[0]), U64.view(value[1])
    require(number in MESSAGES, "unknown type")
    return number, request_id, MESSAGES[number][1].view(value[2])
