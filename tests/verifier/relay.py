"""Uses a relay that runs, as an owner and as strangers would, and checks every answer
(protocol sections 6 and 9)."""

import os
import time

from crypto import Refused, labelled_hash, require
from handshake import HEADER, Initiator, frame
from identity import from_text
from session import Session, Stream, make_local
from vectors import proof_bits
from wire import NUMBERS, RELAY_LINK, decode

NOT_ALLOWED, UNSUPPORTED, NOT_ADMITTED, NOT_FOUND, VERSION_MISMATCH = 3, 2, 5, 6, 15
WINDOW = 1024 * 1024


class Relay:
    """Where it is, who it is, and what we know of it."""

    def __init__(self, address, link):
        record = RELAY_LINK.view(decode(from_text("relay link", link)))
        self.address, self.key = address, bytes.fromhex(record["identity_key"])
        self.owner = make_local("verifier")
        self.token = os.urandom(16)
        self.info = None

    def identified(self, local=None):
        return Session(self.address, local or self.owner, self.key)

    def anonymous(self):
        return Session(self.address, self.owner, self.key, anonymous=True)

    def recipient(self, admission, owner=None):
        key = (owner or self.owner).identity.key
        return {"identity_key": key.hex(), "admission": admission}

    def with_token(self):
        return {"token": self.token.hex()}

    def blob_id(self, blob):
        return labelled_hash("blob-id", self.owner.identity.key, blob)[:16].hex()


def handshake(relay):
    """the handshake: its identity is the link's, and it says that it is a relay"""
    session = relay.identified()
    require(session.peer.fields["flags"]["is_relay_server"], "the flag is_relay_server is not set")
    require(session.call("PING", "PONG") == {}, "a probe is answered")
    session.close()


def somebody_else_dialled(relay):
    """somebody else dialled: we break off before message 3"""
    stranger = make_local("stranger")
    try:
        Session(relay.address, relay.owner, stranger.identity.key)
    except Refused as refusal:
        require("dialled" in str(refusal), f"refused for another reason: {refusal}")
    else:
        raise Refused("another identity was accepted")


def version_2(relay):
    """another major version: it shows its own header and closes"""
    stream = Stream(relay.address)
    stream.send(b"SREMP\x02\x00")
    require(stream.read(7) == HEADER, "it does not show its version")
    require(stream.is_at_end(), "it goes on")
    stream.close()


def another_protocol(relay):
    """another protocol: it says nothing and closes"""
    stream = Stream(relay.address)
    stream.send(b"GET / HTTP/1.1\r\n\r\n")
    require(stream.is_at_end(), "it answers")
    stream.close()


def damaged_message_3(relay):
    """a damaged message 3: it closes"""
    stream, initiator = Stream(relay.address), Initiator(relay.owner, False)
    stream.send(HEADER + frame(initiator.message_1()))
    message_3, _ = initiator.finish(stream.read(7), stream.read_frame(), relay.key)
    stream.send(frame(message_3[:-1] + bytes([message_3[-1] ^ 1])))
    require(stream.is_at_end(), "it goes on")
    stream.close()


def damaged_frame(relay):
    """a damaged frame: the session ends"""
    session = relay.identified()
    session.call("PING", "PONG")
    session.stream.send(frame(os.urandom(64)))
    require(session.stream.is_at_end(), "it goes on")
    session.stream.close()


def unknown_type(relay):
    """an unknown type: refused as unsupported, and the session stays"""
    session = relay.identified()
    session.send_raw(b"\x93\x7b\x00\x90")
    number, fields = session.answer_to(0)
    require(number == NUMBERS["ERROR"] and fields["code"] == UNSUPPORTED, "not refused")
    session.next_request = 2
    require(session.refused("LIST_SERVERS") == UNSUPPORTED, "a rendezvous request is served")
    session.call("PING", "PONG")
    session.close()


def information(relay):
    """its information: the same for everybody"""
    session = relay.anonymous()
    relay.info = session.call("RELAY_INFO_REQUEST", "RELAY_INFO")
    require(abs(relay.info["time"] / 1000 - time.time()) < 3600, "its clock is an hour off")
    require(relay.info["limits"]["max_blob"] <= 3_932_160, "a limit beyond the protocol's")
    require(relay.info["observed"] is not None, "it does not say where we come from")
    session.close()


