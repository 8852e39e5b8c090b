"""The pure core: events in, steps out.

Rule 1: nothing in here awaits, opens, logs, or asks for the time.
Rule 2: what the core lacks it asks for (`Need`); the caller brings it.
Rule 3: a failure is an event and leaves as a decision, never as an exception path that forwards.
"""
