"""What a story ends in: a network that is taken down, a transcript that says what broke, an exit code."""

from collections.abc import Callable
from pathlib import Path

from .failure import Broken, TestnetError
from .network import Network
from .transcript import Transcript


def judged(network: Network, where: Path, t: Transcript, story: Callable[[], None]) -> int:
    """Plays the story. 0 if it held: then nothing of the network stays. 1 if not: its files stay."""
    try:
        story()
    except Broken as error:
        t.broken(error, str(where))
        return 1
    except TestnetError as error:
        t.failed(error, str(where))
        return 1
    finally:
        network.end_all()
    network.remove()
    return 0