def nothing_before_register(relay):
    """before the mailbox is open its owner is refused, and so is everybody else"""
    session = relay.identified()
    require(session.refused("SET_ADMISSION", entries=[]) == NOT_ALLOWED, "tokens are taken")
    require(session.refused("RETRIEVE_MESSAGES", window=WINDOW) == NOT_ALLOWED, "it can be read")
    recipients = [relay.recipient({"session": None})]
    result, = session.call("STORE_MESSAGE", "STORE_RESPONSE", blob="00", recipients=recipients)[
        "results"]
    require(result["refused"] == NOT_ADMITTED, "a blob is stored")
    session.close()


def register(relay):
    """the mailbox is opened and admits a token"""
    session = relay.identified()
    wishes = {"max_message_size": 2**31, "max_storage_duration": 86_400}
    answer = session.call("RELAY_REGISTER", "RELAY_REGISTERED", capabilities=wishes)
    require(answer["info"]["incarnation"] == relay.info["incarnation"], "another incarnation")
    require(answer["info"]["limits"]["retention"] == 86_400, "the owner's wish is not heard")
    counts = (answer["messages"], answer["bytes"], answer["key_packages"])
    require(counts == (0, 0, 0), "the mailbox is not empty")
    entry = {"token_hash": labelled_hash("token-hash", b"", relay.token).hex(), "class": 0,
             "daily_quota": 0}
    session.call("SET_ADMISSION", "DONE", entries=[entry])
    session.close()


def anonymous_is_restricted(relay):
    """an anonymous session may not register: refused, and closed"""
    session = relay.anonymous()
    wishes = {"max_message_size": 1, "max_storage_duration": 1}
    code = session.refused("RELAY_REGISTER", capabilities=wishes)
    require(code == NOT_ALLOWED, "not refused")
    number, _, fields = session.receive()
    require(number == NUMBERS["CLOSE"] and fields["code"] == NOT_ALLOWED, "not closed")
    require(session.stream.is_at_end(), "it goes on")
    session.stream.close()


BLOBS = [os.urandom(256), os.urandom(40_000)]


def store(relay, session, blob, admission, owner=None):
    recipients = [relay.recipient(admission, owner)]
    answer = session.call(
        "STORE_MESSAGE", "STORE_RESPONSE", blob=blob.hex(), recipients=recipients)
    result, = answer["results"]
    return result


def store_by_token(relay):
    """a stranger to the relay stores with the token; storing again changes nothing"""
    session = relay.anonymous()
    for blob in BLOBS:
        first = store(relay, session, blob, relay.with_token())
        require(first["refused"] is None, f"refused: {first}")
        in_a_day = first["expires_at"] / 1000 - time.time() - 86_400
        require(abs(in_a_day) < 3600, "it does not expire as its owner wished")
        again = store(relay, session, blob, relay.with_token())
        require(again["refused"] is None, f"refused: {again}")
        require(again["expires_at"] == first["expires_at"], "it was stored twice")
    session.close()


def unadmitted(relay):
    """without the right token, or a mailbox, or enough work, the answer is always the same"""
    session, nobody = relay.anonymous(), make_local("nobody")
    blob = os.urandom(256)
    for admission, owner in [
        ({"token": os.urandom(16).hex()}, None),
        ({"session": None}, None),
        (relay.with_token(), nobody),
        ({"proof_of_work": {"hour": 0, "nonce": 0}}, None),
    ]:
        result = store(relay, session, blob, admission, owner)
        require(result["refused"] == NOT_ADMITTED, f"{admission}: {result}")
        require(result["expires_at"] is None, "a refused blob expires")
    session.close()


def proof_of_work(relay):
    """work admits a blob, once it is enough"""
    difficulty, hour = relay.info["pow_difficulty"], relay.info["time"] // 3_600_000
    require(0 < difficulty <= 20, f"difficulty {difficulty}: this relay cannot be tested here")
    session, blob = relay.anonymous(), os.urandom(256)
    blob_id = bytes.fromhex(relay.blob_id(blob))
    tried = dict.fromkeys(("too little", "enough"))
    for nonce in range(2**30):
        bits = proof_bits(relay.key, relay.owner.identity.key, blob_id, hour, nonce)
        tried["enough" if bits >= difficulty else "too little"] = nonce
        if None not in tried.values():
            break
    for amount, expected in (("too little", NOT_ADMITTED), ("enough", None)):
        work = {"proof_of_work": {"hour": hour, "nonce": tried[amount]}}
        result = store(relay, session, blob, work)
        require(result["refused"] == expected, f"{amount}: {result}")
    BLOBS.append(blob)
    session.close()


