"""Checks SREMP from outside, by what its protocol document says.

    verify.py vectors [FOLDER]               every file of golden vectors (default: tests/vectors)
    verify.py relay HOST:PORT RELAY_LINK     a relay that runs: handshake, register, store, read, acknowledge
"""

import pathlib
import sys
import warnings

# Vectors fix the ephemeral keys; the library is right to warn about that.
warnings.filterwarnings("ignore", message="One of ephemeral keypairs is already set")

import relay  # noqa: E402
import vectors  # noqa: E402


def main(arguments):
    match arguments:
        case ["vectors"]:
            folder = pathlib.Path(__file__).resolve().parent.parent / "vectors"
            return vectors.run(folder) > 0
        case ["vectors", folder]:
            return vectors.run(folder) > 0
        case ["relay", address, link]:
            return relay.run(address, link) > 0
        case _:
            print(__doc__, file=sys.stderr)
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
