"""The demo: a story of four people whose messages arrive. Every claim is checked through the
command line before it is told."""

import signal
import tempfile
import time
from pathlib import Path

from . import crashes
from .failure import Broken
from .judged import judged
from .network import Network
from .node import TIMED_OUT
from .programs import Binaries
from .transcript import Transcript

NODES, RELAYS, RENDEZVOUS = 4, 2, 2
SENT_WITHIN_S = 2.0
# Who does not get whom into the address book at the beginning.
STRANGERS = frozenset({("node1", "node4"), ("node4", "node1"), ("node4", "node3")})


def tell(directory: Path | None) -> int:
    """Brings a network up, tells the story, takes the network down. 0 if every claim held."""
    transcript = Transcript()
    binaries = Binaries.build()
    transcript.title("SREMP: three programs, one protocol, a message that arrives")
    where = directory or Path(tempfile.mkdtemp(prefix="sremp-demo-"))
    network = Network.create(where, binaries, NODES, RELAYS, RENDEZVOUS)
    began = time.monotonic()

    def story() -> None:
        for chapter in CHAPTERS:
            chapter(network, transcript)

    code = judged(network, where, transcript, story)
    if code == 0:
        seconds = time.monotonic() - began
        transcript.title(f"\nAll {transcript.checks} checks held, in {seconds:.0f} s.")
    return code


def arrival(network: Network, t: Transcript) -> None:
    t.chapter("A network")
    began = time.monotonic()
    network.start_all()
    for program in network.programs:
        if not network.is_running(program):
            raise Broken(f"{program.name} runs", "a process", "none")
    seconds = time.monotonic() - began
    t.holds("two rendezvous servers, two relays and four nodes are ready", f"{seconds:.1f} s")
    network.introduce(but=STRANGERS)
    t.claim(
        "node2 has node1, node3 and node4 in its address book",
        ["node1", "node3", "node4"],
        lambda: sorted(entry["alias"] for entry in network.node("node2").call("contact", "list")),
    )


def discovery(network: Network, t: Transcript) -> None:
    t.chapter("Found by id")
    one, four = network.node("node1"), network.node("node4")
    t.say("All that node1 and node4 know of each other is an id.")
    four.call("contact", "add", one.id, "--alias", "node1")
    one.call("contact", "add", four.id, "--alias", "node4")
    t.claim(
        "node1 asked a rendezvous server, and now knows node4's name and relays",
        ("node4", RELAYS),
        lambda: name_and_relays(one.call("contact", "show", "node4")),
    )
    one.send("node4", "I looked you up.")
    t.claim("node4 reads what node1 wrote", ["I looked you up."], lambda: four.texts("node1"))


def stranger(network: Network, t: Transcript) -> None:
    t.chapter("A stranger")
    three, four = network.node("node3"), network.node("node4")
    t.say("node3 has a link of node4. node4 knows nothing of node3.")
    sent = three.send("node4", "We have not met. May I?")
    t.claim(
        "what node3 writes waits among node4's requests",
        [three.id],
        lambda: [request["id"] for request in four.call("requests", "list")],
    )
    four.call("requests", "accept", three.id)
    four.call("contact", "alias", three.id, "node3")
    t.claim(
        "node4 accepts, and reads it",
        ["We have not met. May I?"],
        lambda: four.texts("node3"),
    )
    t.claim(
        "node3 knows that it was delivered",
        "delivered",
        lambda: three.state_of("node4", sent["message_id"]),
    )


def name_and_relays(contact: dict) -> tuple[str, int]:
    return contact["name"], len(contact["relays"])


def direct(network: Network, t: Transcript) -> None:
    t.chapter("A direct message")
    one, two = network.node("node1"), network.node("node2")
    one.send("node2", "Hello!", wait="delivered")
    t.claim("node2 has node1's first message", ["Hello!"], lambda: two.texts("node1"))
    began = time.monotonic()
    sent = one.send("node2", "How are you?", wait="delivered")
    took = time.monotonic() - began
    t.claim("the second is delivered, signed by node2", "delivered", lambda: sent["state"])
    t.holds("sent, stored, decrypted, confirmed and reported in", f"{took * 1000:.0f} ms")
    t.claim("no third party was on the way", "direct", lambda: path(one, "node2"))
    two.send("node1", "Fine, and you?", wait="delivered")
    t.claim("and the answer arrives", ["Fine, and you?"], lambda: one.texts("node2"))


def path(node, whom: str) -> str:
    return node.call("contact", "show", whom)["path"]


