"""Loopback addresses that stay with a program across its restarts.

The ports lie below the range from which the system serves outgoing connections: a port of that
range could be given to somebody's connection while the program that owns it is down.
"""

import random
import socket

HIGHEST = 32_000
LOWEST = 12_000
TRIES = 200


def free_addresses(count: int) -> list[str]:
    """Distinct addresses on which nobody listens now. All are held until the last is found."""
    held: list[socket.socket] = []
    try:
        while len(held) < count:
            held.append(_bind_somewhere())
        return [f"127.0.0.1:{holder.getsockname()[1]}" for holder in held]
    finally:
        for holder in held:
            holder.close()


def _bind_somewhere() -> socket.socket:
    for _ in range(TRIES):
        holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            holder.bind(("127.0.0.1", random.randint(LOWEST, HIGHEST)))
            return holder
        except OSError:
            holder.close()
    raise OSError("no free port on 127.0.0.1")
