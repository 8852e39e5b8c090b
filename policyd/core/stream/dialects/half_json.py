"""How a JSON text that breaks off is ended so that it parses.

Rule 1: a tool call that was cut must not pass for the whole one: its outermost object gets the member CUT_MEMBER, which
        says so to a reader, and which a function with named parameters refuses.
"""

from __future__ import annotations

import re

from policyd.core.errors import Malformed
from policyd.core.stream.json_strict import loads

CUT_MEMBER = '"policyd_cut":true'
HALF_KEY = "_policyd_half"
_PARTIAL_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{0,3})?$")
_HIGH_SURROGATE = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}$")
_LITERALS = ("true", "false", "null")
_WORD = re.compile(r"[A-Za-z]+$")
_HALF_NUMBER = re.compile(r"(?:[-+.]|[0-9.][eE])$")


def remainder(prefix: str) -> str:
    """What makes this beginning of a JSON text a whole one; empty when it is whole already, or cannot become one."""
    if _parses(prefix):
        return ""
    stack, state, text = _scan(prefix)
    if not stack:
        end = "{" + CUT_MEMBER + "}" if not prefix.strip() else ""
    else:
        end = _close(prefix, stack, state, in_text=text)
    return end if _parses(prefix + end) else ""


def _parses(text: str) -> bool:
    try:
        loads(text)
    except Malformed:
        return False
    return True


def _scan(prefix: str) -> tuple[list[str], str, bool]:
    """The open brackets, what stands before the end (`{`, `[`, `,`, `:`, `key`, `value`), and whether inside a text."""
    stack: list[str] = []
    state, inside, escaped = "", False, False
    for char in prefix:
        if inside:
            inside = escaped or char != '"'
            escaped = char == "\\" and not escaped
            continue
        match char:
            case '"':
                inside = True
                state = "key" if stack and stack[-1] == "{" and state in ("{", ",") else "value"
            case "{" | "[":
                stack.append(char)
                state = char
            case "}" | "]":
                if stack:
                    stack.pop()
                state = "value"
            case "," | ":":
                state = char
            case " " | "\t" | "\n" | "\r":
                pass
            case _:
                state = "value"
    return stack, state, inside


def _close(prefix: str, stack: list[str], state: str, *, in_text: bool) -> str:
    end = _end_of_text(prefix) if in_text else _end_of_word(prefix) if state == "value" else ""
    if state == "key":
        # Half a key may be another key of the same object, and no key may stand twice.
        end = (end[:-1] + HALF_KEY + '":null') if in_text else ":null"
    elif state == ":":
        end += "null"
    elif state == ",":
        end += CUT_MEMBER if stack[-1] == "{" else "null"
    marked = state == "," and stack == ["{"]
    for depth in range(len(stack) - 1, -1, -1):
        if depth == 0 and stack[0] == "{" and not marked:
            end += CUT_MEMBER if state == "{" and len(stack) == 1 else "," + CUT_MEMBER
        end += "}" if stack[depth] == "{" else "]"
    return end


def _end_of_text(prefix: str) -> str:
    """Ends a string, an escape or a pair of surrogates that is not whole among its characters."""
    partial = _PARTIAL_ESCAPE.search(prefix)
    if partial and _odd_backslashes(prefix, partial.start()):
        before, have = prefix[: partial.start()], partial[0]
    else:
        before, have = prefix, ""
    if _HIGH_SURROGATE.search(before):
        return r"\udc00"[len(have) :] + '"'
    if have == "\\":
        return '\\"'
    zeros = r"\u0000"[len(have) :] if have else ""
    return zeros + (r"\udc00" if _HIGH_SURROGATE.search(have + zeros) else "") + '"'


def _odd_backslashes(prefix: str, at: int) -> bool:
    """Whether the backslash here begins an escape: an even number stands right before it."""
    before = prefix[:at]
    return (len(before) - len(before.rstrip("\\"))) % 2 == 0


def _end_of_word(prefix: str) -> str:
    """Ends a literal or a number that is not whole."""
    if word := _WORD.search(prefix):
        whole = next((literal for literal in _LITERALS if literal.startswith(word[0])), word[0])
        if whole != word[0]:
            return whole[len(word[0]) :]
    return "0" if _HALF_NUMBER.search(prefix) else ""
