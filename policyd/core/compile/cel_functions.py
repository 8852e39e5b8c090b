"""Functions of other languages, as CEL writes them.

Rule 1: a hint shows the author's own call, rewritten; where that cannot be done, it names the functions that there are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from policyd.core.compile.globs_text import glob_fix
from policyd.core.compile.synonyms import plainly
from policyd.core.compile.words import close

_NAMES = """
size has all exists exists_one map filter contains startsWith endsWith matches in int uint double string bytes bool dyn
duration timestamp type getFullYear getMonth getDate getDayOfMonth getDayOfWeek getDayOfYear getHours getMinutes
getSeconds getMilliseconds orValue or value hasValue optMap optFlatMap charAt indexOf join lastIndexOf lowerAscii
upperAscii replace split substring trim format reverse slice flatten distinct sort sortBy first last
"""
FUNCTIONS = tuple(_NAMES.split())
_GLOBAL = frozenset(
    ("size", "has", "int", "uint", "double", "string", "bytes", "bool", "duration", "timestamp", "type")
)

_OTHERS = """
lowerAscii: lower tolower tolowercase lowercase casefold downcase lc
upperAscii: upper toupper touppercase uppercase upcase uc
size: len length count sizeof strlen cardinality numberof
contains: includes has include containsany contain hasany substringof instr containsignorecase hassubstring
startsWith: hasprefix beginswith prefix startwith isprefix startswithany
endsWith: hassuffix suffix endwith issuffix
matches: regex match test rematch regexmatch search find findall rlike regexp like isregex re2match matchesregex
exists: any some exist anymatch containswhere hassome exits one
all: every forall allmatch each
filter: where select findwhere grep
map: collect foreach pluck transform
getHours: hour hours gethour hourofday
getMinutes: minute minutes getminute
getSeconds: second seconds getsecond totalseconds inseconds
getDayOfWeek: weekday dayofweek getday getweekday isoweekday day
getDate: dayofmonth getdayofthemonth date
getMonth: month months
getFullYear: year getyear
getDayOfYear: yearday
trim: strip trimspace trimstring
string: str tostring text
int: integer parseint toint number atoi
double: float tofloat parsefloat decimal tonumber todouble
duration: timedelta interval
timestamp: datetime parsetime todate
split: explode tokenize
join: implode concat
replace: sub replaceall gsub
indexOf: index strpos locate
charAt: at char
distinct: unique uniq
orValue: ordefault default getordefault coalesce orelse ifnull nvl
"""
_BY_WORD: Mapping[str, str] = {
    word: name.strip()
    for name, _, words in (line.partition(":") for line in _OTHERS.strip().splitlines())
    for word in words.split()
}
_REWRITTEN: Mapping[str, str] = {
    "containsany": "write `{args}.exists(w, {x}.contains(w))`",
    "hasany": "write `{args}.exists(w, {x}.contains(w))`",
    "startswithany": "write `{args}.exists(w, {x}.startsWith(w))`",
    "isempty": "write `{x} == \"\"` of a text, `{x}.size() == 0` of a list",
    "empty": "write `{x} == \"\"` of a text, `{x}.size() == 0` of a list",
    "isnotempty": "write `{x} != \"\"` of a text, `{x}.size() > 0` of a list",
    "notempty": "write `{x} != \"\"` of a text, `{x}.size() > 0` of a list",
    "isblank": "write `{x} == \"\"`",
    "equals": "write `{x} == {args}`",
    "eq": "write `{x} == {args}`",
    "equal": "write `{x} == {args}`",
    "notequals": "write `{x} != {args}`",
    "equalsignorecase": "write `{x}.lowerAscii() == …`, the text in lower case",
    "iequals": "write `{x}.lowerAscii() == …`, the text in lower case",
    "not": "write `!({args})`",
    "and": "write `a && b`",
    "or": "write `a || b`",
    "isset": "write `has({args})`",
    "exists": "write `has({args})`",
    "haskey": "write `{args} in {x}`",
    "containskey": "write `{args} in {x}`",
    "has": "write `{args} in {x}`",
    "weekdayname": "write `{x}.getDayOfWeek() == 1`: 0 is Sunday",
    "defined": "write `has({args})`",
    "get": "write `{x}[?{args}].orValue(\"\")`",
    "lookup": "write `{x}[?{args}].orValue(\"\")`",
    "max": "of two numbers write `math.greatest(a, b)`; of a list `{x}.exists(y, y > …)`",
    "min": "of two numbers write `math.least(a, b)`; of a list `{x}.all(y, y > …)`",
    "sum": "there is no sum: let a counter add up, or compare `size()`",
    "avg": "there is no average: let a counter add up, or compare `size()`",
    "now": "`now` is a value, not a function: write `now`",
    "today": "write `now`, and its parts as `now.getHours()`",
    "isnull": "write `!has({args})`",
    "print": "remove it: an expression only gives a value",
    "glob": "write `{x}.matches(\"^gpt-4.*$\")`, or `match: {{models: [\"gpt-4*\"]}}`",
    "globmatch": "write `{x}.matches(\"^gpt-4.*$\")`, or `match: {{models: [\"gpt-4*\"]}}`",
    "oneof": "write `{x} in [{args}]`",
    "isin": "write `{x} in [{args}]`",
    "in": "write `{x} in [{args}]`",
    "between": "write `{x} >= … && {x} <= …`",
    "abs": "write `math.abs({args})`",
    "round": "write `math.round({args})`",
    "floor": "write `math.floor({args})`",
    "ceil": "write `math.ceil({args})`",
    "keys": "a map is read by key: write `\"name\" in {x}`",
    "values": "a map is read by key: write `{x}[?\"name\"].orValue(\"\")`",
    "parsejson": "there is no JSON here: read `strings` of a tool call, or `matches()` its `arguments`",
    "concat": "write `{x} + {args}`",
    "if": "write `condition ? a : b`",
    "iff": "write `condition ? a : b`",
    "hash": "there is no hash: `caller.key` is a pseudonym already",
}  # fmt: skip
_MACROS = frozenset(("exists", "all", "filter", "map", "exists_one"))
_LIBRARIES = frozenset(
    [
        "regex",
        "re",
        "strings",
        "math",
        "string",
        "json",
        "time",
        "datetime",
        "array",
        "object",
        "glob",
        "sets",
        "optional",
        "cel",
        "lists",
        "net",
        "base64",
        "io",
    ]
)
_GENERAL = (
    "on text there are contains(), startsWith(), endsWith(), matches(), lowerAscii(), size(); on lists exists(), "
    "all(), filter(), size(); on times getHours(), getDayOfWeek()"
)


def is_library(name: str) -> bool:
    """Whether a name is what other languages call a package of functions."""
    return name in _LIBRARIES or name.lower() in _LIBRARIES


def meant_function(name: str) -> str:
    """The function of CEL that another language's name stands for; empty for none."""
    word = plainly(name)
    same = next((one for one in FUNCTIONS if plainly(one) == word), "")
    return same or _BY_WORD.get(word, "")


