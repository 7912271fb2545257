"""The parts of `scripts/testnet`, `scripts/kill-test` and `scripts/race-test`, from the bottom up:

failure       how a command of the testnet fails, in words for a person
patience      waiting by asking again, within bounds
ports         addresses that programs can have to themselves
process       one operating-system process: start, ready line, signals
programs      what the three programs want on their command lines; the only module that knows
network       a testnet: its programs and its directory
node          a node spoken to through its own command line
transcript    a story as it is told on a terminal
story         the demo
killing       the test with a thousand messages and many kills
racing        the test with two admins who change one group at the same moments
command_line  what people type
"""
