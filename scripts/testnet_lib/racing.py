"""Six nodes and two relays: two admins add and remove at the same moment, again and again, while
nodes and relays are killed with SIGKILL.

In the end all who are in the group must be in the same epoch with the same epoch authenticator, see
the same members with the same roles, and have every message of those who were members all the time
exactly once. On the way it is measured how often nodes had to leave a branch that had lost, and how
long all took to agree. The seed decides who does what to whom and who is killed; how far the
programs are at that moment is up to the machine.
"""

import json
import random
import signal
import subprocess
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from . import programs
from .failure import Broken
from .judged import judged
from .network import Network
from .node import Node
from .patience import wait_until
from .programs import Binaries
from .transcript import Transcript

NODES, RELAYS, RENDEZVOUS = 6, 2, 1
GROUP = "racers"
ADMINS = ("node1", "node2")
STEADY = ("node1", "node2", "node3")
MOVING = ("node4", "node5", "node6")
# After so many rounds nothing is done until all agree, and the time that this takes is measured.
ROUNDS_AT_ONCE = 10
AGREED_WITHIN_S = 180.0
LONGEST_DEATH_S = 1.5
LONGEST_PAUSE_S = 0.3
EVENTS_WITHIN_S = 3.0
ANY_CODE = tuple(range(128))


@dataclass
class Plan:
    """What to do."""

    rounds: int
    kills: int
    seed: int


@dataclass
class Tally:
    """What was done, and measured."""

    done: int = 0
    refused: int = 0
    kills: Counter = field(default_factory=Counter)
    agreed_after_s: list[float] = field(default_factory=list)
    texts: dict[str, list[str]] = field(default_factory=dict)


def run(plan: Plan, directory: Path | None) -> int:
    """Carries the plan out. 0 if all ended in one state, with nothing lost or doubled."""
    t = Transcript()
    binaries = Binaries.build()
    t.title(
        f"{plan.rounds} rounds of two admins at the same moment, {plan.kills} kills "
        f"(seed {plan.seed})"
    )
    where = directory or Path(tempfile.mkdtemp(prefix="sremp-race-"))
    network = Network.create(where, binaries, NODES, RELAYS, RENDEZVOUS)

    def story() -> None:
        network.start_all()
        network.introduce()
        race(network, plan, t)

    return judged(network, where, t, story)


def race(network: Network, plan: Plan, t: Transcript) -> None:
    """Starts the group, races, and judges."""
    luck = random.Random(plan.seed)
    others = [f"node{number}" for number in range(2, NODES + 1)]
    network.node("node1").call("group", "create", GROUP, *others)
    t.say(f"all six agree after {agree(network):.1f} s")
    network.node("node1").call("group", "promote", GROUP, ADMINS[1])
    agree(network)
    first_epoch = show(network.node("node1"))["epoch"]

    tally = Tally(texts={name: [] for name in STEADY})
    deaths = sorted(luck.randrange(plan.rounds) for _ in range(plan.kills))
    began = time.monotonic()
    for number in range(plan.rounds):
        victims = [some_victim(luck) for death in deaths if death == number]
        one_round(network, number, luck, victims, tally)
        if (number + 1) % ROUNDS_AT_ONCE == 0 or number + 1 == plan.rounds:
            tally.agreed_after_s.append(agree(network))
    last_epoch = show(network.node("node1"))["epoch"]

    t.say(
        f"{plan.rounds} rounds in {time.monotonic() - began:.0f} s: {tally.done} changes typed, "
        f"{tally.refused} refused, {last_epoch - first_epoch} epochs"
    )
    killed = ", ".join(f"{name} {times} times" for name, times in sorted(tally.kills.items()))
    t.say(f"killed: {killed or 'nobody'}")
    times = sorted(tally.agreed_after_s)
    t.holds(
        "all members agree: epoch, epoch authenticator, members, roles",
        f"median {times[len(times) // 2]:.1f} s, at most {times[-1]:.1f} s",
    )
    judge(network, tally)
    count = sum(len(texts) for texts in tally.texts.values())
    t.holds(f"each of {count} messages is there once, at all who were always members")
    switches = {name: switched(network.node(name)) for name in STEADY}
    t.say(
        "branches left for better ones: "
        + ", ".join(f"{name} {times} times" for name, times in switches.items())
    )


def some_victim(luck: random.Random) -> str:
    nodes = [f"node{number}" for number in range(1, NODES + 1)]
    relays = [f"relay{number}" for number in range(1, RELAYS + 1)]
    return luck.choice(nodes + relays)


