"""The one door to CEL: checks an expression, derives what it reads, and judges programs in batches.

Rule 1: what leaves this file is frozen; no handle of an engine does.
Rule 2: variables are inlined into the trees of those that use them, once those are checked: they cost nothing where
        they are not used, and an error in one is an error of its reader.
The work is done in cel_*.py; cel_native.py alone touches cel-expr-python, cel_celpy.py alone celpy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from policyd.core.compile.cel_batch import CelBatch
from policyd.core.compile.cel_check import Checked, Vocabulary, check, problem
from policyd.core.compile.cel_complaints import a, type_name
from policyd.core.compile.cel_fix import as_condition
from policyd.core.compile.cel_limits import MAX_NODES, Finding, findings, too_many
from policyd.core.compile.cel_lower import DetectionInput, FactInput, Input, TextSizeInput, WholeInput, lower, watcher
from policyd.core.compile.cel_native import DYN, Checker, StaticType
from policyd.core.compile.cel_operands import MAX_SHOWN
from policyd.core.compile.cel_problems import CelProblem, Refused, Want
from policyd.core.compile.cel_tokens import place
from policyd.core.compile.cel_traps import INDEX, traps
from policyd.core.compile.cel_tree import Ident, Node, conjuncts, placed, rebuild, walk
from policyd.core.compile.cel_trend import is_monotone
from policyd.core.compile.cel_warn import constant, places, warnings
from policyd.core.compile.policyset import Batch, Program, Watcher
from policyd.core.model.detectors import DETECTORS
from policyd.core.model.reach import VIEWS

__all__ = ["CelEngine", "CelProblem", "CompiledProgram", "Scope", "Want"]


@dataclass(frozen=True, slots=True, eq=False)
class CompiledProgram:
    """One checked expression, ready to be judged in a batch."""

    source: str
    policy: str  # qualified
    want: Want
    reads: frozenset[str]
    watchers: tuple[Watcher, ...]
    monotone: bool  # of a BOOL: once true it stays true while the answer grows
    warnings: tuple[CelProblem, ...]
    inputs: tuple[Input, ...]
    tree: Node  # lowered: its free names are those of `inputs`
    parts: tuple[tuple[int, int], ...]  # line and column of each part that must be true, in the order of the text

    @property
    def sought(self) -> tuple[Watcher, ...]:
        """What its detectors look for in response.content: text that could become a find is kept back for them."""
        names = [one.detector for one in self.inputs if isinstance(one, DetectionInput) and one.root == "response"]
        patterns = [pattern for name in names for pattern in DETECTORS[name].patterns]
        return tuple(watcher("matches", pattern, "content") for pattern in patterns)

    @property
    def whole_texts(self) -> frozenset[str]:
        """Which texts of the response (see VIEWS) go into CEL themselves, beside what is watched as they grow."""
        found: set[str] = set()
        for one in self.inputs:
            match one:
                case FactInput(path=path):
                    found.update(view for view in VIEWS if path == f"response.{view}")
                case WholeInput(root="response"):
                    found.update(VIEWS)
                case TextSizeInput(of=view):
                    found.add(view)
        return frozenset(found)


@dataclass(frozen=True, slots=True)
class _Variable:
    """A variable that compiled: its tree, with the variables before it inlined, and how many nodes that has."""

    tree: Node
    type: StaticType
    nodes: int


@lru_cache(maxsize=256)
def _plain_checker(counters: tuple[str, ...]) -> Checker:
    return Checker(counters, {})


class Scope:
    """What the expressions of one policy may name. `problems` and `warnings` are those of its variables, by name."""

    def __init__(
        self,
        *,
        policy: str,
        counters: Sequence[str],
        params: Mapping[str, object],
        variables: Sequence[tuple[str, str]],
    ) -> None:
        """`policy` is the qualified name; `variables` are names and expressions, each seeing those before it."""
        self.problems: dict[str, tuple[CelProblem, ...]] = {}
        self.warnings: dict[str, tuple[CelProblem, ...]] = {}
        self._policy, self._counters, self._params = policy, tuple(counters), params
        self._variables: dict[str, _Variable] = {}
        self._unusable: dict[str, str] = {
            name: f"`variables.{name}` is declared later: a variable sees only those before it" for name, _ in variables
        }
        self._checker: Checker | None = None
        for name, source in variables:
            self._declare(name, source)

    def compile(self, source: str, want: Want) -> CompiledProgram | tuple[CelProblem, ...]:
        """The program of an expression, or everything that is wrong with it."""
        try:
            return self._program(source, want)
        except Refused as refused:
            return tuple(dict.fromkeys(refused.problems))

    # ---- variables -------------------------------------------------------------------------------------------------

    def _declare(self, name: str, source: str) -> None:
        self._unusable[name] = f"`variables.{name}` refers to itself"
        try:
            checked = self._check(source)
            whole = self._whole(checked)
        except Refused as refused:
            self.problems[name] = tuple(dict.fromkeys(refused.problems))
            self._unusable[name] = f"`variables.{name}` cannot be used: it has a problem of its own"
        else:
            del self._unusable[name]
            self._variables[name] = _Variable(whole, checked.type, _count(whole))
            found = [*warnings(checked.tree, whole), *traps(checked.tree, whole)]
            self.warnings[name] = _problems(checked, places(found))
        self._checker = None

    def _check(self, source: str) -> Checked:
        names = [*self._variables, *self._unusable]
        vocabulary = Vocabulary(self._counters, self._params, names, self._unusable)
        if self._checker is None:
            self._checker = self._new_checker()
        return check(source, vocabulary, self._checker)

    def _new_checker(self) -> Checker:
        if not self._variables and not self._unusable:
            return _plain_checker(self._counters)
        types = {name: variable.type for name, variable in self._variables.items()}
        return Checker(self._counters, types | dict.fromkeys(self._unusable, DYN))

    def _whole(self, checked: Checked) -> Node:
        """The tree with its variables inlined. Counted before it is built: inlining may not explode."""
        used = list(self._used(checked.tree))
        nodes = _count(checked.tree) + sum(variable.nodes - 1 for variable in used)
        if nodes > MAX_NODES:
            raise Refused(*_problems(checked, [too_many(nodes)]))
        whole = self._inlined(checked.tree) if used else checked.tree
        found = list(findings(whole))
        if found:
            raise Refused(*_problems(checked, found))
        return whole

    def _used(self, tree: Node) -> Iterator[_Variable]:
        for node in walk(tree):
            if isinstance(node, Ident) and node.name.startswith("variables."):
                yield self._variables[node.name.removeprefix("variables.")]

    def _inlined(self, node: Node) -> Node:
        if isinstance(node, Ident) and node.name.startswith("variables."):
            return placed(self._variables[node.name.removeprefix("variables.")].tree, node.at)
        return rebuild(node, self._inlined)

    # ---- programs --------------------------------------------------------------------------------------------------

    def _program(self, source: str, want: Want) -> CompiledProgram:
        checked = self._check(source)
        _gives(checked, want)
        whole = self._whole(checked)
        lowered = lower(whole, self._policy)
        found = [*warnings(checked.tree, whole), *traps(checked.tree, whole)]
        if want is Want.STRING:  # where a text cannot be made, the plain one stands
            found = [one for one in found if one[1] != INDEX]
        if want is Want.BOOL and not lowered.inputs:
            found += constant(whole)
        return CompiledProgram(
            source=source,
            policy=self._policy,
            want=want,
            reads=lowered.reads,
            watchers=lowered.watchers,
            monotone=want is Want.BOOL and is_monotone(whole),
            warnings=_problems(checked, places(found)),
            inputs=lowered.inputs,
            tree=lowered.tree,
            parts=tuple(_begin(checked, part) for part in conjuncts(whole)),
        )


def _begin(checked: Checked, part: Node) -> tuple[int, int]:
    at = min((node.at for node in walk(part) if node.at >= 0), default=0)
    return place(checked.text.source, checked.text.origin(at))


def _count(tree: Node) -> int:
    return sum(1 for _ in walk(tree))


def _problems(checked: Checked, found: Sequence[Finding]) -> tuple[CelProblem, ...]:
    return tuple(dict.fromkeys(checked.problem(*one) for one in found))


_GIVES = {
    Want.BOOL: (("bool",), "true or false", "compare it with something"),
    Want.STRING: (("string",), "a string", "convert it: `string(…)`"),
    Want.NUMBER: (("int", "double"), "a number", "convert it: `double(…)`"),
    Want.SCALAR: (("string", "int", "double", "bool"), "a string, a number or a boolean", "convert it: `string(…)`"),
    Want.KEYS: (("string", "list(string)"), "a string or a list of strings", "convert it: `string(…)`"),
}


def _gives(checked: Checked, want: Want) -> None:
    types, needed, hint = _GIVES[want]
    type_ = checked.tree.type
    if type_ in types:
        return
    if type_ == "dyn":
        label = f"this must give {needed}, but its type is known only when it runs"
    else:
        label = f"this must give {needed}, but it is {a(_named(type_))}"
        hint = _given_hint(checked.text.source.strip(), want, type_name(type_), hint)
    if type_.startswith("optional_type("):
        hint = "unwrap the optional: `.orValue(…)`"
    raise Refused(problem(checked.text.source, 0, "CEL005", label, hint))


_SAMPLES = {"request": "model", "response": "text", "caller": "team", "session": "id", "counter": "value"}


def _given_hint(source: str, want: Want, type_: str, hint: str) -> str:
    """What to write instead of a value that its place cannot use."""
    if type_ in _SAMPLES and source.isidentifier() and want is not Want.BOOL:
        return f"write one of its fields, as in `{source}.{_SAMPLES[type_]}`"
    if want is not Want.BOOL or len(source) > MAX_SHOWN:
        return hint
    if type_ in _SAMPLES and type_ != "counter":
        return f"compare one of its fields, as in `{source}.{_SAMPLES[type_]} == …`"
    if source[:1] in "\"'" or source.isdigit():
        return "compare a fact with it, as in `request.model == …`"
    return f"compare it with something, as in `{as_condition(source, type_)}`"


def _named(type_: str) -> str:
    return type_.rpartition(".")[2].lower() if "(" not in type_ else type_name(type_)


class CelEngine:
    """Judges compiled programs with cel-expr-python."""

    def batch(self, programs: Sequence[Program]) -> Batch:
        """Programs of any policies, judged together. Build once, evaluate often."""
        return CelBatch([_compiled(program) for program in programs])


def _compiled(program: Program) -> CompiledProgram:
    if isinstance(program, CompiledProgram):
        return program
    raise TypeError("a batch takes what Scope.compile made")