def asleep(network: Network, t: Transcript) -> None:
    t.chapter("A message to somebody who is away")
    one, three = network.node("node1"), network.node("node3")
    network.stop(network["node3"])
    t.say("node3 is off. node1 writes to it.")
    began = time.monotonic()
    sent = one.send("node3", "Read this when you are back.", wait="sent")
    took = time.monotonic() - began
    t.claim("a relay of node3 holds the message", "sent", lambda: sent["state"])
    if took > SENT_WITHIN_S:
        raise Broken("within two seconds", f"at most {SENT_WITHIN_S} s", f"{took:.2f} s")
    t.holds("within two seconds", f"{took * 1000:.0f} ms")
    network.start(network["node3"])
    t.claim(
        "node3 comes back and finds it",
        ["Read this when you are back."],
        lambda: three.texts("node1"),
    )
    t.claim(
        "node1 hears of it",
        "delivered",
        lambda: one.state_of("node3", sent["message_id"]),
    )


def group(network: Network, t: Transcript) -> None:
    t.chapter("A group, an addition, a removal")
    one, two, three, four = (network.node(f"node{n}") for n in range(1, 5))
    one.call("group", "create", "hikers", "node2", "node3")
    agree(t, "node1, node2 and node3 are the hikers, and hold the same keys", one, two, three)
    one.send("hikers", "Saturday?", wait="delivered")
    t.claim(
        "both others read node1's question",
        [["Saturday?"]] * 2,
        lambda: [node.texts("hikers") for node in (two, three)],
    )
    one.call("group", "add", "hikers", "node4")
    agree(t, "node4 joins, and all four hold the same new keys", one, two, three, four)
    four.send("hikers", "I bring bread.", wait="delivered")
    t.claim(
        "node4 is read by all, and has nothing from before it came",
        [["I bring bread."], ["Saturday?", "I bring bread."], ["Saturday?", "I bring bread."], []],
        lambda: [node.texts("hikers") for node in (one, two, three, four)],
    )
    one.call("group", "remove", "hikers", "node3")
    agree(t, "node3 is removed, and the other three hold new keys", one, two, four)
    t.claim("node3 is told", "removed", lambda: three.call("group", "show", "hikers")["state"])
    two.send("hikers", "Not a word to node3.", wait="delivered")
    t.claim(
        "what is said now is read by node1 and node4, and not by node3",
        ["Not a word to node3."] * 2 + ["I bring bread."],
        lambda: [node.texts("hikers")[-1] for node in (one, four, three)],
    )


def agree(t: Transcript, claim: str, *members) -> None:
    """Each of the members sees just these members, and the same epoch."""

    def views() -> list:
        shown = [shows(member) for member in members]
        return [ids for ids, _ in shown] + [len({epoch for _, epoch in shown})]

    everybody = sorted(member.id for member in members)
    t.claim(claim, [everybody] * len(members) + [1], views)


def shows(node) -> tuple[list[str], str | None]:
    names = [group["name"] for group in node.call("group", "list")]
    if "hikers" not in names:
        return [], None
    group = node.call("group", "show", "hikers")
    return sorted(member["id"] for member in group["members"]), group["epoch_authenticator"]


def no_path(network: Network, t: Transcript) -> None:
    t.chapter("No path at all")
    one, two = network.node("node1"), network.node("node2")
    for name in ("node2", "relay1", "relay2"):
        network.stop(network[name])
    t.say("node2 and both relays are off. node1 writes to node2.")
    code, sent = one.ask(
        "send",
        "node2",
        "--wait",
        "sent",
        "--timeout",
        "2",
        "--",
        "Anybody?",
        allowed=(0, TIMED_OUT),
    )
    t.claim("the command says that it gave up waiting", TIMED_OUT, lambda: code)
    t.claim(
        "the message is queued, for everybody to see",
        "queued",
        lambda: one.state_of("node2", sent["message_id"]),
    )
    network.start(network["node2"])
    t.say("node2 is back. Nobody types anything.")
    t.claim("the message goes out by itself", "Anybody?", lambda: two.texts("node1")[-1])
    t.claim(
        "and is delivered",
        "delivered",
        lambda: one.state_of("node2", sent["message_id"]),
    )
    for name in ("relay1", "relay2"):
        network.start(network[name])


def departure(network: Network, t: Transcript) -> None:
    t.chapter("The end")
    for program in network.programs:
        network.stop(program, signal.SIGTERM)
    t.claim("every program has stopped when it was asked to", [], network.left_over)


CHAPTERS = [
    arrival,
    discovery,
    stranger,
    direct,
    asleep,
    group,
    crashes.node_killed,
    crashes.relay_killed,
    no_path,
    departure,
]