def one_round(
    network: Network, number: int, luck: random.Random, victims: list[str], tally: Tally
) -> None:
    """Two changes at the same moment, some messages, and perhaps a death."""
    moment = threading.Barrier(len(ADMINS))
    view = show(network.node("node3")) or {"members": []}
    listed = {member["id"] for member in view["members"]}
    targets = [luck.choice(MOVING) for _ in ADMINS]
    changes = [("remove" if network[who].id in listed else "add", who) for who in targets]
    talkers = [name for name in STEADY if luck.random() < 0.5]
    deaths = [
        (victim, luck.uniform(0, LONGEST_PAUSE_S), luck.uniform(0, LONGEST_DEATH_S))
        for victim in dict.fromkeys(victims)
    ]

    def change(admin: str, what: str, whom: str) -> bool:
        moment.wait()
        code, _ = network.node(admin).ask("group", what, GROUP, whom, allowed=ANY_CODE)
        return code == 0

    def talk(name: str) -> None:
        text = f"round {number} of {name}"
        code, _ = network.node(name).ask("send", GROUP, "--", text, allowed=ANY_CODE)
        if code == 0:
            tally.texts[name].append(text)

    def die(victim: str, after_s: float, for_s: float) -> None:
        time.sleep(after_s)
        network.stop(network[victim], signal.SIGKILL)
        time.sleep(for_s)
        network.start(network[victim])
        tally.kills[victim] += 1

    with ThreadPoolExecutor(max_workers=12) as pool:
        changing = [
            pool.submit(change, admin, *what) for admin, what in zip(ADMINS, changes, strict=True)
        ]
        others = [pool.submit(talk, name) for name in talkers]
        others += [pool.submit(die, *death) for death in deaths]
        for future in changing:
            if future.result():
                tally.done += 1
            else:
                tally.refused += 1
        for future in others:
            future.result()


# Looking -----------------------------------------------------------------------------------------


def show(node: Node) -> dict | None:
    """The group as a node sees it, if it is in it."""
    code, view = node.ask("group", "show", GROUP, allowed=ANY_CODE)
    return view if code == 0 and view["state"] not in ("left", "removed") else None


def agree(network: Network) -> float:
    """Waits until all who are in the group agree; says how long it took."""
    began = time.monotonic()
    seen = wait_until(lambda: not disagreement(network), AGREED_WITHIN_S, 0.1)
    if not seen:
        raise Broken(
            f"all agree within {AGREED_WITHIN_S:.0f} s", "one state", disagreement(network)
        )
    return time.monotonic() - began


def disagreement(network: Network) -> dict | None:
    """How the members differ, if they do."""
    views = {
        program.name: view
        for program in network.of_kind("node")
        if (view := show(network.node(program.name))) is not None
    }
    states = {name: state_of(view) for name, view in views.items()}
    listed = {who for state in states.values() for who, _, _ in state[2]}
    active = {network[name].id for name in views}
    pending = any(is_pending for state in states.values() for _, _, is_pending in state[2])
    one_state = len(set(states.values())) == 1
    if one_state and listed == active and not pending:
        return None
    ids = {program.id: program.name for program in network.of_kind("node")}
    return {
        name: (state[0], state[1][:8], [ids.get(who, who) for who, _, _ in state[2]])
        for name, state in states.items()
    }


def state_of(view: dict) -> tuple:
    """What has to be equal."""
    members = tuple(
        sorted((member["id"], member["role"], member["pending"]) for member in view["members"])
    )
    return view["epoch"], view["epoch_authenticator"], members


def judge(network: Network, tally: Tally) -> None:
    """Every message of those who were always members is there once."""
    for reader in STEADY:
        wanted = {text for texts in tally.texts.values() for text in texts}

        def missing(reader: str = reader, wanted: set[str] = wanted) -> set[str]:
            return wanted - {entry["text"] for entry in network.node(reader).history(GROUP)}

        wait_until(lambda missing=missing: not missing(), AGREED_WITHIN_S, 0.2)
        if lost := missing():
            raise Broken(f"{reader} has all messages", [], sorted(lost))
    for program in network.of_kind("node"):
        counts = Counter(
            entry["text"]
            for entry in network.node(program.name).history(GROUP)
            if entry["kind"] == "text"
        )
        doubled = [text for text, times in counts.items() if times > 1]
        if doubled:
            raise Broken(f"{program.name} has nothing twice", [], doubled)


def switched(node: Node) -> int:
    """How often a node had to leave a branch, as far back as its events go."""
    command = programs.command(node.program, node.binaries, "--json", "watch", "--after", "0")
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            env=programs.environment(node.program),
            timeout=EVENTS_WITHIN_S,
        )
        output = done.stdout
    except subprocess.TimeoutExpired as stopped:
        # It goes on until it is stopped.
        output = stopped.stdout or ""
        output = output.decode() if isinstance(output, bytes) else output
    events = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return sum(event.get("change") == "switched" for event in events)
