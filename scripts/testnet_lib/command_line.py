"""What people type, and what scripts may rely on."""

import argparse
import json
import os
import random
import signal
import sys
from pathlib import Path

from . import killing, programs, racing, story
from .failure import TestnetError
from .network import Network, default_directory
from .programs import Binaries

OUTPUT_CLOSED = 141


def main(arguments: list[str]) -> int:
    """Runs a command of `scripts/testnet`; gives its exit code."""
    return _guarded(lambda options: options.run(options), _parser().parse_args(arguments))


def kill_test(arguments: list[str]) -> int:
    """Runs `scripts/kill-test`; gives its exit code."""
    parser = argparse.ArgumentParser(prog="scripts/kill-test", description=killing.__doc__)
    parser.add_argument("--messages", type=_positive, default=1000, metavar="N")
    parser.add_argument("--node-kills", type=_count, default=10, metavar="N")
    parser.add_argument("--relay-kills", type=_count, default=5, metavar="N")
    parser.add_argument("--seed", type=int, help="default: a new one, which is printed")
    parser.add_argument("--dir", type=Path, help="an empty directory; default: a temporary one")

    def run(options: argparse.Namespace) -> int:
        seed = random.randrange(1_000_000) if options.seed is None else options.seed
        plan = killing.Plan(options.messages, options.node_kills, options.relay_kills, seed)
        return killing.run(plan, options.dir)

    return _guarded(run, parser.parse_args(arguments))


def race_test(arguments: list[str]) -> int:
    """Runs `scripts/race-test`; gives its exit code."""
    parser = argparse.ArgumentParser(prog="scripts/race-test", description=racing.__doc__)
    parser.add_argument("--rounds", type=_positive, default=200, metavar="N")
    parser.add_argument("--kills", type=_count, default=40, metavar="N")
    parser.add_argument("--seed", type=int, help="default: a new one, which is printed")
    parser.add_argument("--dir", type=Path, help="an empty directory; default: a temporary one")

    def run(options: argparse.Namespace) -> int:
        seed = random.randrange(1_000_000) if options.seed is None else options.seed
        return racing.run(racing.Plan(options.rounds, options.kills, seed), options.dir)

    return _guarded(run, parser.parse_args(arguments))


def _guarded(run, options: argparse.Namespace) -> int:
    """Failures in words; SIGTERM and a closed terminal end a command as Ctrl-C does, so that
    what has to be tidied up is."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.default_int_handler)
    try:
        return run(options)
    except TestnetError as error:
        print(f"testnet: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("testnet: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read our output has seen enough. Python must not complain at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OUTPUT_CLOSED


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--dir",
        type=Path,
        default=argparse.SUPPRESS,
        help="where the testnet lives; default: $TESTNET_DIR, or a temporary directory of yours",
    )
    parser = argparse.ArgumentParser(
        prog="scripts/testnet",
        description="A whole SREMP network on this machine, of real programs.",
        epilog="The programs are built with cargo, or taken from $SREMP_BIN_DIR. "
        "With TESTNET_LOG=debug their logs say more.",
        parents=[common],
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text, parents=[common])
        sub.set_defaults(run=run)
        return sub

    sub = command("up", _up, "start a network in which every node knows every other")
    sub.add_argument("--nodes", type=_count, default=2, metavar="N")
    sub.add_argument("--relays", type=_count, default=1, metavar="N")
    sub.add_argument("--rendezvous", type=_count, default=1, metavar="N")
    sub.add_argument("--json", action="store_true", help="print one JSON object")

    sub = command("exec", _exec, "run a program's own binary with its home")
    sub.add_argument("program", metavar="PROGRAM")
    sub.add_argument("arguments", nargs=argparse.REMAINDER, metavar="ARGS...")

    for name, run, text in [
        ("stop", _stop, "end programs with SIGTERM"),
        ("kill", _kill, "end programs with SIGKILL"),
        ("start", _start, "start programs again and wait until they are ready"),
    ]:
        command(name, run, text).add_argument("programs", nargs="+", metavar="PROGRAM")

    sub = command("status", _status, "say what runs")
    sub.add_argument("--json", action="store_true", help="print one JSON object")
    command("logs", _logs, "print a program's log").add_argument("program", metavar="PROGRAM")
    sub = command("down", _down, "end every program and delete the directory")
    sub.add_argument("--keep", action="store_true", help="keep the directory")
    command("demo", _demo, "tell a story, and check every claim of it")
    return parser


def _directory(options: argparse.Namespace) -> Path:
    return getattr(options, "dir", None) or default_directory()


def _up(options: argparse.Namespace) -> int:
    binaries = Binaries.build()
    where = _directory(options)
    Network.create(where, binaries, options.nodes, options.relays, options.rendezvous)
    with Network.opened_to_change(where) as network:
        try:
            network.start_all()
            network.introduce()
        except BaseException:
            network.end_all()
            print(f"testnet: the logs are in {network.directory}/logs", file=sys.stderr)
            raise
        _show(network, options.json)
    return 0


def _exec(options: argparse.Namespace) -> int:
    network = Network.open(_directory(options))
    program = network[options.program]
    command = programs.command(program, network.binaries, *options.arguments)
    sys.stdout.flush()
    os.execve(command[0], command, programs.environment(program))


def _stop(options: argparse.Namespace) -> int:
    return _end(options, signal.SIGTERM)


def _kill(options: argparse.Namespace) -> int:
    return _end(options, signal.SIGKILL)


def _end(options: argparse.Namespace, how: signal.Signals) -> int:
    with Network.opened_to_change(_directory(options)) as network:
        for program in [network[name] for name in options.programs]:
            network.stop(program, how)
    return 0


def _start(options: argparse.Namespace) -> int:
    with Network.opened_to_change(_directory(options)) as network:
        for program in [network[name] for name in options.programs]:
            network.start(program)
    return 0


def _status(options: argparse.Namespace) -> int:
    _show(Network.open(_directory(options)), options.json)
    return 0


def _logs(options: argparse.Namespace) -> int:
    program = Network.open(_directory(options))[options.program]
    log = Path(program.log)
    if log.exists():
        sys.stdout.write(log.read_text(errors="replace"))
    return 0


def _down(options: argparse.Namespace) -> int:
    with Network.opened_to_change(_directory(options)) as network:
        for name in network.end_all():
            print(f"testnet: {name} ignored SIGTERM and was killed", file=sys.stderr)
        if not options.keep:
            network.remove()
    return 0


def _demo(options: argparse.Namespace) -> int:
    return story.tell(getattr(options, "dir", None))


def _show(network: Network, as_json: bool) -> None:
    rows = [
        {**program.public(), "running": network.is_running(program)} for program in network.programs
    ]
    if as_json:
        print(json.dumps({"dir": str(network.directory), "processes": rows}, indent=2))
        return
    print(f"{'program':<13} {'address':<16} {'process':<9} home")
    for row in rows:
        running = str(row["pid"]) if row["running"] else "-"
        print(f"{row['name']:<13} {row['address']:<16} {running:<9} {row['home']}")


def _count(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 200:
        raise argparse.ArgumentTypeError("from 0 to 200")
    return number


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number
