"""Frames, chunks and the Noise handshake, from both sides (protocol sections 6.1 to 6.6)."""

from noise.connection import Keypair, NoiseConnection

from crypto import Refused, check_x25519_key, ed25519_public, require, sign, verify, x25519_public
from identity import Identity
from wire import SIGNATURE, Bin, decode, encode

HEADER = b"SREMP\x01\x00"
PATTERN = b"Noise_XX_25519_ChaChaPoly_BLAKE2s"
INITIATOR, RESPONDER = 0, 1
CHUNK_PAYLOAD = 16 * 1024
MAX_OPEN = 4
MAX_OPEN_BYTES = 4 * 1024 * 1024 + 64 * 1024


# --- Frames ---

def frame(message):
    require(1 <= len(message) <= 65_535, "a frame has 1 to 65,535 bytes")
    return len(message).to_bytes(2, "little") + message


def split_frames(stream):
    frames = []
    while stream:
        require(len(stream) >= 2, "the stream ends within a length")
        length, stream = int.from_bytes(stream[:2], "little"), stream[2:]
        require(length > 0, "an empty frame")
        require(len(stream) >= length, "the stream ends within a frame")
        frames.append(stream[:length])
        stream = stream[length:]
    return frames


# --- Chunks ---

def cut(message_id, message):
    """The chunks of one message."""
    parts = [message[i:i + CHUNK_PAYLOAD] for i in range(0, len(message), CHUNK_PAYLOAD)]
    return [
        message_id.to_bytes(8, "little") + b"".join(
            number.to_bytes(2, "little") for number in (index, len(parts), len(part))) + part
        for index, part in enumerate(parts)
    ]


class Reassembly:
    """Puts the messages of one direction together again."""

    def __init__(self, max_message):
        self.max_message, self.next_id, self.open = max_message, 0, {}

    def take(self, chunk):
        """The message that the chunk completes, or None."""
        require(len(chunk) >= 14, "a chunk without a whole header")
        message_id = int.from_bytes(chunk[:8], "little")
        index, total, size = (int.from_bytes(chunk[i:i + 2], "little") for i in (8, 10, 12))
        payload = chunk[14:]
        require(size == len(payload), "chunk_size is not the length of the payload")
        require(index < total, "chunk_index is not below total_chunks")
        last = index + 1 == total
        require(0 < size <= CHUNK_PAYLOAD and (last or size == CHUNK_PAYLOAD), "illegal size")
        shortest = (total - 1) * CHUNK_PAYLOAD + (size if last else 1)
        require(shortest <= self.max_message, "the message is too long")
        if message_id == self.next_id:
            require(index == 0, "a message begins with its first chunk")
            self.next_id += 1
            self.open[message_id] = (total, [])
        require(message_id in self.open, "a chunk of a message that is not open")
        announced, parts = self.open[message_id]
        require(total == announced, "the total changed")
        require(index == len(parts), "a chunk out of order")
        parts.append(payload)
        if last:
            del self.open[message_id]
            return b"".join(parts)
        require(len(self.open) <= MAX_OPEN, "too many incomplete messages")
        held = sum(len(part) for _, parts in self.open.values() for part in parts)
        require(held <= MAX_OPEN_BYTES, "too many bytes of incomplete messages")
        return None


# --- The handshake ---

class Local:
    """One side: its identity and its secrets."""

    def __init__(self, identity, identity_secret, noise_secret, ephemeral_secret=None):
        self.identity, self.identity_secret = identity, identity_secret
        self.noise_secret, self.ephemeral_secret = noise_secret, ephemeral_secret


def check_header(header):
    require(len(header) == 7 and header[:5] == HEADER[:5], "not SREMP")
    require(header[5] == HEADER[5], "another major version")


