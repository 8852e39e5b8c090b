"""What to write instead of an operation whose operands have the wrong types.

Rule 1: a hint is made of the author's own operands; where nothing can be made of them, it says what the types are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from policyd.core.compile.amounts import plain_number, seconds_text
from policyd.core.compile.cel_meant import fields_of_part, fields_of_root, meant_facts, meant_field
from policyd.core.model.detectors import DETECTOR_NAMES

_COMPARED = frozenset(("==", "!=", "<", "<=", ">", ">="))
_ORDERED = frozenset(("<", "<=", ">", ">="))
_NUMBERS = frozenset(("int", "double", "uint"))
_ROOTS = frozenset(("request", "response", "caller", "session"))
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2})?")
_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
_HOURS = 24


@dataclass(frozen=True, slots=True)
class Operation:
    """An operator with its operands as they are written, and their types as the checker names them."""

    sign: str
    left: str
    right: str
    types: tuple[str, str]

    def flipped(self) -> Operation:
        return Operation(_FLIPPED.get(self.sign, self.sign), self.right, self.left, (self.types[1], self.types[0]))


def operator_fix(one: Operation) -> str:
    """The hint for a binary operator."""
    if one.sign in _COMPARED:
        return _null(one) or _compared(one) or _compared(one.flipped()) or _neutral(one)
    if one.sign == "in":
        return _in(one) or _neutral(one)
    if one.sign in ("&&", "||"):
        return _joined(one)
    if one.sign in ("+", "-", "*", "/", "%"):
        return _arithmetic(one) or _neutral(one)
    return _neutral(one)


def _neutral(one: Operation) -> str:
    mixed = mixed_hint(one.types)
    if mixed:
        return mixed
    return f"both sides must fit: `{one.left}` is {_a(one.types[0])}, `{one.right}` {_a(one.types[1])}"


def mixed_hint(types: Sequence[str]) -> str:
    if {"int", "double"} <= set(types):
        return "convert the int: `double(…)`"
    optional = next((one for one in types if one.startswith("optional(")), "")
    return "unwrap the optional: `.orValue(…)`" if optional else ""


def _a(type_: str) -> str:
    return f"{'an' if type_[:1] in 'aeio' else 'a'} {type_}"


def _string(text: str) -> str | None:
    """What a plain string literal holds; None for anything else."""
    found = re.fullmatch(r"""r?(["'])(.*)\1""", text)
    return found[2] if found else None


def element(type_: str) -> str:
    """The type of a list's elements; empty for no list."""
    return type_[5:-1] if type_.startswith("list(") else ""


# ---- comparisons --------------------------------------------------------------------------------------------------


def _null(one: Operation) -> str:
    if "null_type" not in one.types:
        return ""
    subject, type_ = (one.left, one.types[0]) if one.types[1] == "null_type" else (one.right, one.types[1])
    there = one.sign == "!="
    if subject.endswith("]") and "[" in subject:
        table, _, key = subject[:-1].rpartition("[")
        return f"nothing is null here: write `{f'{key} in {table}' if there else f'!({key} in {table})'}`"
    if element(type_) or type_.startswith("map("):
        return f"nothing is null here: write `{subject}.size() {'>' if there else '=='} 0`"
    if "." not in subject or type_ in _ROOTS:
        return "nothing is null here: what was not sent reads as empty, and `has(request.max_tokens)` asks for it"
    return f"nothing is null here: write `{'' if there else '!'}has({subject})`"


def _compared(one: Operation) -> str:
    """Of `left sign right`, where the left side is kept and the right one is made to fit."""
    left, right, sign = one.left, one.right, one.sign
    held = _string(right)
    match one.types:
        case (number, "string") if number in _NUMBERS and held is not None:
            return _number_and_text(one, held)
        case ("string", number) if number in _NUMBERS:
            if sign in _ORDERED:
                return f"write `{left}.size() {sign} {right}` for its length in characters"
            return f'write `{left} {sign} "{right}"`'
        case ("Duration", number) if number in _NUMBERS and not right[:1].isdigit():
            milliseconds = _milliseconds(left) if right.endswith("_ms") else ""
            return (
                f"write `{right} {_FLIPPED.get(sign, sign)} {milliseconds}`: it is in milliseconds"
                if milliseconds
                else ""
            )
        case ("Duration", number) if number in _NUMBERS:
            return f'write `{left} {sign} duration("{seconds_text(right) or "60s"}")`: a duration has a unit'
        case ("Duration", "string") if held is not None:
            return f'write `{left} {sign} duration("{seconds_text(held) or "1h"}")`'
        case ("Timestamp", "string") if held is not None:
            return _time_and_text(left, sign, held)
        case ("Timestamp", number) if number in _NUMBERS:
            hours = right.isdigit() and int(right) <= _HOURS
            return f"write `{left}.getHours() {sign} {right}`" if hours else "compare it with `timestamp(…)`"
        case ("string", "bool") if right in ("true", "false"):
            return f"""write `{left} {"!=" if (right == "true") is (sign == "==") else "=="} ""`"""
        case ("bool", "string") if held is not None and held.lower() in ("true", "false", "yes", "no"):
            return f"write `{_truth(left, sign, held.lower() in ('true', 'yes'))}`"
        case ("bool", number) if number in _NUMBERS:
            return _chained(one) or (f"write `{_truth(left, sign, right != '0')}`" if right in ("0", "1") else "")
        case ("counter", "bool"):
            return f"write `{left}.exceeded`"
        case ("counter", number) if number in _NUMBERS:
            return f"write `{left}.value {sign} {right}`, or `{left}.used {sign} 0.8` for a share of the limit"
        case ("Price", number) if number in _NUMBERS:
            return f"write `{left}.input {sign} {right}` or `{left}.output {sign} {right}`"
        case (root, _) if root in _ROOTS:
            return f"compare one of its fields, as in `{left}.{_sample(root)}`"
        case (type_, _) if inner := element(type_):
            return _list_and(one, inner)
        case ("string", type_) if element(type_) in ("string", "dyn"):
            return f"write `{left} in {right}`" if sign == "==" else f"write `!({left} in {right})`"
        case (type_, "string") if type_.startswith("map(string, string"):
            return f'write `{left}[?"name"].orValue("") {sign} {right}`'
        case (type_, number) if type_.startswith("map(string, int") and number in _NUMBERS:
            return f'write `{left}["{DETECTOR_NAMES[-5]}"] {sign} {right}`, with the name of a detector'
        case (part, "string") if fields := fields_of_part(part):
            return f"write `{left}.{'name' if 'name' in fields and part != 'Message' else fields[0]} {sign} {right}`"
    return ""


def _sample(root: str) -> str:
    return {"request": "model", "response": "text", "caller": "team", "session": "calls"}[root]


def _milliseconds(text: str) -> str:
    found = re.fullmatch(r"""duration\((["'])([0-9.]+)(ms|s|m|h)\1\)""", text)
    return f"{float(found[2]) * {'ms': 1, 's': 1000, 'm': 60_000, 'h': 3_600_000}[found[3]]:g}" if found else ""


_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


def _number_and_text(one: Operation, held: str) -> str:
    short = held.strip().lower()[:3]
    if one.left.endswith("getDayOfWeek()") and short in _DAYS:
        return f"write `{one.left} {one.sign} {_DAYS.index(short)}`: 0 is Sunday"
    if one.left.endswith("getMonth()") and short in _MONTHS:
        return f"write `{one.left} {one.sign} {_MONTHS.index(short)}`: 0 is January"
    if held.strip().endswith("%") and (number := plain_number(held)):
        return f"write `{one.left} {one.sign} {float(number) / 100:g}`: a share is a number from 0 to 1"
    number = plain_number(held)
    if number:
        return f"write `{one.left} {one.sign} {number}`: a number has no quotes"
    return f"`{one.left}` is a number: compare it with a number"


def _time_and_text(left: str, sign: str, held: str) -> str:
    if _DATE.fullmatch(held):
        return f'write `{left} {sign} timestamp("{held}T00:00:00Z")`'
    if found := _TIME.match(held):
        words = found[0].replace(" ", "T")
        words += ":00" if words.count(":") == 1 else ""
        return f'write `{left} {sign} timestamp("{words}Z")`'
    if clock := re.fullmatch(r"([0-9]{1,2})(?::[0-9]{2})?", held):
        return f"write `{left}.getHours() {sign} {int(clock[1])}`"
    return f'write `{left} {sign} timestamp("2026-12-31T00:00:00Z")`'


def _truth(left: str, sign: str, value: bool) -> str:
    return left if (sign == "==") is value else f"!{left}"


def _chained(one: Operation) -> str:
    """`0 < x < 5` is `(0 < x) < 5`."""
    if one.sign not in _ORDERED:
        return ""
    return f"compare twice: `… && {one.left} {one.sign} {one.right}`"


def _list_and(one: Operation, inner: str) -> str:
    left, right, sign = one.left, one.right, one.sign
    other = one.types[1]
    if other in _NUMBERS and inner in _NUMBERS and sign in _ORDERED:
        return f"write `{left}.size() > 0 && {left}[0] {sign} {right}` for the newest one"
    if other in _NUMBERS:
        return f"write `{left}.size() {sign} {right}` for how many there are"
    if other == "string" and inner == "string":
        return f"write `{right} in {left}`" if sign == "==" else f"write `!({right} in {left})`"
    if other == "string" and fields_of_part(inner):
        asked = f"{left}.exists(x, x.{_name_of(inner)} == {right})"
        return f"write `{asked}`" if sign == "==" else f"write `!{asked}`"
    if other == "bool":
        return f"write `{left}.size() > 0`"
    return ""


def _name_of(part: str) -> str:
    return "text" if part == "Message" else "name"


# ---- membership, logic, arithmetic --------------------------------------------------------------------------------


def _in(one: Operation) -> str:
    left, right = one.left, one.right
    left_type, right_type = one.types
    inner = element(right_type)
    if right_type == "string":
        return f"write `{left} == {right}`" if _string(right) is not None else f"write `{right}.contains({left})`"
    if fields_of_part(inner):
        name = _name_of(inner)
        if element(left_type):
            return f"write `{right}.exists(x, x.{name} in {left})`"
        test = f"x.text.contains({left})" if name == "text" else f"x.{name} == {left}"
        return f"write `{right}.exists(x, {test})`"
    if element(left_type):
        field = f".{_name_of(element(left_type))}" if fields_of_part(element(left_type)) else ""
        return f"write `{left}.exists(x, x{field} in {right})`"
    if inner == "string" and left_type in _NUMBERS:
        return f'write `"{left}" in {right}`'
    if right_type == "counter" or right_type in _ROOTS:
        return f"read one of its fields, as in `{right}.{fields_of_root(right_type)[0]}`"
    if fields_of_part(left_type):
        return f"write `{left}.{_name_of(left_type)} in {right}`"
    return ""


def _joined(one: Operation) -> str:
    """A part of a condition that is not true or false by itself."""
    for text, type_ in ((one.right, one.types[1]), (one.left, one.types[0])):
        if type_ == "bool":
            continue
        if type_ == "string" and _string(text) is not None:
            return "each side is a condition of its own: repeat the comparison, or write `… in [" + f'"a", {text}]`'
        return f"each side is a condition of its own: write `{as_condition(text, type_)}`"
    return "each side must be true or false"


def as_condition(text: str, type_: str, *, there: bool = True) -> str:
    """A value that is there, or is not, as a condition."""
    if type_ == "string":
        return f'{text} {"!=" if there else "=="} ""'
    if type_ in _NUMBERS:
        return f"{text} {'>' if there else '=='} 0"
    if element(type_) or type_.startswith("map("):
        return f"{text}.size() {'>' if there else '=='} 0"
    if not there:
        return f"!{text}.exceeded" if type_ == "counter" else f"!({text} == …)"
    return {"counter": f"{text}.exceeded", "Duration": f'{text} > duration("0s")'}.get(type_, f"{text} == …")


def _arithmetic(one: Operation) -> str:
    left, right, (left_type, right_type) = one.left, one.right, one.types
    if one.sign == "+" and left_type == "string":
        return f"write `{left} + string({right})`"
    if one.sign == "+" and right_type == "string":
        return f"write `string({left}) + {right}`"
    if left_type in ("Timestamp", "Duration") and right_type in _NUMBERS:
        return f'write `{left} {one.sign} duration("{seconds_text(right) or "60s"}")`'
    if one.sign == "%" and left_type == "double":
        return "a share is written as a number from 0 to 1: 0.8 for 80 %"
    return ""


# ---- brackets, calls, fields --------------------------------------------------------------------------------------


def bracket_fix(subject: str, key: str, types: tuple[str, str]) -> str:
    """The hint for `subject[key]`."""
    type_, held = types[0], _string(key)
    inner = element(type_)
    if type_ in _ROOTS and held is not None:
        facts = meant_facts(f"{type_}.{held}")
        return f"write `{facts[0] if facts else f'{subject}.{held}'}`"
    if type_ == "counter" and held is not None:
        return f"write `{subject}.{meant_field(held, fields_of_root('counter'), counter=True) or 'value'}`"
    if inner and held is not None:
        return _by_name(subject, held, inner)
    if fields_of_part(type_) and held is not None:
        return f"write `{subject}.{meant_field(held, fields_of_part(type_)) or _name_of(type_)}`"
    if type_ == "string" and subject.endswith(".arguments") and held is not None:
        return arguments_hint(subject)
    if type_ == "string":
        return f"write `{subject}.charAt({key})`, or `{subject}.substring(…)`"
    if type_.startswith("map(string"):
        return f'write `{subject}[?"{key}"].orValue("")`: the key is text'
    return f"`{subject}` is {_a(type_)}: read a list with a number, a map with its key"


def arguments_hint(subject: str) -> str:
    """For `call.arguments.path`: they are JSON text."""
    call = subject.removesuffix(".arguments")
    return f'`arguments` is JSON text: look through its texts, as in `{call}.strings.exists(s, s.contains("…"))`'


def _by_name(subject: str, held: str, inner: str) -> str:
    if held in ("*", ""):
        return f"write `{subject}.exists(x, …)`"
    if field := meant_field(held, fields_of_part(inner)):
        return f"write `{subject}.exists(x, x.{field} == …)`"
    return (
        f'write `{subject}.exists(x, x.{_name_of(inner)} == "{held}")`'
        if fields_of_part(inner)
        else (f'write `"{held}" in {subject}`')
    )


def call_fix(name: str, subject: str, arguments: str, types: Sequence[str]) -> str:
    """The hint for a function that does not take what it was given. `subject`: what it is called on."""
    first, second = (*types, "", "")[:2]
    inner = element(first)
    if not subject and name in ("contains", "startsWith", "endsWith", "matches", "lowerAscii", "split", "exists"):
        target, _, rest = arguments.partition(",")
        return f"write `{target.strip()}.{name}({rest.strip()})`"
    if name == "contains" and inner == "string":
        return f"write `{arguments} in {subject}`"
    if name == "contains" and first.startswith("map("):
        return f"write `{arguments} in {subject}`"
    if inner and name in ("contains", "startsWith", "endsWith", "matches", "lowerAscii", "upperAscii", "trim"):
        part = f"x.{_name_of(inner)}" if fields_of_part(inner) else "x"
        if name == "contains" and _name_of(inner) == "name":
            return f"write `{subject}.exists(x, x.name == {arguments})`"
        return f"write `{subject}.exists(x, {part}.{name}({arguments}))`"
    if element(second) and first == "string":
        return f"write `{arguments}.exists(x, {subject}.{name}(x))`"
    if fields_of_part(first) and name in ("contains", "startsWith", "endsWith", "matches"):
        return f"write `{subject}.{_name_of(first)}.{name}({arguments})`"
    if first in _ROOTS:
        return f"call it on one of its fields, as in `{subject}.{_sample(first)}.{name}({arguments})`"
    if first in _NUMBERS and name in ("contains", "startsWith", "endsWith", "matches"):
        return f"it is a number: compare it, or write `string({subject}).{name}({arguments})`"
    if name in ("duration", "timestamp"):
        given = seconds_text(arguments) or "60s"
        return f'write `duration("{given}")`' if name == "duration" else 'write `timestamp("2026-12-31T00:00:00Z")`'
    if name == "size" and first in _NUMBERS:
        return f"it is a number already: write `{arguments or subject}`"
    if first in ("Timestamp", "Duration"):
        return f"a time is read in parts: `{subject}.getHours()`, `{subject}.getMinutes()`, `{subject}.getSeconds()`"
    if name.startswith("get") and first == "string":
        return f"write `timestamp({subject}).{name}()`, or `now.{name}()`"
    if second in _NUMBERS and first == "string":
        return f'write `{subject}.{name}("{arguments}")`'
    return mixed_hint(types) or "look at its types: " + ", ".join(types)
