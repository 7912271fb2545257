"""A story as it is told on a terminal: quiet, and a check mark only after the check."""

import sys
import time

from .failure import Broken
from .patience import PATIENCE_S, PAUSE_S

WIDTH = 88


class Transcript:
    """Tells, and checks what it tells."""

    def __init__(self, colours: bool | None = None):
        self._colours = sys.stdout.isatty() if colours is None else colours
        self._chapter = 0
        self.checks = 0

    def title(self, text: str) -> None:
        """The first line."""
        self._print(self._bold(text))

    def chapter(self, text: str) -> None:
        """The beginning of a part."""
        self._chapter += 1
        self._print(f"\n{self._chapter:2}  {self._bold(text)}")

    def say(self, text: str) -> None:
        """What is done next. It claims nothing."""
        self._print(f"    {self._grey(text)}")

    def claim(self, text: str, expected, probe, seconds: float = PATIENCE_S) -> None:
        """Asks until the answer is the expected one, then says so; fails when time is up."""
        began = time.monotonic()
        while (seen := probe()) != expected:
            if time.monotonic() - began > seconds:
                raise Broken(text, expected, seen)
            time.sleep(PAUSE_S)
        took = time.monotonic() - began
        self.holds(text, f"{took:.1f} s" if took >= 0.1 else "")

    def holds(self, text: str, measured: str = "") -> None:
        """Says something that has been checked already."""
        self.checks += 1
        gap = " " * max(2, WIDTH - 6 - len(text) - len(measured))
        tail = f"{gap}{self._grey(measured)}" if measured else ""
        self._print(f"    {self._green(CHECK_MARK)} {text}{tail}")

    def broken(self, error: Broken, directory: str) -> None:
        """Says which claim did not hold."""
        self._print(f"    {self._red(CROSS)} {error.claim}")
        self._print(f"        expected  {_short(error.expected)}")
        self._print(f"        seen      {_short(error.seen)}")
        self._print(f"        logs      {directory}/logs")

    def failed(self, error: Exception, directory: str) -> None:
        """Says that the story could not go on."""
        self._print(f"    {self._red(CROSS)} {error}")
        self._print(f"        logs      {directory}/logs")

    def _print(self, line: str) -> None:
        print(line, flush=True)

    def _bold(self, text: str) -> str:
        return self._paint("1", text)

    def _grey(self, text: str) -> str:
        return self._paint("2", text)

    def _green(self, text: str) -> str:
        return self._paint("32", text)

    def _red(self, text: str) -> str:
        return self._paint("31", text)

    def _paint(self, code: str, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._colours else text


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 400 else f"{text[:300]} ... {text[-80:]} ({len(text)} characters)"


CHECK_MARK = "\N{CHECK MARK}"
CROSS = "\N{BALLOT X}"