class Handshake:
    """One side of a handshake, until `encrypt` and `decrypt` of its Noise session are of use."""

    def __init__(self, role, local, initiator_header):
        self.role, self.local = role, local
        self.noise = NoiseConnection.from_name(PATTERN)
        if role == INITIATOR:
            self.noise.set_as_initiator()
        else:
            self.noise.set_as_responder()
        self.noise.set_keypair_from_private_bytes(Keypair.STATIC, local.noise_secret)
        if local.ephemeral_secret:
            self.noise.set_keypair_from_private_bytes(Keypair.EPHEMERAL, local.ephemeral_secret)
        self.noise.set_prologue(b"SREMP-noise-v1\0" + initiator_header)
        self.noise.start_handshake()
        self.state = self.noise.noise_protocol.handshake_state
        self.symmetric = self.state.symmetric_state

    def hash(self):
        return bytes(self.symmetric.h)

    def write(self, payload):
        return bytes(self.noise.write_message(payload))

    def read(self, message):
        try:
            return bytes(self.noise.read_message(message))
        except Exception as error:  # The library raises many kinds for one cause.
            raise Refused(f"the Noise message does not decrypt: {error!r}") from None

    def remote_static(self):
        return bytes(self.state.rs.public_bytes)

    def prove(self, peer_key):
        identity = self.local.identity
        noise_key = x25519_public(self.local.noise_secret)
        body = encode([self.role, noise_key, identity.digest, peer_key])
        return sign(self.local.identity_secret, "channel-auth", self.hash(), body)

    def check_peer(self, encoded, proof, hash_before, own_key_named):
        """The peer's identity, once everything about it holds."""
        SIGNATURE.view(proof)
        peer, static = Identity(encoded), self.remote_static()
        own = self.local.identity
        require(peer.key != own.key, "one's own identity")
        require(peer.noise_key == static, "the static key is not the identity's")
        body = encode([1 - self.role, static, peer.digest, own_key_named])
        verify(peer.key, "channel-auth", hash_before, body, proof)
        return peer


class Initiator(Handshake):
    def __init__(self, local, anonymous):
        super().__init__(INITIATOR, local, HEADER)
        self.anonymous = anonymous

    def message_1(self):
        return self.write(b"")

    def finish(self, header, message_2, expect):
        """Message 3 and the responder, after all checks."""
        check_header(header)
        require(len(message_2) >= 96, "message 2 is too short")
        check_x25519_key(message_2[:32])
        hash_1 = self.hash()
        payload = decode(self.read(message_2))
        check_x25519_key(self.remote_static())
        require(isinstance(payload, list) and len(payload) == 3, "payload 2 has three parts")
        inner_header, pair, proof = payload
        Bin(7, exact=True).view(inner_header)
        require(inner_header == header, "the two headers differ")
        peer = self.check_peer(encode(pair), proof, hash_1, None)
        require(expect is None or peer.key == expect, "not who was dialled")
        require(self.remote_static() != x25519_public(self.local.noise_secret), "one's own key")
        payload_3 = None
        if not self.anonymous:
            payload_3 = [decode(self.local.identity.encoded), self.prove(peer.key)]
        return self.write(encode(payload_3)), peer


class Responder(Handshake):
    def __init__(self, local, initiator_header):
        check_header(initiator_header)
        super().__init__(RESPONDER, local, initiator_header)

    def message_2(self, message_1):
        require(len(message_1) == 32, "message 1 is an ephemeral key and nothing else")
        check_x25519_key(message_1)
        self.read(message_1)
        identity = decode(self.local.identity.encoded)
        return self.write(encode([HEADER, identity, self.prove(None)]))

    def finish(self, message_3):
        """The initiator's identity, or None when it shows none."""
        require(len(message_3) >= 64, "message 3 is too short")
        hash_2 = self.hash()
        payload = decode(self.read(message_3))
        check_x25519_key(self.remote_static())
        own_static = x25519_public(self.local.noise_secret)
        require(self.remote_static() != own_static, "one's own key")
        if payload is None:
            return None
        require(isinstance(payload, list) and len(payload) == 2, "payload 3 has two parts")
        return self.check_peer(encode(payload[0]), payload[1], hash_2, self.local.identity.key)


# --- Vectors ---

def pattern(number, length):
    return bytes((i + number) % 251 for i in range(length))


def split_rendezvous_stream(stream):
    """The messages inside a TLS stream (protocol section 10.1)."""
    check_header(stream[:7])
    stream, messages = stream[7:], []
    while stream:
        require(len(stream) >= 4, "the stream ends within a length")
        length, stream = int.from_bytes(stream[:4], "little"), stream[4:]
        require(length <= 65_536, "a message too long")
        require(len(stream) >= length, "the stream ends within a message")
        messages.append(stream[:length])
        stream = stream[length:]
    return messages


