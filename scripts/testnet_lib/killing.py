"""A thousand messages while receiver and relays are killed at random moments.

All of them must stand in the receiver's history exactly once and in order, and the sender must
know that all were delivered. The receiver and the relays die independently, so that relays also die
while they are all that is left. The seed decides after how many messages somebody is killed, and
how long they stay dead; how far the programs are at that moment is up to the machine.
"""

import random
import signal
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from .crashes import Stream, states
from .failure import Broken
from .judged import judged
from .network import Network
from .patience import wait_until
from .programs import Binaries
from .transcript import Transcript

RELAYS, RENDEZVOUS = 2, 1
SENT_WITHIN_S = 300.0
SETTLED_WITHIN_S = 120.0
LONGEST_DEATH_S = 1.5


@dataclass
class Plan:
    """What to do to whom."""

    messages: int
    node_kills: int
    relay_kills: int
    seed: int


@dataclass
class Kill:
    """Somebody dies after so many messages were handed over, and comes back later."""

    after: int
    delay_s: float
    dead_s: float
    victim: str


def draw(plan: Plan) -> list[Kill]:
    """The kills of a plan, in order."""
    luck = random.Random(plan.seed)
    victims = ["node2"] * plan.node_kills
    victims += [f"relay{luck.randint(1, RELAYS)}" for _ in range(plan.relay_kills)]
    kills = [
        Kill(
            after=luck.randint(plan.messages // 50, plan.messages * 9 // 10),
            delay_s=luck.uniform(0, 0.02),
            dead_s=luck.uniform(0, LONGEST_DEATH_S),
            victim=victim,
        )
        for victim in victims
    ]
    return sorted(kills, key=lambda kill: kill.after)


def run(plan: Plan, directory: Path | None) -> int:
    """Carries the plan out. 0 if nothing was lost, doubled or out of order."""
    t = Transcript()
    binaries = Binaries.build()
    t.title(
        f"{plan.messages} messages, {plan.node_kills} kills of the receiver, "
        f"{plan.relay_kills} of relays (seed {plan.seed})"
    )
    where = directory or Path(tempfile.mkdtemp(prefix="sremp-kill-"))
    network = Network.create(where, binaries, nodes=2, relays=RELAYS, rendezvous=RENDEZVOUS)

    def story() -> None:
        network.start_all()
        network.introduce()
        endure(network, plan, t)

    return judged(network, where, t, story)


def endure(network: Network, plan: Plan, t: Transcript) -> None:
    """Sends, kills meanwhile, and judges afterwards."""
    one, two = network.node("node1"), network.node("node2")
    one.send("node2", "before", wait="delivered")
    texts = [f"message {number}" for number in range(1, plan.messages + 1)]
    began = time.monotonic()
    stream = Stream(one, "node2", texts)
    kills = draw(plan)
    receiver = [kill for kill in kills if kill.victim == "node2"]
    relays = [kill for kill in kills if kill.victim != "node2"]
    try:
        with ThreadPoolExecutor() as pool:
            for killer in [
                pool.submit(strike, network, some, stream) for some in (receiver, relays)
            ]:
                killer.result()
    except BaseException:
        stream.abandon()
        raise
    sent = stream.finish()
    done = sorted(Counter(kill.victim for kill in kills).items())
    t.say(f"sent in {time.monotonic() - began:.1f} s, while these were killed: {listed(done)}")

    settled = time.monotonic()
    ids = [message["message_id"] for message in sent]
    wanted = {"delivered": plan.messages}
    t.claim(
        "all are delivered, says node1", wanted, lambda: states(one, "node2", ids), SETTLED_WITHIN_S
    )
    seen = [text for text in two.texts("node1") if text != "before"]
    judge(texts, seen)
    t.holds(
        f"all {plan.messages} stand in node2's history once, in order",
        f"{time.monotonic() - settled:.1f} s later",
    )


def strike(network: Network, kills: list[Kill], stream: Stream) -> None:
    """Carries kills out in order: each at its moment, or at once when that went by meanwhile."""
    for kill in kills:
        wait_until(
            lambda after=kill.after: len(stream.sent) >= after or not stream.is_running(),
            SENT_WITHIN_S,
            0.001,
        )
        time.sleep(kill.delay_s)
        network.stop(network[kill.victim], signal.SIGKILL)
        time.sleep(kill.dead_s)
        network.start(network[kill.victim])


def listed(counts: list[tuple[str, int]]) -> str:
    return ", ".join(f"{name} {times} times" for name, times in counts) or "nobody"


def judge(expected: list[str], seen: list[str]) -> None:
    """Says precisely what is wrong, if anything is."""
    counts = Counter(seen)
    lost = [text for text in expected if counts[text] == 0]
    if lost:
        raise Broken("nothing is lost", [], lost)
    doubled = [text for text, times in counts.items() if times > 1]
    if doubled:
        raise Broken("nothing is there twice", [], doubled)
    for place, (right, wrong) in enumerate(zip(expected, seen, strict=False), start=1):
        if right != wrong:
            raise Broken(f"place {place} is in order", right, wrong)
    if len(seen) != len(expected):
        raise Broken("nothing else is there", len(expected), len(seen))
