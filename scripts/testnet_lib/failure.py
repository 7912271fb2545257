"""How a command of the testnet fails: with a sentence for a person, never with a stack trace."""


class TestnetError(Exception):
    """Something that a person can act on."""


class Broken(TestnetError):
    """A claim that was checked and did not hold."""

    def __init__(self, claim: str, expected: object, seen: object):
        super().__init__(claim)
        self.claim, self.expected, self.seen = claim, expected, seen