def function_hint(name: str, target: str, arguments: str, *, bare: bool = False) -> str:
    """The hint for an unknown function. `target`: what it is called on, empty for none. `bare`: no arguments known."""
    word = plainly(name)
    shown = target or arguments.partition(",")[0].strip() or "x"
    if word in ("glob", "globmatch") and (pattern := re.search(r"""(["'])(.*?)\1""", arguments)):
        names = [part.strip() for part in arguments.split(",") if part.strip()[:1] not in "\"'[" and part.strip()]
        return f"write `{glob_fix(target or (names[-1] if names else 'x'), pattern[2])}`"
    if word in _REWRITTEN and not (word == "exists" and (target or "," in arguments)):
        if word in ("keys", "values", "get", "lookup", "haskey", "has") and not target:
            shown, _, arguments = arguments.partition(",")
        if word in ("get", "lookup"):
            key, _, default = arguments.partition(",")
            return f"write `{shown.strip()}[?{key.strip() or '…'}].orValue({default.strip() or chr(34) * 2})`"
        return _REWRITTEN[word].format(x=shown.strip(), args=arguments.strip() or "…")
    known = meant_function(name)
    if not known:
        near = close(name, FUNCTIONS)
        known = near if near is not None and abs(len(near) - len(name)) <= 1 else ""
    return f"did you mean `{_call(known, target, arguments, bare=bare)}`?" if known else _GENERAL


def _call(name: str, target: str, arguments: str, *, bare: bool) -> str:
    """The author's call with another name, on what it is called on in CEL."""
    if name in _GLOBAL and name != "size":
        return f"{name}({arguments or target or '…'})"
    if name == "size":
        return f"size({target or arguments or '…'})"
    if name in _MACROS:
        return _macro(name, target, arguments)
    if not target and arguments:
        parts = [part.strip() for part in arguments.split(",")]
        if name == "matches" and len(parts) > 1 and parts[0][:1] in "\"'r":
            parts.reverse()  # match(pattern, text), as Rego and Python have it
        target, arguments = parts[0], ", ".join(parts[1:])
    if name.startswith("get") or bare:
        arguments = arguments if arguments.startswith(('"', "'")) else ""
    return f"{target}.{name}({arguments})" if target else f"{name}({arguments})"


def _macro(name: str, target: str, arguments: str) -> str:
    if not target:
        target, _, arguments = arguments.partition(",")
    arguments = arguments.strip()
    if "=>" in arguments or "->" in arguments:
        variable, _, body = arguments.replace("->", "=>").partition("=>")
        arguments = f"{variable.strip('() ')}, {body.strip()}"
    if "," not in arguments:
        arguments = "x, …"
    return f"{target.strip()}.{name}({arguments})"
