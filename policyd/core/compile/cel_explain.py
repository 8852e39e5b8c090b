"""The checker's words, turned into what the author needs: a place, a sentence, a suggestion.

Rule 1: nothing of the checker's vocabulary (containers, structs, overloads) reaches the author.
Rule 2: an error that only follows from another one is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from policyd.core.compile.cel_complaints import Complaint, a, operator, plain, spaced, split_types, type_name
from policyd.core.compile.cel_facts import FACTS, NOT_YET, PART_FIELDS, ROOTS
from policyd.core.compile.cel_fix import (
    Operation,
    arguments_hint,
    as_condition,
    bracket_fix,
    call_fix,
    element,
    mixed_hint,
    operator_fix,
)
from policyd.core.compile.cel_functions import FUNCTIONS, function_hint, is_library, meant_function
from policyd.core.compile.cel_meant import fields_of_root, meant_facts, meant_field, meant_root
from policyd.core.compile.cel_slips import Slip, slips
from policyd.core.compile.cel_syntax import Explained, TextExplainer
from policyd.core.compile.cel_tokens import dotted_before
from policyd.core.compile.words import close

MAX_MESSAGE = 200  # characters: what an author wrote may be part of it
_OTHER_VALUES = {"True": "true", "False": "false", "TRUE": "true", "FALSE": "false", "None": "null", "nil": "null",
                 "undefined": "null", "NULL": "null", "Null": "null", "yes": "true", "no": "false"}  # fmt: skip
_MEANT_INSTEAD = {
    "request.prompt": "the text of the prompt is `request.text`, the system prompt `request.system`",
    "request.intent": 'compare `request.text`, or a tag: `request.tags[?"intent"].orValue("")`',
    "caller.risk": 'compare `caller.labels[?"risk"].orValue("")`',
    "session.tool_cycle": "for repetition there is `session.similarity`, for many calls `session.calls`",
    "session.novelty": "for repetition there is `session.similarity`",
}


@dataclass(frozen=True, slots=True)
class Names:
    """What may be named beside the facts."""

    counters: tuple[str, ...]
    variables: tuple[str, ...]


class Explainer(TextExplainer):
    """Explains the complaints about one text."""

    def __init__(self, text: str, names: Names) -> None:
        super().__init__(text)
        self._names = names
        self._asked: list[tuple[int, int]] = []  # arguments of unknown functions: names in them may be bound by these

    def explain(self, found: Sequence[Complaint]) -> Iterator[Explained]:
        """The complaints, in order, without those that only follow from others."""
        slipped = list(slips(self._text, self._tokens))
        syntax = any(_is_syntax(one) for one in found)
        yield from (_of_slip(one) for one in (slipped[:1] if syntax else slipped))
        if syntax and slipped:
            return
        self._asked = [span for one in found if (span := self._arguments_of(one))]
        seen_syntax = False
        for complaint in found:
            follows = "<EOF>" in complaint.message or "parsetree" in complaint.message
            if "*error*" in complaint.message or (seen_syntax and follows) or self._follows(complaint, slipped):
                continue
            seen_syntax = seen_syntax or complaint.message.startswith("Syntax error")
            explained = self._one(complaint)
            yield replace(explained, message=_short(explained.message))

    def _follows(self, complaint: Complaint, slipped: Sequence[Slip]) -> bool:
        """Whether a complaint is about what a slip has told of, or a name that an unknown macro would bind."""
        if any(slip.start <= complaint.offset < slip.end for slip in slipped):
            return True
        if any(slip.start == self._right_start(complaint) for slip in slipped):
            return True
        name = re.search(r"undeclared reference to '(\w+)", complaint.message)
        if name is None or name[1] in (*ROOTS, "counters", "variables", "params", "now"):
            return False
        token = self._at(complaint.offset)
        before = self._token(self._index.get(complaint.offset, 0) - 1)
        if token is not None and token.text == "(":
            return False
        if before is not None and before.text == "." and is_library(name[1]):
            return False
        after = self._token(self._index.get(complaint.offset, -2) + 1)
        if is_library(name[1]) and after is not None and after.text == ".":
            return any(start == complaint.offset for start, _ in self._libraries())
        return any(start < complaint.offset < end for start, end in self._asked)

    def _right_start(self, complaint: Complaint) -> int:
        """Where the right operand of the operator begins that a complaint is about; -1 for none."""
        if "no matching overload" not in complaint.message:
            return -1
        span = self._operands.right(self._index.get(complaint.offset, -9))
        token = self._token(span[0]) if span else None
        after = self._token(self._index.get(complaint.offset, -9) + 2)
        if token is None and after is not None:
            return after.start
        return token.start if token is not None else -1

    def _libraries(self) -> Iterator[tuple[int, int]]:
        """Where `regex.match(` and the like stand: the function is told of, not the name before it."""
        for at, token in enumerate(self._tokens[:-2]):
            called = self._tokens[at + 1].text == "." and self._operands.postfix(at + 1) > at + 3
            if called and token.kind == "name" and is_library(token.text):
                yield token.start, token.end

    def _arguments_of(self, complaint: Complaint) -> tuple[int, int] | None:
        """The span of the arguments of a function that is unknown."""
        token = self._at(complaint.offset)
        if token is None or token.text != "(" or "undeclared" not in complaint.message:
            return None
        return token.start, self._tokens[self._operands.closing(self._index[token.start])].end

    def _one(self, complaint: Complaint) -> Explained:
        for pattern, method in _EXPLANATIONS:
            match = pattern.search(complaint.message)
            if match:
                explained: Explained = method(self, complaint.offset, match)
                return explained
        return Explained(complaint.offset, "CEL001", plain(complaint.message))

    # ---- names -----------------------------------------------------------------------------------------------------

    def _field(self, offset: int, match: re.Match[str]) -> Explained:
        name, struct = match[1], match[2].rpartition(".")[2]
        found = dotted_before(self._tokens, self._index.get(offset, -1))
        if struct in PART_FIELDS:
            fields = PART_FIELDS[struct][1]
            near = meant_field(name, fields)
            hint = f"did you mean `{near}`?" if near else f"{a(spaced(struct))} has {', '.join(fields)}"
            return Explained(self._after(offset), "CEL002", f"unknown field `{name}` of a {spaced(struct)}", hint)
        if struct == "Counter":
            prefix, start = found or ("counters.NAME", offset)
            near = meant_field(name, fields_of_root("counter"), counter=True)
            every = ", ".join(fields_of_root("counter"))
            hint = f"did you mean `{prefix}.{near}`?" if near else f"a counter has {every}"
            return Explained(start, "CEL002", f"unknown variable `{prefix}.{name}`", hint)
        prefix, start = struct.lower(), found[1] if found else self._after(offset)
        if f"{prefix}.{name}" in NOT_YET:
            instead = _MEANT_INSTEAD[f"{prefix}.{name}"]
            return Explained(start, "CEL004", f"`{prefix}.{name}` is not yet supported", instead)
        return self._unknown(start, f"{prefix}.{name}", offset)

    def _unknown(self, start: int, name: str, offset: int) -> Explained:
        root, _, last = name.partition(".")
        label = f"unknown variable `{name}`"
        after = self._token(self._index.get(offset, -2) + 3)
        if last in ("has", "get") and after is not None:
            return Explained(start, "CEL002", label, 'write `has(request.max_tokens)`, or `"name" in request.headers`')
        following = self._rest(offset)
        chained = [one for one in (f"{root}.{word}" for word in following) if one in FACTS]
        hint = _either([*chained, *[one for one in meant_facts(name) if one not in chained]])
        return Explained(start, "CEL002", label, hint or f"{root} has {', '.join(fields_of_root(root))}")

    def _rest(self, offset: int) -> list[str]:
        """The names that follow an unknown field, as `model` in `request.body.model`."""
        at, names = self._index.get(offset, -9) + 2, []
        while (dot := self._token(at)) is not None and dot.text == "." and (word := self._token(at + 1)) is not None:
            names.append(word.text)
            at += 2
        return names

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
            case _ if root in ("has", *FUNCTIONS) and root == name and name not in ("first", "last"):
                return Explained(start, "CEL002", f"`{name}` is a function", f"call it: `{name}(…)`")
            case _:
                return self._unknown_root(start, name)

    def _declared(self, start: int, name: str, kind: str, known: tuple[str, ...]) -> Explained:
        root, _, rest = name.partition(".")
        if not rest:
            given = self._token(self._index.get(start, -3) + 2)
            bracket = self._token(self._index.get(start, -3) + 1)
            if bracket is not None and bracket.text == "[" and given is not None and given.kind == "string":
                hint = f"write `{root}.{given.text.strip(chr(34) + chr(39))}`, with a dot"
            elif known:
                hint = f"read one: {_listed(f'{root}.{one}' for one in known)}"
            else:
                hint = f"this policy declares no {root}"
            return Explained(start, "CEL010", f"`{root}` needs the name of a {kind}", hint)
        one = f"{root}.{rest.partition('.')[0]}"
        near = close(rest.partition(".")[0], known)
        hint = f"did you mean `{root}.{near}`?" if near else ""
        hint = hint or f"{_OWN[kind]}; {f'it declares {_listed(known)}' if known else f'it declares no {root}'}"
        return Explained(start, "CEL002", f"unknown {kind} `{one}`", hint)

    def _unknown_root(self, start: int, name: str) -> Explained:
        label = f"unknown variable `{name}`"
        if name in _OTHER_VALUES:
            return Explained(start, "CEL002", label, self._other_value(start, _OTHER_VALUES[name]))
        root, _, rest = name.partition(".")
        if near := close(rest or root, self._names.counters) if not rest or root not in ROOTS else None:
            return Explained(start, "CEL002", label, f"did you mean `counters.{near}`?")
        field = rest.partition(".")[0]
        if root in self._names.counters:
            there = meant_field(field, fields_of_root("counter"), counter=True) or "value"
            return Explained(start, "CEL002", label, f"did you mean `counters.{root}.{there}`?")
        own = [
            f"counters.{one}.{root}" for one in self._names.counters if not rest and root in fields_of_root("counter")
        ]
        if own:
            return Explained(start, "CEL002", label, _either(own[:3]))
        if near := close(root, self._names.variables):
            return Explained(start, "CEL002", label, f"did you mean `variables.{near}`?")
        other = meant_root(root)
        if rest and other in ("counters", "variables", "params"):
            return Explained(start, "CEL002", label, f"did you mean `{other}.{rest}`?")
        if hint := _either(meant_facts(name)):
            return Explained(start, "CEL002", label, hint)
        return Explained(start, "CEL002", label, self._text_or_root(start, name))

    def _other_value(self, start: int, value: str) -> str:
        """`x == None`, `True`: what another language calls this value."""
        at = self._index.get(start, 0)
        sign, first = self._token(at - 1), self._token(at - 2)
        if value != "null" or sign is None or first is None or sign.text != "=" or first.text not in ("=", "!"):
            return f"in CEL it is written `{value}`" if value != "null" else "nothing is null here: ask with has()"
        left = self._operands.text(self._operands.left(at - 2))
        return operator_fix(Operation(f"{first.text}=", left, "null", ("", "null_type")))

    def _text_or_root(self, start: int, name: str) -> str:
        """A name that is like no other: text without quotes, where it is compared; else what there is."""
        before = self._token(self._index.get(start, 0) - 1)
        if before is not None and before.text in ("=", "[", ",", "(", "in") and "." not in name:
            return f'text needs quotes: "{name}"'
        return f"there are {_listed((*ROOTS, 'counters', 'params', 'variables', 'now'))}"

    def _function(self, offset: int, name: str) -> Explained:
        index = self._index[offset]
        start = self._tokens[index - 1].start if index else offset
        arguments = self._operands.text((index + 1, self._operands.closing(index)))
        arguments = "" if arguments == "…" and self._operands.closing(index) == index + 1 else arguments
        subject = ""
        dot = self._token(index - 2)
        if dot is not None and dot.text == "." and (span := self._operands.left(index - 2)):
            subject = self._operands.text(span)
        library = is_library(subject.rpartition(".")[2]) and "." not in subject
        if (subject and f"{subject}.{name}" in FACTS) or (
            subject.startswith("counters.") and name in fields_of_root("counter")
        ):
            return Explained(
                start, "CEL002", f"`{name}` is a value, not a function", f"write `{subject}.{name}`, without ()"
            )
        if subject.endswith((".headers", ".tags", ".labels")) and name in ("has", "exists", "contains", "all"):
            return Explained(
                start, "CEL002", f"unknown function `{name}` of a map", f"write `{arguments} in {subject}`"
            )
        if name in ("exists", "all", "exists_one", "filter", "map") and subject and "," not in arguments:
            variable = arguments.split(".")[0].strip("(!) ")
            fix = f"{subject}.{name}({variable if variable.isidentifier() else 'x'}, {arguments or '…'})"
            return Explained(start, "CEL003", f"`{name}` takes the name of an item and a condition", f"write `{fix}`")
        if name in FUNCTIONS and (subject or name in ("size", "duration", "timestamp", "has")) and not library:
            label = f"`{name}` is called with too few or too many values"
            return Explained(start, "CEL003", label, _ARGUMENTS.get(name, "look at its arguments"))
        if library:
            name = "glob" if subject == "glob" else name
            subject = ""
        hint = function_hint(name, subject, arguments)
        return Explained(start, "CEL002", f"unknown function `{name}`", hint)

    # ---- types -----------------------------------------------------------------------------------------------------

    def _overload(self, offset: int, match: re.Match[str]) -> Explained:
        function, types = match[1], [type_name(one) for one in split_types(match[2])]
        sign = operator(function)
        at = self._index.get(offset, -1)
        if sign == "?:":
            return _ternary(offset, types)
        if sign == "[]":
            subject = self._operands.text(self._operands.left(at))
            key = self._operands.text((at + 1, self._operands.closing(at)))
            label = f"{a(types[0])} cannot be read with {a(types[1])} in brackets"
            return Explained(offset, "CEL003", label, bracket_fix(subject, key, (types[0], types[1])))
        if sign is None:
            return self._called(offset, function, types)
        label = f"`{sign}` does not work on {' and '.join(types)}"
        if len(types) == 1 and sign in ("!", "-"):
            return Explained(offset, "CEL003", label, self._negated(at, sign, types[0]))
        if len(types) != _BINARY:
            return Explained(offset, "CEL003", label, mixed_hint(types) or "look at the types of its values")
        left, right = self._operands.text(self._operands.left(at)), self._operands.text(self._right(at))
        hint = operator_fix(Operation(sign, left, right, (types[0], types[1])))
        return Explained(offset, "CEL003", label, hint)

    def _right(self, at: int) -> tuple[int, int] | None:
        token, after = self._token(at), self._token(at + 1)
        twice = token is not None and after is not None and after.start == token.end and after.text in ("=", "&", "|")
        return self._operands.right(at + 1 if twice and token is not None and token.kind == "mark" else at)

    def _negated(self, at: int, sign: str, type_: str) -> str:
        value = self._operands.text(self._operands.right(at))
        return f"write `{as_condition(value, type_, there=False)}`" if sign == "!" else f"`{value}` is {a(type_)}"

    def _called(self, offset: int, function: str, types: Sequence[str]) -> Explained:
        at = self._index.get(offset, 0)
        start = self._name_before(offset)
        label = f"`{function}` does not take ({', '.join(types)})"
        arguments = self._operands.text((at + 1, self._operands.closing(at)))
        dot = self._token(at - 2)
        method = dot is not None and dot.text == "."
        subject = self._operands.text(self._operands.left(at - 2)) if method else ""
        return Explained(start, "CEL003", label, call_fix(function, subject, arguments, types))

    def _operand(self, offset: int, match: re.Match[str]) -> Explained:
        index = self._index.get(offset, -1)
        found = dotted_before(self._tokens, index)
        start = found[1] if found else offset
        subject = f"`{found[0]}`" if found else "this"
        type_ = type_name(match[1])
        label = f"{subject} is {a(type_)} and has no fields"
        return Explained(start, "CEL003", label, self._field_hint(index, type_))

    def _field_hint(self, dot: int, type_: str) -> str:
        subject = self._operands.text(self._operands.left(dot))
        word, after = self._token(dot + 1), self._token(dot + 2)
        name = word.text if word else ""
        inner = element(type_)
        if inner in PART_FIELDS and (field := meant_field(name, PART_FIELDS[inner][1])):
            end = self._operands.postfix(dot + 2)
            rest = self._operands.text((dot + 2, end)) if end > dot + 2 else ""
            asked = f"x.{field}{rest or self._compared(end)}"
            return f"a list has no fields, its items have: write `{subject}.exists(x, {asked})`"
        if meant_function(name) and not (after is not None and after.text == "."):
            return function_hint(name, subject, "", bare=True)
        if subject.endswith(".arguments"):
            return arguments_hint(subject)
        if inner:
            return f"a list has no fields: write `{subject}.exists(x, …)`, or `{subject}.size()`"
        if type_.startswith("optional("):
            return "unwrap the optional: `.orValue(…)`"
        parent, _, last = subject.rpartition(".")
        return (
            f"`{last}` is the value itself: write `{subject}`, or another field of `{parent}`"
            if parent
            else (f"it is {a(type_)}: use the value itself")
        )

    def _compared(self, at: int) -> str:
        """A comparison that stands at a token, as text: ` == "x"`."""
        sign, second = self._token(at), self._token(at + 1)
        if sign is None or sign.text not in ("=", "!", "<", ">"):
            return " …"
        both = second is not None and second.text == "=" and second.start == sign.end
        return f" {sign.text}{'=' if both else ''} {self._operands.text(self._operands.right(at + both))}"


_BINARY = 2
_OWN = {
    "counter": "a policy reads its own counters alone, never those of another policy: declare it here",
    "variable": "a policy reads its own variables alone: declare it here",
}
_ARGUMENTS = {
    "exists": 'write `list.exists(x, x.name == "…")`',
    "all": 'write `list.all(x, x.name == "…")`',
    "filter": 'write `list.filter(x, x.name == "…")`',
    "map": "write `list.map(x, x.name)`",
    "contains": 'it takes one text: `x.contains("a")`; of several write `x.contains("a") || x.contains("b")`',
    "startsWith": 'it takes one text: of several write `x.startsWith("a") || x.startsWith("b")`',
    "endsWith": 'it takes one text: of several write `x.endsWith("a") || x.endsWith("b")`',
    "matches": "it takes one pattern; for lower and upper case alike begin it with `(?i)`",
    "size": "write `size(x)` or `x.size()`",
    "has": "write `has(request.max_tokens)`",
    "orValue": 'write `.orValue("")`',
    "duration": 'write `duration("60s")`',
    "timestamp": 'write `timestamp("2026-12-31T00:00:00Z")`',
}

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


def _is_syntax(complaint: Complaint) -> bool:
    return complaint.message.startswith(("Syntax error", "reserved identifier"))


def _of_slip(slip: Slip) -> Explained:
    return Explained(slip.start, "CEL001", _short(slip.message), slip.hint)


def _short(message: str) -> str:
    return message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 1] + "…"


def _either(names: Sequence[str]) -> str:
    shown = [f"`{name}`" for name in names]
    if not shown:
        return ""
    return f"did you mean {' or '.join([', '.join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)}?"


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    near = close(name, list(known))
    return f"did you mean `{near}`?" if near else ""


def suggestion(root: str, name: str, known: Iterable[str]) -> str:
    """A hint at the closest of the names known below a root, or at all of them."""
    names, name = [f"{root}.{one}" for one in known], f"{root}.{name}"
    return _did_you_mean(name, names) or (f"declared: {_listed(names)}" if names else "")


def _listed(names: Iterable[str]) -> str:
    shown = [f"`{name}`" for name in names]
    return ", ".join(shown[:8]) + (", …" if len(shown) > 8 else "")


def _ternary(offset: int, types: list[str]) -> Explained:
    if types[0] not in ("bool", "dyn"):
        hint = f"write a comparison, as in `{as_condition('x', types[0])}`"
        return Explained(offset, "CEL003", f"the condition before `?` is {a(types[0])}, not a bool", hint)
    label = f"`?:` gives {types[1]} or {types[2]}: both must have one type"
    return Explained(offset, "CEL003", label, mixed_hint(types) or "convert one: `string(…)`, `double(…)`")
