"""One call as a state machine: event -> steps | need. machine.py is the door; the others are the parts of a call.

opening (headers to facts) > admission (may it leave) > departure (how it leaves) > answering (how the answer is read:
streaming or whole) > recording (what it owes, what is written down); joining: policies that come while it runs.
"""

from policyd.core.exchange.call import Ground
from policyd.core.exchange.machine import Exchange
from policyd.core.exchange.state import State

__all__ = ["Exchange", "Ground", "State"]