def check_chunks(item):
    if item["kind"] == "rendezvous":
        messages = split_rendezvous_stream(bytes.fromhex(item["stream"]))
        if item["valid"]:
            require([message.hex() for message in messages] == item["messages"], "other messages")
            made = b"".join(len(part).to_bytes(4, "little") + part for part in messages)
            require((HEADER + made).hex() == item["stream"], "other stream")
        return
    if item["kind"] == "frames":
        frames = split_frames(bytes.fromhex(item["stream"]))
        if item["valid"]:
            require([part.hex() for part in frames] == item["frames"], "other frames")
            made = b"".join(frame(part) for part in frames)
            require(made.hex() == item["stream"], "other stream")
        return
    messages = [pattern(number, length) for number, length in enumerate(item["lengths"])]
    incoming, completed, ids = Reassembly(item["max_message"]), [], {}
    for piece in item["chunks"]:
        offset, number = piece["offset"], piece["message"]
        payload = messages[number][offset:offset + piece["length"]]
        whole = incoming.take(bytes.fromhex(piece["header"]) + payload)
        ids[number] = int.from_bytes(bytes.fromhex(piece["header"])[:8], "little")
        if whole is not None:
            require(whole == messages[number], "another message comes out")
            completed.append(number)
    if item["valid"]:
        require(completed == item["completed"], "other messages come out")
        for number, message_id in ids.items():
            made = [chunk[:14].hex() for chunk in cut(message_id, messages[number])]
            stood = [p["header"] for p in item["chunks"] if p["message"] == number]
            require(made == stood, "other headers")


def side(item, name):
    secrets = {key: bytes.fromhex(value) for key, value in item[name].items()}
    local = Local(Identity(secrets["identity"]), secrets["identity_secret"],
                  secrets["noise_secret"], secrets["ephemeral_secret"])
    if ed25519_public(local.identity_secret) != local.identity.key:
        raise ValueError("a vector whose secrets do not fit")
    return local


def check_handshake(item):
    get = lambda name: bytes.fromhex(item[name])  # noqa: E731
    if item.get("refused_by") == "responder":
        responder = Responder(side(item, "responder"), get("header_1"))
        responder.message_2(get("message_1"))
        responder.finish(get("message_3"))
        return
    initiator = Initiator(side(item, "initiator"), item["anonymous"])
    require(initiator.message_1() == get("message_1"), "other message 1")
    hash_1 = initiator.hash()
    message_3, _ = initiator.finish(get("header_2"), get("message_2"), get("expect"))
    if item["valid"]:
        require(hash_1 == get("hash_1"), "other handshake hash after message 1")
        require(message_3 == get("message_3"), "other message 3")
        check_as_responder(item, initiator, get)


def check_as_responder(item, initiator, get):
    responder = Responder(side(item, "responder"), get("header_1"))
    require(responder.message_2(get("message_1")) == get("message_2"), "other message 2")
    require(responder.hash() == get("hash_2"), "other handshake hash after message 2")
    caller = responder.finish(get("message_3"))
    expected = None if item["anonymous"] else get_identity(item)
    require((caller and caller.encoded) == expected, "another caller")
    for one in (initiator, responder):
        require(one.hash() == get("hash_3"), "other handshake hash after message 3")
    ids = {"initiator": 0, "responder": 0}
    for step in item["transport"]:
        sender, receiver = (initiator, responder)[::1 if step["from"] == "initiator" else -1]
        chunk, = cut(ids[step["from"]], bytes.fromhex(step["message"]))
        ids[step["from"]] += 1
        require(chunk == bytes.fromhex(step["chunk"]), "another chunk")
        made = frame(bytes(sender.noise.encrypt(chunk)))
        require(made == bytes.fromhex(step["frame"]), "another frame")
        require(bytes(receiver.noise.decrypt(made[2:])) == chunk, "the frame does not open")


def get_identity(item):
    return bytes.fromhex(item["initiator"]["identity"])
