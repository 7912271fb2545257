"""A Noise session with a real program, over a blocking socket (protocol sections 6 and 7)."""

import os
import socket
import time

from crypto import Refused, ed25519_public, require, sign, x25519_public
from handshake import HEADER, Initiator, Local, Reassembly, cut, frame
from identity import IDENTITY_DATA, Identity
from wire import NUMBERS, decode_message, encode, encode_message

TIMEOUT = 10.0


def make_local(name):
    """A fresh identity with its secrets."""
    identity_secret, noise_secret = os.urandom(32), os.urandom(32)
    flags = dict.fromkeys(
        ("uses_relay", "is_machine_account", "is_relay_server", "prefers_async"), False)
    data = encode(IDENTITY_DATA.build({
        "username": name,
        "identity_key": ed25519_public(identity_secret).hex(),
        "noise_key": x25519_public(noise_secret).hex(),
        "flags": flags,
        "extensions": None,
        "version": 1,
        "created": int(time.time() * 1000),
    }))
    encoded = encode([data, sign(identity_secret, "identity", b"", data)])
    return Local(Identity(encoded), identity_secret, noise_secret)


class Stream:
    """Bytes and frames."""

    def __init__(self, address):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host.strip("[]"), int(port)), timeout=TIMEOUT)

    def send(self, data):
        self.socket.sendall(data)

    def read(self, length):
        data = b""
        while len(data) < length:
            part = self.socket.recv(length - len(data))
            if not part:
                raise EOFError("the peer has closed the stream")
            data += part
        return data

    def read_frame(self):
        return self.read(int.from_bytes(self.read(2), "little"))

    def is_at_end(self):
        """Whether the peer closes the stream without another byte."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionError:
            return True

    def close(self):
        self.socket.close()


class Session:
    """An initiator's session. `local` is shown, or only used for a key to be thrown away."""

    def __init__(self, address, local, expect, anonymous=False):
        if anonymous:
            local = Local(local.identity, local.identity_secret, os.urandom(32))
        self.stream = Stream(address)
        initiator = Initiator(local, anonymous)
        self.stream.send(HEADER + frame(initiator.message_1()))
        header, message_2 = self.stream.read(7), self.stream.read_frame()
        message_3, self.peer = initiator.finish(header, message_2, expect)
        self.stream.send(frame(message_3))
        self.noise = initiator.noise
        self.next_message = self.next_request = 0
        self.incoming = Reassembly(4 * 1024 * 1024)
        self.unasked = []

    def send(self, name, **fields):
        """Sends a request; gives its id."""
        request_id, self.next_request = self.next_request, self.next_request + 2
        self.send_raw(encode_message(NUMBERS[name], request_id, fields))
        return request_id

    def send_raw(self, message):
        for chunk in cut(self.next_message, message):
            self.stream.send(frame(bytes(self.noise.encrypt(chunk))))
        self.next_message += 1

    def receive(self):
        """The next message: type number, request id, fields. Probes are answered here."""
        while True:
            chunk = bytes(self.noise.decrypt(self.stream.read_frame()))
            message = self.incoming.take(chunk)
            if message is None:
                continue
            number, request_id, fields = decode_message(message)
            if number != NUMBERS["PING"]:
                return number, request_id, fields
            self.send_raw(encode_message(NUMBERS["PONG"], request_id, {}))

    def answer_to(self, request_id):
        """Type number and fields of the answer; what comes in between is kept in `unasked`."""
        while True:
            number, answered, fields = self.receive()
            if answered == request_id:
                return number, fields
            self.unasked.append((number, answered, fields))

    def call(self, name, expected, **fields):
        """The fields of the answer, which must be of the type `expected`."""
        number, answer = self.answer_to(self.send(name, **fields))
        require(number == NUMBERS[expected], f"{name} is answered with type {number}: {answer}")
        return answer

    def refused(self, name, **fields):
        """The code of the ERROR that answers."""
        return self.call(name, "ERROR", **fields)["code"]

    def close(self):
        self.send("CLOSE", code=13)
        self.stream.close()


__all__ = ["Refused", "Session", "Stream", "make_local"]
