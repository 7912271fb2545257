"""Waiting by asking again, never for longer than was said."""

import time
from collections.abc import Callable

PATIENCE_S = 20.0
PAUSE_S = 0.02


def wait_until(probe: Callable[[], object], seconds: float = PATIENCE_S, pause: float = PAUSE_S):
    """Asks until the answer is true, and gives it; the last answer when time is up."""
    deadline = time.monotonic() + seconds
    while True:
        answer = probe()
        if answer or time.monotonic() > deadline:
            return answer
        time.sleep(pause)
