"""The checker's words, turned into what the author needs: a place, a sentence, a suggestion.

Rule 1: nothing of the checker's vocabulary (containers, structs, overloads) reaches the author.
Rule 2: an error that only follows from another one is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches

from policyd.core.compile.cel_facts import COUNTER_FACTS, FACTS, NOT_YET, PACKAGE, PART_FIELDS, ROOTS
from policyd.core.compile.cel_tokens import Token, dotted_before, offset_of, tokenize

MAX_MESSAGE = 200  # characters: what an author wrote may be part of it
MAX_DEPTH = 32  # of the parser: not ours to change

_FUNCTION_NAMES = """
size has all exists exists_one map filter contains startsWith endsWith matches in int uint double string bytes bool dyn
duration timestamp type getFullYear getMonth getDate getDayOfMonth getDayOfWeek getDayOfYear getHours getMinutes
getSeconds getMilliseconds orValue or value hasValue optMap optFlatMap charAt indexOf join lastIndexOf lowerAscii
upperAscii replace split substring trim format reverse slice flatten distinct sort sortBy
"""
FUNCTIONS = tuple(_FUNCTION_NAMES.split())


@dataclass(frozen=True, slots=True)
class Complaint:
    """One error of the checker: an offset in the text it saw, and its message."""

    offset: int
    message: str


@dataclass(frozen=True, slots=True)
class Explained:
    """A complaint in the author's words; the offset is still one of the checked text."""

    offset: int
    code: str
    message: str
    hint: str = ""


_BLOCK = re.compile(r"^(?:[A-Z_]+: )?ERROR: <input>:(-?\d+):(-?\d+): (.*?)(?: \[[A-Z_]+\])?$", re.MULTILINE)


def complaints(text: str, words: str) -> list[Complaint]:
    """Every error in the checker's answer, with its place."""
    found = [Complaint(offset_of(text, int(match[1]), int(match[2])), match[3]) for match in _BLOCK.finditer(words)]
    return list(dict.fromkeys(found)) or [Complaint(0, words.partition("\n")[0])]


@dataclass(frozen=True, slots=True)
class Names:
    """What may be named beside the facts."""

    counters: tuple[str, ...]
    variables: tuple[str, ...]


