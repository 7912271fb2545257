"""A node spoken to through its own command line, as a person or a script would."""

import json
import subprocess

from . import programs
from .failure import TestnetError
from .programs import Binaries, Program

DONE, NO_CONVERSATION, TIMED_OUT = 0, 4, 6
ANSWER_WITHIN_S = 40
PAGE = 200


class Refused(TestnetError):
    """The command line ended with an exit code that was not expected."""

    def __init__(self, who: str, arguments: tuple[str, ...], exit_code: int, said: str):
        shown = " ".join(argument if len(argument) < 60 else "..." for argument in arguments)
        super().__init__(f"{who}: `sremp {shown}` ended with exit code {exit_code}: {said}")
        self.exit_code = exit_code


class Node:
    """One node of a testnet."""

    def __init__(self, program: Program, binaries: Binaries):
        self.name, self.id, self.link = program.name, program.id, program.link
        self.program, self.binaries = program, binaries

    def ask(self, *arguments: str, allowed: tuple[int, ...] = (DONE,)) -> tuple[int, object]:
        """Runs `sremp --json ARGUMENTS`; gives its exit code and what it printed, parsed."""
        command = programs.command(self.program, self.binaries, "--json", *arguments)
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                check=False,
                stdin=subprocess.DEVNULL,
                env=programs.environment(self.program),
                timeout=ANSWER_WITHIN_S,
            )
        except subprocess.TimeoutExpired:
            raise TestnetError(
                f"{self.name}: `sremp {' '.join(arguments[:3])}` did not answer "
                f"within {ANSWER_WITHIN_S} s"
            ) from None
        if done.returncode not in allowed:
            said = done.stderr.strip() or done.stdout.strip()
            raise Refused(self.name, arguments, done.returncode, said)
        return done.returncode, json.loads(done.stdout) if done.stdout.strip() else None

    def call(self, *arguments: str):
        """What `sremp --json ARGUMENTS` printed; it must succeed."""
        return self.ask(*arguments)[1]

    # The few things that the stories do again and again -----------------------------------------

    def send(self, to: str, text: str, wait: str | None = None, seconds: float = 20.0) -> dict:
        """Sends a text. With `wait`, returns when the message got that far or time is up."""
        waiting = ["--wait", wait, "--timeout", f"{seconds:g}"] if wait else []
        return self.ask("send", to, *waiting, "--", text, allowed=(DONE, TIMED_OUT))[1]

    def history(self, of: str) -> list[dict]:
        """All of a conversation, oldest first, page by page. Empty if there is none yet."""
        entries: list[dict] = []
        before: list[str] = []
        while True:
            code, page = self.ask(
                "history", of, "--limit", str(PAGE), *before, allowed=(DONE, NO_CONVERSATION)
            )
            if code == NO_CONVERSATION or not page:
                return entries
            entries = [*page, *entries]
            if len(page) < PAGE:
                return entries
            before = ["--before", page[0]["message_id"]]

    def texts(self, of: str) -> list[str]:
        """The texts that others wrote in a conversation, oldest first."""
        return [entry["text"] for entry in self.history(of) if self._is_from_others(entry)]

    def state_of(self, conversation: str, message_id: str) -> str | None:
        """How far a message of this node got."""
        for entry in self.history(conversation):
            if entry["message_id"] == message_id:
                return entry["state"]
        return None

    def _is_from_others(self, entry: dict) -> bool:
        return entry["kind"] == "text" and entry["from"] != self.id
