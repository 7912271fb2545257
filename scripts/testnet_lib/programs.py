"""What the three programs want on their command lines. No other module knows.

The binaries are built with cargo, unless $SREMP_BIN_DIR says where they are.
"""

import json
import os
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

from .failure import TestnetError

REPOSITORY = Path(__file__).resolve().parents[2]
BINARIES = {"rendezvous": "sremp-rendezvous", "relay": "sremp-relay", "node": "sremp"}
PACKAGES = ["sremp-rendezvous", "sremp-relay", "sremp-node"]


@dataclass
class Program:
    """One program of a testnet, as its state file has it."""

    name: str
    kind: str
    home: str
    address: str
    log: str
    pid: int | None = None
    id: str | None = None
    link: str | None = None

    def public(self) -> dict:
        """What `up --json` and `status --json` print."""
        return asdict(self)


class Binaries:
    """Where the three programs are."""

    def __init__(self, directory: Path):
        self.directory = directory

    @classmethod
    def build(cls) -> "Binaries":
        """Takes $SREMP_BIN_DIR, or builds a release."""
        given = os.environ.get("SREMP_BIN_DIR")
        if given:
            directory = Path(given).resolve()
        else:
            command = ["cargo", "build", "--release", "--locked", "--quiet"]
            for package in PACKAGES:
                command += ["--package", package]
            try:
                built = subprocess.run(command, cwd=REPOSITORY, check=False).returncode == 0
            except FileNotFoundError:
                raise TestnetError("cargo is not installed, and SREMP_BIN_DIR is not set") from None
            if not built:
                raise TestnetError("the programs do not build; cargo says why above")
            directory = _target_directory() / "release"
        missing = [name for name in BINARIES.values() if not (directory / name).is_file()]
        if missing:
            raise TestnetError(f"{directory} has no {' and no '.join(missing)}")
        return cls(directory)

    def path(self, kind: str) -> str:
        """The binary of a kind of program."""
        return str(self.directory / BINARIES[kind])


def _target_directory() -> Path:
    given = os.environ.get("CARGO_TARGET_DIR")
    return (REPOSITORY / given).resolve() if given else REPOSITORY / "target"


def environment() -> dict[str, str]:
    """The environment of every program: settings of the person's own node stay out of it."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("SREMP_")}
    # The whole network lives on loopback, which nodes do not dial on a stranger's word.
    return {**inherited, "SREMP__NODE__ALLOW_PRIVATE_ADDRESSES": "true"}


def authority(rendezvous: Program) -> str:
    """The file of the private authority that vouches for a rendezvous server."""
    return str(Path(rendezvous.home) / "tls" / "ca.pem")


def prepare(
    program: Program, binaries: Binaries, rendezvous: list[Program], relays: list[Program]
) -> None:
    """What a program needs once, before its first start."""
    home = Path(program.home)
    if program.kind == "rendezvous":
        tls = home / "tls"
        tls.mkdir(parents=True, mode=0o700)
        _run([binaries.path("rendezvous"), "dev-cert", str(tls), "127.0.0.1", "localhost"])
    elif program.kind == "node":
        command = [binaries.path("node"), "--home", program.home, "--json", "init"]
        command += ["--name", program.name]
        command += ["--listen", program.address, "--advertise", program.address]
        for server in rendezvous:
            command += ["--rendezvous", f"{server.address},ca={authority(server)}"]
        for relay in relays:
            command += ["--relay", relay.link or ""]
        made = json.loads(_run(command))
        program.id, program.link = made["id"], made["link"]


def run_command(program: Program, binaries: Binaries) -> list[str]:
    """The command line that runs the program in the foreground and prints a ready line."""
    home = Path(program.home)
    binary = binaries.path(program.kind)
    if program.kind == "node":
        return [binary, "--home", program.home, "--json", "run"]
    command = [binary, "run", "--json", "--data", str(home / "data"), "--listen", program.address]
    if program.kind == "relay":
        return [*command, "--advertise", program.address]
    tls = home / "tls"
    return [*command, "--cert", str(tls / "cert.pem"), "--key", str(tls / "key.pem")]


def client_command(program: Program, binaries: Binaries, arguments: list[str]) -> list[str]:
    """The program's own binary with its home, for whatever a person wants of it."""
    binary = binaries.path(program.kind)
    if program.kind == "node":
        return [binary, "--home", program.home, *arguments]
    return [binary, *arguments]


def _run(command: list[str]) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment(), timeout=30
    )
    if done.returncode != 0:
        said = done.stderr.strip() or done.stdout.strip() or "nothing"
        raise TestnetError(
            f"`{' '.join(command[:5])} ...` ended with exit code {done.returncode} and said: {said}"
        )
    return done.stdout
