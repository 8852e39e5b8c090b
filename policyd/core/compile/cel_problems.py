"""What can be wrong with an expression, as values; positions count inside the author's own text.

CEL001 syntax             CEL002 unknown variable, field, counter, parameter or function
CEL003 wrong types        CEL004 not yet supported
CEL005 the expression does not give what its place needs
CEL006 too large: text, nodes, nesting, depth
CEL007 a regular expression that is invalid, too large, or not constant
CEL008 a concatenation inside a loop
CEL009 a variable that cannot be used: later in order, or broken itself
CEL010 a name or value that is used in a way it cannot be
Warnings:
CEL101 an ordering over an optional number without has()
CEL102 a map read with a key that may be missing
CEL103 the same answer whatever the call
CEL104 a constant that always fails
CEL105 a share compared with a number over 1
CEL106 a value that a fact never is, or a name that is never there
CEL107 a pattern or glob where text is compared, or the other way round
CEL108 an index into a list that can be too short
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True, order=True)
class CelProblem:
    """One thing wrong with an expression; line and column count from 1, in characters, inside its text."""

    line: int
    column: int
    message: str
    hint: str
    code: str


class Want(Enum):
    """What the place of an expression needs it to give."""

    BOOL = "bool"
    STRING = "string"
    NUMBER = "number"  # int or double
    KEYS = "keys"  # a string or a list of strings
    SCALAR = "scalar"  # a string, a number or a boolean


class Refused(Exception):  # noqa: N818 - carries findings, and never leaves the compiler
    """An expression that cannot be compiled, with everything found wrong with it."""

    def __init__(self, *problems: CelProblem) -> None:
        super().__init__(problems[0].message if problems else "")
        self.problems = problems