class Explainer:
    """Explains the complaints about one text."""

    def __init__(self, text: str, names: Names) -> None:
        self._text = text
        self._names = names
        self._tokens = tokenize(text)
        self._index = {token.start: index for index, token in enumerate(self._tokens)}

    def explain(self, found: Sequence[Complaint]) -> Iterator[Explained]:
        """The complaints, in order, without those that only follow from others."""
        seen_syntax = False
        for complaint in found:
            follows = "<EOF>" in complaint.message or "parsetree" in complaint.message
            if "*error*" in complaint.message or (seen_syntax and follows):
                continue
            seen_syntax = seen_syntax or complaint.message.startswith("Syntax error")
            explained = self._one(complaint)
            yield replace(explained, message=_short(explained.message))

    def _one(self, complaint: Complaint) -> Explained:
        for pattern, method in _EXPLANATIONS:
            match = pattern.search(complaint.message)
            if match:
                explained: Explained = method(self, complaint.offset, match)
                return explained
        return Explained(complaint.offset, "CEL001", plain(complaint.message))

    # ---- names ------------------------------------------------------------------------------------------------------

    def _field(self, offset: int, match: re.Match[str]) -> Explained:
        name, struct = match[1], match[2].rpartition(".")[2]
        found = dotted_before(self._tokens, self._index.get(offset, -1))
        if struct in PART_FIELDS:
            start, label = self._after(offset), f"unknown field `{name}` of a {_spaced(struct)}"
            return Explained(start, "CEL002", label, _did_you_mean(name, PART_FIELDS[struct][1]))
        if struct == "Counter":
            prefix, start = found or ("counters.NAME", offset)
            return _unknown(start, f"{prefix}.{name}", [f"{prefix}.{field}" for field in COUNTER_FACTS])
        prefix, start = struct.lower(), found[1] if found else self._after(offset)
        if f"{prefix}.{name}" in NOT_YET:
            return Explained(start, "CEL004", f"`{prefix}.{name}` is not yet supported", "remove it for now")
        return _unknown(start, f"{prefix}.{name}", FACTS)

    def _undeclared(self, offset: int, match: re.Match[str]) -> Explained:
        name = match[1]
        token = self._at(offset)
        if token is not None and token.text == "(":
            return self._function(offset, name)
        found = dotted_before(self._tokens, self._index[offset]) if token is not None and token.text == "." else None
        start, root = found[1] if found else offset, name.partition(".")[0]
        match root:
            case "counters":
                return self._declared(start, name, "counter", self._names.counters)
            case "variables":
                return self._declared(start, name, "variable", self._names.variables)
            case _ if root in ("has", *FUNCTIONS) and root == name:
                return Explained(start, "CEL002", f"`{name}` is a function", f"call it: `{name}(…)`")
            case _:
                return _unknown_root(start, name)

    def _declared(self, start: int, name: str, kind: str, known: tuple[str, ...]) -> Explained:
        root, _, rest = name.partition(".")
        if not rest:
            hint = (
                f"read one: {_listed(f'{root}.{one}' for one in known)}" if known else f"this policy declares no {root}"
            )
            return Explained(start, "CEL010", f"`{root}` needs the name of a {kind}", hint)
        one = f"{root}.{rest.partition('.')[0]}"
        hint = _did_you_mean(one, [f"{root}.{each}" for each in known]) if known else f"this policy declares no {root}"
        hint = hint or f"declared: {_listed(known)}"
        return Explained(start, "CEL002", f"unknown {kind} `{one}`", hint)

    def _function(self, offset: int, name: str) -> Explained:
        index = self._index[offset]
        start = self._tokens[index - 1].start if index else offset
        if name in FUNCTIONS:
            return Explained(start, "CEL003", f"`{name}` is called with too few or too many values")
        return Explained(start, "CEL002", f"unknown function `{name}`", _did_you_mean(name, FUNCTIONS))

    # ---- types ------------------------------------------------------------------------------------------------------

    def _overload(self, offset: int, match: re.Match[str]) -> Explained:
        function, types = match[1], [_type(one) for one in split_types(match[2])]
        operator = _operator(function)
        if operator == "?:":
            return _ternary(offset, types)
        if operator == "[]":
            return Explained(offset, "CEL003", f"{a(types[0])} cannot be read with {a(types[1])} in brackets")
        if operator is None:
            label = f"`{function}` does not take ({', '.join(types)})"
            return Explained(self._name_before(offset), "CEL003", label, _mixed(types))
        return Explained(offset, "CEL003", f"`{operator}` does not work on {' and '.join(types)}", _mixed(types))

    def _operand(self, offset: int, match: re.Match[str]) -> Explained:
        found = dotted_before(self._tokens, self._index.get(offset, -1))
        subject = f"`{found[0]}`" if found else "this"
        return Explained(
            found[1] if found else offset, "CEL003", f"{subject} is {a(_type(match[1]))} and has no fields"
        )

    # ---- text -------------------------------------------------------------------------------------------------------

    def _reserved(self, offset: int, match: re.Match[str]) -> Explained:
        return Explained(offset, "CEL001", f"`{match[1]}` is a reserved word of CEL")

    def _deep(self, _offset: int, _match: re.Match[str]) -> Explained:
        hint = "parentheses, ternaries and each + or - of a chain count; split it, or move parts into variables"
        return Explained(0, "CEL006", f"nested deeper than {MAX_DEPTH} levels", hint)

    def _unrecognised(self, offset: int, _match: re.Match[str]) -> Explained:
        char = self._text[offset : offset + 1]
        label = "a string that does not end" if char in ("'", '"') else f"`{char}` has no meaning here"
        return Explained(offset, "CEL001", label, _SLIPS.get(char, ""))

    def _ended(self, _offset: int, _match: re.Match[str]) -> Explained:
        return Explained(len(self._text), "CEL001", "the expression ends too early", "something is missing after this")

    def _unexpected(self, offset: int, match: re.Match[str]) -> Explained:
        return Explained(offset, "CEL001", f"unexpected `{match[1]}`", _SLIPS.get(match[1], ""))

    def _missing(self, offset: int, match: re.Match[str]) -> Explained:
        return Explained(offset, "CEL001", f"missing `{match[1]}`")

    def _has(self, offset: int, _match: re.Match[str]) -> Explained:
        return Explained(offset, "CEL010", "has() takes a field, as in has(request.max_tokens)")

    # ---- tokens -----------------------------------------------------------------------------------------------------

    def _at(self, offset: int) -> Token | None:
        index = self._index.get(offset)
        return None if index is None else self._tokens[index]

    def _after(self, offset: int) -> int:
        index = self._index.get(offset, -2) + 1
        return self._tokens[index].start if 0 < index < len(self._tokens) else offset

    def _name_before(self, offset: int) -> int:
        index = self._index.get(offset, 0)
        return self._tokens[index - 1].start if index and self._tokens[index].text == "(" else offset


_SLIPS = {"=": "equality is written ==", "&": "and is written &&", "|": "or is written ||", "and": "write &&",
          "or": "write ||", "not": "write !", "is": "write =="}  # fmt: skip

