"""The part of the demo in which programs are killed with SIGKILL, the signal that gives them no
chance to tidy up."""

import signal
import threading

from .failure import Broken, TestnetError
from .network import Network
from .node import Node
from .patience import wait_until
from .transcript import Transcript

FIFTY = 50
SOME = 10
# Between two of the fifty: on a fast machine, too, there is a middle to be killed in.
PAUSE_S = 0.03


class Stream:
    """Somebody who sends texts one after the other, in the background."""

    def __init__(self, sender: Node, to: str, texts: list[str], pause: float = 0.0):
        self.sent: list[dict] = []
        self._error: Exception | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(sender, to, texts, pause), daemon=True
        )
        self._thread.start()

    def _run(self, sender: Node, to: str, texts: list[str], pause: float) -> None:
        try:
            for text in texts:
                if self._stopped.wait(pause):
                    return
                self.sent.append(sender.send(to, text))
        except (TestnetError, OSError, ValueError) as error:
            self._error = error

    def is_running(self) -> bool:
        """Whether there are texts left to send."""
        return self._thread.is_alive()

    def finish(self) -> list[dict]:
        """Waits until all is sent; gives what `send` said to each."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self.sent

    def abandon(self) -> None:
        """Stops after the text that is being sent."""
        self._stopped.set()
        self._thread.join()


def node_killed(network: Network, t: Transcript) -> None:
    t.chapter("A node is killed while it receives")
    one, two = network.node("node1"), network.node("node2")
    texts = [f"fifty {number}" for number in range(1, FIFTY + 1)]
    t.say("node1 sends fifty messages to node2.")
    stream = Stream(one, "node2", texts, PAUSE_S)
    try:
        arrived = wait_until(lambda: at_least(SOME, of(texts, two.texts("node1"))), pause=0)
        was_sending = stream.is_running()
        network.stop(network["node2"], signal.SIGKILL)
    finally:
        sent = stream.finish()
    require("node2 was in the middle", 0 < arrived < FIFTY and was_sending, f"{arrived} of {FIFTY}")
    t.holds(f"killed after {arrived} of them, while the others were on their way")
    network.start(network["node2"])
    t.claim(
        "it is back, and has each of the fifty once, in order",
        texts,
        lambda: of(texts, two.texts("node1")),
    )
    t.claim(
        "node1 knows that all are delivered",
        {"delivered": FIFTY},
        lambda: states(one, "node2", [message["message_id"] for message in sent]),
    )


def relay_killed(network: Network, t: Transcript) -> None:
    t.chapter("A relay is killed while it stores")
    one, three = network.node("node1"), network.node("node3")
    for name in ("node3", "relay2"):
        network.stop(network[name])
    texts = [f"relayed {number}" for number in range(1, FIFTY + 1)]
    t.say("node3 and relay2 are off. node1 sends fifty messages to node3: relay1 takes them.")
    stream = Stream(one, "node3", texts, PAUSE_S)
    try:
        wait_until(lambda: at_least(SOME, acknowledged(one, "node3", texts)), pause=0)
        was_sending = stream.is_running()
        network.stop(network["relay1"], signal.SIGKILL)
    finally:
        stream.finish()
    promised = acknowledged(one, "node3", texts)
    middle = 0 < len(promised) < FIFTY and was_sending
    require("relay1 was in the middle", middle, f"{len(promised)} of {FIFTY}")
    t.holds(f"killed after it had acknowledged {len(promised)} of them")
    network.stop(network["node1"])
    t.say("node1 goes off too: only relay1 can know of them now.")
    network.start(network["relay1"])
    network.start(network["node3"])
    t.claim(
        "relay1 is back, and hands over every one that it had acknowledged",
        [],
        lambda: missing(promised, three.texts("node1")),
    )
    network.start(network["node1"])
    t.claim(
        "node1 is back, and in the end each of the fifty is there once, in order",
        texts,
        lambda: of(texts, three.texts("node1")),
    )
    network.start(network["relay2"])


def of(wanted: list[str], texts: list[str]) -> list[str]:
    """Those texts that are among the wanted, as often as they are there."""
    return [text for text in texts if text in set(wanted)]


def at_least(count: int, texts: list[str]) -> int:
    """How many there are, once there are enough."""
    return len(texts) if len(texts) >= count else 0


def missing(wanted: list[str], texts: list[str]) -> list[str]:
    """Those of the wanted texts that are not there."""
    return sorted(set(wanted) - set(texts))


def acknowledged(node: Node, conversation: str, texts: list[str]) -> list[str]:
    """Those of the node's own texts that somebody durably holds."""
    wanted = set(texts)
    return [
        entry["text"]
        for entry in node.history(conversation)
        if entry["text"] in wanted and entry["state"] in ("sent", "delivered", "read")
    ]


def states(node: Node, conversation: str, message_ids: list[str]) -> dict[str, int]:
    """How many of the node's messages are in which state."""
    wanted, counts = set(message_ids), {}
    for entry in node.history(conversation):
        if entry["message_id"] in wanted:
            counts[entry["state"]] = counts.get(entry["state"], 0) + 1
    return counts


def require(claim: str, holds: bool, seen: object) -> None:
    """Fails with what was seen."""
    if not holds:
        raise Broken(claim, "so", seen)
