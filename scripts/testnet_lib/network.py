"""A testnet: its programs, and the directory that remembers them.

The directory holds `testnet.json` (what there is), `logs/`, and a home for each program. Every
change is written down before and after the process that it is about, so that `down` works
whenever and however the command before it ended.
"""

import fcntl
import json
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from . import process, programs
from .failure import TestnetError
from .node import Node
from .ports import free_addresses
from .programs import Binaries, Program

STATE = "testnet.json"
FORMAT = 1


def default_directory() -> Path:
    """$TESTNET_DIR, or a directory of this person below the system's temporary one."""
    given = os.environ.get("TESTNET_DIR")
    # Short on purpose: a Unix socket's path has at most 107 bytes.
    return Path(given or Path(tempfile.gettempdir()) / f"sremp-testnet-{os.getuid()}")


class Network:
    """The programs of one directory."""

    def __init__(self, directory: Path, binaries: Binaries, members: list[Program]):
        self.directory, self.binaries, self.programs = directory, binaries, members
        self._saving = threading.Lock()

    # Making and finding ------------------------------------------------------------------------

    @classmethod
    def create(
        cls, directory: Path, binaries: Binaries, nodes: int, relays: int, rendezvous: int
    ) -> "Network":
        """Lays out a network. Nothing runs yet."""
        directory = directory.absolute()
        _claim(directory)
        kinds = ["rendezvous"] * rendezvous + ["relay"] * relays + ["node"] * nodes
        members, counts = [], {}
        for kind, address in zip(kinds, free_addresses(len(kinds)), strict=True):
            counts[kind] = counts.get(kind, 0) + 1
            name = f"{kind}{counts[kind]}"
            home, log = directory / name, directory / "logs" / f"{name}.log"
            members.append(Program(name, kind, str(home), address, str(log)))
        network = cls(directory, binaries, members)
        network.save()
        return network

    @classmethod
    def open(cls, directory: Path) -> "Network":
        """The network that lives in a directory."""
        directory = directory.absolute()
        try:
            state = json.loads((directory / STATE).read_text())
        except FileNotFoundError:
            raise TestnetError(
                f"there is no testnet in {directory}; make one: scripts/testnet up"
            ) from None
        members = [Program(**program) for program in state["programs"]]
        return cls(directory, Binaries(Path(state["binaries"])), members)

    def save(self) -> None:
        """Replaces the state file as a whole."""
        state = {
            "format": FORMAT,
            "binaries": str(self.binaries.directory),
            "programs": [program.public() for program in self.programs],
        }
        new = self.directory / f"{STATE}.new"
        with self._saving:
            new.write_text(json.dumps(state, indent=2) + "\n")
            new.replace(self.directory / STATE)

    @classmethod
    @contextmanager
    def opened_to_change(cls, directory: Path) -> Iterator["Network"]:
        """Two commands that change one testnet come one after the other, and the second sees
        what the first has written."""
        cls.open(directory)
        with (directory / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield cls.open(directory)

    # Looking -----------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> Program:
        for program in self.programs:
            if program.name == name:
                return program
        names = ", ".join(program.name for program in self.programs)
        raise TestnetError(f"there is no `{name}` in this testnet; there are: {names}")

    def of_kind(self, kind: str) -> list[Program]:
        """The programs of a kind, in order."""
        return [program for program in self.programs if program.kind == kind]

    def node(self, name: str) -> Node:
        """A node, to be spoken to."""
        program = self[name]
        if program.kind != "node":
            raise TestnetError(f"{name} is no node")
        return Node(program, self.binaries)

    def is_running(self, program: Program) -> bool:
        """Whether the program's process lives."""
        return process.alive(program.pid, self._mark(program))

    def _mark(self, program: Program) -> str:
        return f"{self.directory}/{program.name}"

    # Running -----------------------------------------------------------------------------------

    def start(self, program: Program) -> None:
        """Starts a program and waits until it says that it is ready."""
        if self.is_running(program):
            raise TestnetError(f"{program.name} is running already")
        log = Path(program.log)
        since = log.stat().st_size if log.exists() else 0
        program.pid = process.start(
            programs.command(program, self.binaries, "--json", "run"),
            self._mark(program),
            programs.environment(program),
            log,
        )
        self.save()
        try:
            ready = process.wait_until_ready(program.pid, self._mark(program), log, since)
        except TestnetError as error:
            raise TestnetError(f"{program.name} did not start: {error}") from None
        program.id = ready.get("id", program.id)
        program.link = ready.get("link", program.link)
        self.save()

    def stop(self, program: Program, how: signal.Signals = signal.SIGTERM) -> None:
        """Ends a program, with SIGTERM for it to drain or with SIGKILL, and waits until it is
        gone. One that has ended by itself is a failure: nobody asked it to."""
        if not self.is_running(program):
            raise TestnetError(f"{program.name} is not running; its log: {program.log}")
        if not process.end(program.pid, self._mark(program), how):
            raise TestnetError(
                f"{program.name} still runs {process.ENDED_WITHIN_S:.0f} s after {how.name}; "
                f"its log: {program.log}"
            )
        program.pid = None
        self.save()

    def start_all(self) -> None:
        """Servers first: a node's home names the links of its relays."""
        servers, relays = self.of_kind("rendezvous"), self.of_kind("relay")
        for number, program in enumerate(self.programs):
            # Each node prefers another relay, so that all of them have something to do.
            turn = number % max(len(relays), 1)
            programs.prepare(program, self.binaries, servers, relays[turn:] + relays[:turn])
            self.start(program)

    def introduce(self, but: frozenset[tuple[str, str]] = frozenset()) -> None:
        """Every node gets every other as a contact, under its name here, from its link. `but`
        says who does not get whom."""
        nodes = self.of_kind("node")

        def meet(program: Program) -> None:
            for other in nodes:
                if other is not program and (program.name, other.name) not in but:
                    self.node(program.name).call(
                        "contact", "add", other.link or "", "--alias", other.name
                    )

        with ThreadPoolExecutor(max_workers=4) as pool:
            list(pool.map(meet, nodes))

    def left_over(self) -> list[str]:
        """Processes of this testnet that still run."""
        return sorted(process.marked(f"{self.directory}/").values())

    def end_all(self) -> list[str]:
        """Ends every process: gently, then not. Gives the names of those that had to be killed."""
        stubborn = []
        for program in reversed(self.programs):
            if not process.end(program.pid, self._mark(program), signal.SIGTERM):
                process.end(program.pid, self._mark(program), signal.SIGKILL)
                stubborn.append(program.name)
            program.pid = None
        # Also the one that was being started when the command before was interrupted.
        for pid, mark in process.marked(f"{self.directory}/").items():
            process.end(pid, mark, signal.SIGKILL)
        self.save()
        return stubborn

    def remove(self) -> None:
        """Deletes the directory with all that the testnet put there."""
        shutil.rmtree(self.directory)


def _claim(directory: Path) -> None:
    """Makes the directory, private, unless something else is there."""
    if (directory / STATE).exists():
        raise TestnetError(
            f"there is a testnet in {directory} already; end it: scripts/testnet down"
        )
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if directory.stat().st_uid != os.getuid():
        raise TestnetError(f"{directory} belongs to somebody else; choose another with --dir")
    if any(directory.iterdir()):
        raise TestnetError(f"{directory} is not empty; choose another with --dir")
