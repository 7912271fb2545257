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
            line = ["cargo", "build", "--release", "--locked", "--quiet"]
            for package in PACKAGES:
                line += ["--package", package]
            try:
                built = subprocess.run(line, cwd=REPOSITORY, check=False).returncode == 0
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


def environment(program: Program) -> dict[str, str]:
    """The environment of a program, and of commands to it: how it is configured here. Settings
    of the person's own programs stay out of it."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("SREMP_")}
    data, tls = Path(program.home) / "data", Path(program.home) / "tls"
    level = os.environ.get("TESTNET_LOG", "info")
    settings = {
        # The whole network lives on loopback, which nodes do not dial on a stranger's word.
        "node": {
            "SREMP__NODE__ALLOW_PRIVATE_ADDRESSES": "true",
            "SREMP__LOG__LEVEL": level,
        },
        "relay": {
            "SREMP_RELAY__SERVER__DATA": str(data),
            "SREMP_RELAY__SERVER__LISTEN": program.address,
            "SREMP_RELAY__SERVER__ADVERTISE": json.dumps([program.address]),
            "SREMP_RELAY__LOG__LEVEL": level,
        },
        "rendezvous": {
            "SREMP_RENDEZVOUS__SERVER__DATA": str(data),
            "SREMP_RENDEZVOUS__SERVER__LISTEN": program.address,
            "SREMP_RENDEZVOUS__TLS__CERT": str(tls / "cert.pem"),
            "SREMP_RENDEZVOUS__TLS__KEY": str(tls / "key.pem"),
            "SREMP_RENDEZVOUS__LOG__LEVEL": level,
        },
    }
    return {**inherited, **settings[program.kind]}


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
        _run(program, command(program, binaries, "dev-cert", str(tls), "127.0.0.1", "localhost"))
    elif program.kind == "node":
        init = ["--json", "init", "--name", program.name]
        init += ["--listen", program.address, "--advertise", program.address]
        for server in rendezvous:
            init += ["--rendezvous", f"{server.address},ca={authority(server)}"]
        for relay in relays:
            init += ["--relay", relay.link or ""]
        made = json.loads(_run(program, command(program, binaries, *init)))
        program.id, program.link = made["id"], made["link"]


def command(program: Program, binaries: Binaries, *arguments: str) -> list[str]:
    """The program's own binary with its home, to run it or to ask something of it. Belongs
    together with its environment."""
    binary = binaries.path(program.kind)
    if program.kind == "node":
        return [binary, "--home", program.home, *arguments]
    return [binary, *arguments]


def _run(program: Program, line: list[str]) -> str:
    done = subprocess.run(
        line, capture_output=True, text=True, check=False, env=environment(program), timeout=30
    )
    if done.returncode != 0:
        said = done.stderr.strip() or done.stdout.strip() or "nothing"
        raise TestnetError(
            f"`{' '.join(line[:5])} ...` ended with exit code {done.returncode} and said: {said}"
        )
    return done.stdout