_EXPLANATIONS = (
    (re.compile(r"undefined field '(.+?)' not found in struct '(.+?)'"), Explainer._field),
    (re.compile(r"undeclared reference to '(.+?)' \(in container"), Explainer._undeclared),
    (re.compile(r"found no matching overload for '(.+?)' applied to '\((.*)\)'"), Explainer._overload),
    (re.compile(r"expression of type '(.+?)' cannot be the operand of a select"), Explainer._operand),
    (re.compile(r"reserved identifier: (\w+)"), Explainer._reserved),
    (re.compile(r"recursion (?:depth|limit)"), Explainer._deep),
    (re.compile(r"token recognition error"), Explainer._unrecognised),
    (re.compile(r"'<EOF>' expecting|at input '<EOF>'"), Explainer._ended),
    (re.compile(r"missing '(.+?)' at"), Explainer._missing),
    (re.compile(r"(?:mismatched|extraneous) input '(.+?)' expecting"), Explainer._unexpected),
    (re.compile(r"no viable alternative at input '(.+?)'"), Explainer._unexpected),
    (re.compile(r"has\(\) argument must be"), Explainer._has),
)


def _short(message: str) -> str:
    return message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 1] + "…"


def plain(message: str) -> str:
    """The checker's sentence as one of ours."""
    text = message.removeprefix("Syntax error: ").replace(f"{PACKAGE}.", "").strip().rstrip(".")
    return text[:1].lower() + text[1:]


def _unknown(start: int, name: str, known: Iterable[str]) -> Explained:
    root, _, last = name.rpartition(".")
    candidates = list(known)
    same = [one for one in candidates if one.rpartition(".")[2] == last]
    hint = f"did you mean {_listed(same)}?" if same else ""
    hint = hint or _did_you_mean(name, [one for one in candidates if one.startswith(f"{root}.")])
    return Explained(start, "CEL002", f"unknown variable `{name}`", hint or _did_you_mean(name, candidates))


def _unknown_root(start: int, name: str) -> Explained:
    last = name.rpartition(".")[2]
    same = [path for path in FACTS if path.rpartition(".")[2] == last]
    close = get_close_matches(name, [*FACTS, *ROOTS, "counters", "params", "variables"], n=1, cutoff=0.7)
    options = close or same[:3]
    hint = (
        f"did you mean {_listed(options)}?"
        if options
        else f"there are {_listed((*ROOTS, 'counters', 'params', 'variables', 'now'))}"
    )
    return Explained(start, "CEL002", f"unknown variable `{name}`", hint)


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"did you mean `{close[0]}`?" if close else ""


def suggestion(root: str, name: str, known: Iterable[str]) -> str:
    """A hint at the closest of the names known below a root, or at all of them."""
    names, name = [f"{root}.{one}" for one in known], f"{root}.{name}"
    return _did_you_mean(name, names) or (f"declared: {_listed(names)}" if names else "")


def _listed(names: Iterable[str]) -> str:
    shown = [f"`{name}`" for name in names]
    return ", ".join(shown[:8]) + (", …" if len(shown) > 8 else "")


def a(noun: str) -> str:
    """The noun with its article."""
    return f"{'an' if noun[:1] in 'aeio' else 'a'} {noun}"


def split_types(text: str) -> list[str]:
    """The types of a signature: `double, map(string, int)` are two."""
    parts, level, start = [], 0, 0
    for index, char in enumerate(text):
        level += (char == "(") - (char == ")")
        if char == "," and level == 0:
            parts.append(text[start:index].strip())
            start = index + 1
    last = text[start:].strip()
    return [*parts, last] if last else parts


def _type(name: str) -> str:
    name = name.replace(f"{PACKAGE}.", "").replace("google.protobuf.", "").replace("optional_type(", "optional(")
    return name.lower() if name in (*(root.title() for root in ROOTS), "Counter") else name


def _spaced(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", " ", name).lower()


def _operator(function: str) -> str | None:
    """How an operator is written; None for a function."""
    known = {"_?_:_": "?:", "_[_]": "[]", "@in": "in", "_[?_]": "[?]", "_?._": ".?", "!_": "!", "-_": "-"}
    match = re.fullmatch(r"_(\W+)_", function)
    return known.get(function) or (match[1] if match else None)


def _ternary(offset: int, types: list[str]) -> Explained:
    if types[0] not in ("bool", "dyn"):
        return Explained(offset, "CEL003", f"the condition before `?` is {a(types[0])}, not a bool")
    return Explained(offset, "CEL003", f"`?:` gives {types[1]} or {types[2]}: both must have one type", _mixed(types))


def _mixed(types: Sequence[str]) -> str:
    if {"int", "double"} <= set(types):
        return "convert the int: `double(…)`"
    optional = next((one for one in types if one.startswith("optional(")), "")
    return "unwrap the optional: `.orValue(…)`" if optional else ""
