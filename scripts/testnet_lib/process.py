"""One operating-system process: started apart from the terminal, recognised again, ended.

A process carries a mark in its environment, so that a number in a file is never mistaken for a
process of ours after the system has given the number to somebody else, and so that `down` finds
processes whose numbers were never written down.
"""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

from .failure import TestnetError

MARK = "TESTNET_PROCESS"
READY_WITHIN_S = 20.0
ENDED_WITHIN_S = 15.0
POLL_S = 0.01

# Children of this very Python process, kept so that they are reaped when they end.
_children: dict[int, subprocess.Popen] = {}


def start(command: list[str], mark: str, environment: dict[str, str], log: Path) -> int:
    """Starts a process that outlives this one, in a session of its own, writing to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as sink:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            env={**environment, MARK: mark},
            start_new_session=True,
        )
    _children[child.pid] = child
    return child.pid


def wait_until_ready(pid: int, mark: str, log: Path, since: int) -> dict:
    """The ready line that the process wrote to its log after byte `since`."""
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline:
        is_alive = alive(pid, mark)
        ready = _ready_line(log, since)
        if ready is not None:
            return ready
        if not is_alive:
            raise TestnetError(f"it ended before it was ready:\n{tail(log, since)}")
        time.sleep(POLL_S)
    raise TestnetError(f"it was not ready within {READY_WITHIN_S:.0f} s:\n{tail(log, since)}")


def _ready_line(log: Path, since: int) -> dict | None:
    with log.open("rb") as source:
        source.seek(since)
        for line in source.read().split(b"\n")[:-1]:
            if line.startswith(b"{") and b'"ready"' in line:
                try:
                    event = json.loads(line)
                except ValueError:
                    continue
                if event.get("event") == "ready":
                    return event
    return None


def tail(log: Path, since: int = 0, lines: int = 15) -> str:
    """The last lines of a log, indented for a message."""
    with log.open("rb") as source:
        source.seek(since)
        text = source.read().decode(errors="replace").splitlines()[-lines:]
    return "\n".join(f"    {line}" for line in text) or "    (it wrote nothing)"


def alive(pid: int | None, mark: str) -> bool:
    """Whether this process runs, and is the one that was started with this mark."""
    if pid is None:
        return False
    child = _children.get(pid)
    if child is None:
        return _mark_of(pid) == mark
    # A child's number is not given away before we reap it. Its environment is of no use here: for
    # a moment after its start it is not there yet.
    if child.poll() is None:
        return True
    del _children[pid]
    return False


def end(pid: int | None, mark: str, with_signal: signal.Signals) -> bool:
    """Signals the process and its group, and waits until it is gone. False if it stays."""
    if not alive(pid, mark):
        return True
    try:
        os.killpg(pid, with_signal)
    except ProcessLookupError:
        return True
    deadline = time.monotonic() + ENDED_WITHIN_S
    while alive(pid, mark):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def marked(prefix: str) -> dict[int, str]:
    """Every process whose mark begins with `prefix`."""
    numbers = (int(entry) for entry in os.listdir("/proc") if entry.isdigit())
    marks = ((pid, _mark_of(pid)) for pid in numbers)
    return {pid: mark for pid, mark in marks if mark is not None and mark.startswith(prefix)}


def _mark_of(pid: int) -> str | None:
    """The mark in a process's environment. A process that has ended and waits to be reaped has
    none."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return None
    wanted = f"{MARK}=".encode()
    for entry in environment.split(b"\0"):
        if entry.startswith(wanted):
            return entry[len(wanted) :].decode(errors="replace")
    return None