def read_batches(relay, session, request_id, count):
    """So many messages from pushes under one request, each checked."""
    messages = []
    while len(messages) < count:
        number, fields = session.answer_to(request_id)
        require(number == NUMBERS["MESSAGE_BATCH"], f"type {number} instead of a batch")
        messages += fields["messages"]
    sequences = [message["sequence"] for message in messages]
    require(sequences == sorted(set(sequences)), "sequences do not rise")
    for message in messages:
        require(message["blob_id"] == relay.blob_id(bytes.fromhex(message["blob"])), "blob id")
    return messages


def retrieve_and_acknowledge(relay):
    """the owner reads everything once, then by push; what is acknowledged is gone"""
    reader = relay.identified()
    request_id = reader.send("RETRIEVE_MESSAGES", window=WINDOW)
    messages = read_batches(relay, reader, request_id, len(BLOBS))
    require([m["blob"] for m in messages] == [blob.hex() for blob in BLOBS], "other blobs")
    sender, pushed = relay.anonymous(), os.urandom(512)
    require(store(relay, sender, pushed, relay.with_token())["refused"] is None, "refused")
    sender.close()
    last, = read_batches(relay, reader, request_id, 1)
    require(last["blob"] == pushed.hex(), "another blob is pushed")
    require(last["sequence"] > messages[-1]["sequence"], "sequences do not rise")
    reader.send("ACK", sequences=[m["sequence"] for m in messages])
    reader.call("PING", "PONG")
    reader.close()
    again = relay.identified()
    request_id = again.send("RETRIEVE_MESSAGES", window=WINDOW)
    left, = read_batches(relay, again, request_id, 1)
    require(left == last, "what was not acknowledged does not come again")
    again.send("ACK", sequences=[left["sequence"], 2**64 - 1])
    wishes = {"max_message_size": 2**31, "max_storage_duration": 86_400}
    counts = again.call("RELAY_REGISTER", "RELAY_REGISTERED", capabilities=wishes)
    require((counts["messages"], counts["bytes"]) == (0, 0), "the mailbox is not empty")
    again.close()


def somebody_elses_mailbox(relay):
    """another identity sees nothing of it"""
    session = relay.identified(make_local("thief"))
    require(session.refused("RETRIEVE_MESSAGES", window=WINDOW) == NOT_ALLOWED, "it can be read")
    session.close()


def key_packages(relay):
    """each key package is handed out once, then the last resort; the owner is told"""
    owner = relay.identified()
    subscription = owner.send("RETRIEVE_MESSAGES", window=WINDOW)
    number, _ = owner.answer_to(subscription)
    require(number == NUMBERS["MESSAGE_BATCH"], "no first batch")
    identity = relay.owner.identity.encoded.hex()
    stock = owner.call("PUBLISH_KEY_PACKAGES", "KEY_PACKAGE_STOCK", identity=identity,
                       key_packages=["01" * 300, "02" * 300], last_resort="03" * 300, replace=True)
    require(stock == {"count": 2}, "another count")
    taker, owner_key = relay.anonymous(), relay.owner.identity.key.hex()
    taken = [
        taker.call("TAKE_KEY_PACKAGE", "KEY_PACKAGE_TAKEN", owner=owner_key,
                   admission=relay.with_token())
        for _ in range(4)
    ]
    require(all(one["identity"] == identity for one in taken), "another identity")
    first = [one["key_package"][:2] for one in taken]
    require(sorted(first[:2]) == ["01", "02"] and first[2:] == ["03", "03"], f"handed out: {first}")
    stranger = {"token": os.urandom(16).hex()}
    code = taker.refused("TAKE_KEY_PACKAGE", owner=owner_key, admission=stranger)
    require(code == NOT_ADMITTED, "a stranger takes one")
    taker.close()
    owner.call("PING", "PONG")
    told = [fields for number, _, fields in owner.unasked if number == NUMBERS["KEY_PACKAGES_LOW"]]
    require({"count": 0} in told, "the owner is not told")
    owner.close()


STORY = [
    handshake, somebody_else_dialled, version_2, another_protocol, damaged_message_3,
    damaged_frame, unknown_type, information, nothing_before_register, register,
    anonymous_is_restricted, store_by_token, unadmitted, proof_of_work, retrieve_and_acknowledge,
    somebody_elses_mailbox, key_packages,
]


def run(address, link):
    """Prints one line for each step; gives the number of steps that failed."""
    relay, failed = Relay(address, link), 0
    for step in STORY:
        try:
            step(relay)
        except (Refused, OSError, EOFError) as error:
            failed += 1
            print(f"WRONG  {step.__doc__}: {error!r}")
        else:
            print(f"ok     {step.__doc__}")
    print(f"{len(STORY) - failed} of {len(STORY)} steps hold")
    return failed


