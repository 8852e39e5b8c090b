"""Facts that authors probably meant by a name that there is not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from policyd.core.compile.cel_facts import COUNTER_FACTS, FACTS, PART_FIELDS, ROOTS
from policyd.core.compile.synonyms import plainly, singular
from policyd.core.compile.words import close

MAX_MEANT = 3

_WORDS = """
request.model: modelname modelid llm engine
request.models: fallbackmodel
request.text: body prompt input question query content payload usertext prompttext text message userprompt usermessage
request.content: body payload rawbody
request.system: systemprompt systemmessage instruction systemtext
request.messages: message conversation history turn chat
request.tools: tool function toolname tooldefinition
request.tool_results: toolresult toolresponse tooloutput functionresult toolmessage
request.max_tokens: maxtoken maxoutputtoken maxcompletiontoken maxcompletion
request.temperature: temp
request.input_tokens: token prompttoken tokencount inputtoken size length totaltoken estimatedtoken
request.estimated_cost_usd: cost costusd price estimatedcost usd spend
request.headers: header httpheader
request.path: url uri route endpoint urlpath
request.method: verb httpmethod
request.host: hostname authority domain
request.operation: type kind operationtype action
request.provider: vendor backend
request.upstream: cluster
request.tags: tag metadata label meta attribute
request.stream: streaming streamed isstream isstreaming
request.detections: detection pii entity finding
caller.user: userid username user id name email sub subject principal identity uid
caller.team: group team role org department groups teamid teamname
caller.tenant: tenantid org organization organisation customer account company
caller.key: apikey token credential authorization secret keyid
caller.labels: label claim attribute role scope jwt
session.id: sessionid session conversationid threadid
session.calls: call request requestcount count turn callcount number requests
session.cost_usd: cost spend spent totalcost usd price costtotal money
session.tokens: totaltoken tokencount token tokenusage
session.age: duration elapsed lifetime time startedat start length
session.similarity: similar similarities repetition
response.text: body content message output answer completion result choice responsetext outputtext data
response.content: body payload
response.output_tokens: token completiontoken outputtoken totaltoken tokencount usage generatedtoken
response.input_tokens: prompttoken token usage
response.cached_input_tokens: cachedtoken cachetoken
response.reasoning_tokens: thinkingtoken
response.reasoning: thinking thought chainofthought
response.cost_usd: cost price usd costtotal totalcost spend
response.elapsed_ms: latency duration time elapsed responsetime durationms latencyms age runtime elapsedsecond
response.ttft_ms: ttft timetofirsttoken firsttoken
response.finish_reasons: finishreason stopreason stop finish done
response.tool_calls: toolcall functioncall tool function toolname tooluse call calls tools
response.status: iserror error failed ok success statuscode code httpstatus responsecode
response.headers: header
response.refusal: refused isrefusal
response.events: chunk event chunkcount
response.delta: chunk newtext
response.detections: detection pii entity finding
now: time date currenttime datetime timestamp today clock hour
"""
_COUNTER_WORDS = """
value: total count sum current spent amount usage cost token spend consumed
remaining: left available rest balance
used: percent ratio fraction percentage usage share utilization utilisation usedpercent pct
limit: max budget quota cap maximum
exceeded: over reached exhausted isexceeded overlimit exceed full hit violated
held: reserved pending
"""
_PART_WORDS = """
text: content body value message output result data
arguments: args input params parameters argument param inputs
name: function tool id title toolname functionname
kind: type
role: author sender type from
is_error: error failed iserror
call_id: id callid tooluseid
strings: values argvalues
input: prompt in
output: completion out
source: from
"""


def _table(text: str) -> Mapping[str, frozenset[str]]:
    lines = (line.partition(":") for line in text.strip().splitlines())
    return {name: frozenset(singular(plainly(word)) for word in words.split()) for name, _, words in lines}


_FACTS, _COUNTERS, _PARTS = _table(_WORDS), _table(_COUNTER_WORDS), _table(_PART_WORDS)
_ROOT_WORDS = {
    "req": "request", "input": "request", "context": "request", "ctx": "request", "object": "request",
    "http": "request",
    "params": "params", "resp": "response", "res": "response", "output": "response", "answer": "response",
    "result": "response", "reply": "response", "completion": "response", "user": "caller", "client": "caller",
    "principal": "caller", "auth": "caller",
    "jwt": "caller", "claims": "caller", "token": "caller",
    "identity": "caller", "source": "caller", "subject": "caller",
    "caller": "caller", "conversation": "session", "thread": "session", "sess": "session", "budget": "counters",
    "counter": "counters", "quota": "counters", "limit": "counters", "usage": "counters", "var": "variables",
    "vars": "variables", "locals": "variables", "let": "variables", "args": "params", "parameters": "params",

    "variable": "variables", "local": "variables", "param": "params", "arg": "params", "llm": "request",
    "call": "request",
    "self": "request", "msg": "request", "event": "response", "metadata": "request", "destination": "request",
}  # fmt: skip


def meant_facts(name: str) -> list[str]:
    """The facts that a name like `response.tokens`, `model` or `req.user_id` may stand for, likeliest first."""
    root, _, last = name.rpartition(".")
    first, _, rest = name.partition(".")
    if first not in ROOTS and (meant := _root(first)) in ROOTS and rest:
        found = meant_facts(f"{meant}.{rest.partition('.')[0]}")
        path = f"{meant}.{rest.partition('.')[0]}"
        return [path] if path in FACTS else found
    known = tuple(FACTS)
    own = [one for one in known if one.startswith(f"{root}.")] if root else list(known)
    stem = singular(plainly(last))
    joined = singular(plainly(name))
    exact = [one for one in own if one.rpartition(".")[2] == last]
    same = exact or [one for one in own if _stem(one) == stem]
    same = same or [one for one in known if singular(plainly(one)) == joined]
    said = [] if exact else [one for one, words in _FACTS.items() if one in own and stem in words]
    alike = _alike(name, own) if not same and not said else []
    beyond = [one for one in known if root and _stem(one) == stem]
    rooted = root in ROOTS and not (same or said or alike)
    other = [one for one in known if rooted and stem in _FACTS.get(one, ())]
    part = [one for one in own if root and not (same or said or alike) and stem in _pieces(one)]
    return list(dict.fromkeys([*same, *said, *alike, *beyond, *part, *other]))[:MAX_MEANT]


def _alike(name: str, paths: Sequence[str]) -> list[str]:
    """The path whose last name is written almost like that of `name`."""
    root, _, last = name.rpartition(".")
    ends = {path.rpartition(".")[2]: path for path in reversed(paths)}
    near = close(last, ends) if root else close(name, [*paths, *ends])
    return [ends.get(near, near)] if near else []


def _root(word: str) -> str:
    return _ROOT_WORDS.get(word.lower(), word.lower() if word.lower() in ROOTS else close(word, ROOTS) or "")


def meant_root(word: str) -> str:
    """The root (`request`, `counters`, …) that another word stands for; empty for none."""
    return _ROOT_WORDS.get(word.lower(), "") or close(word, (*ROOTS, "counters", "params", "variables")) or ""


def _stem(path: str) -> str:
    return singular(plainly(path.rpartition(".")[2]))


def _pieces(path: str) -> Sequence[str]:
    return [singular(piece) for piece in path.rpartition(".")[2].split("_")]


def meant_field(name: str, fields: Iterable[str], *, counter: bool = False) -> str:
    """The field of a message that was meant; empty for none."""
    every = list(fields)
    stem = singular(plainly(name))
    words = _COUNTERS if counter else _PARTS
    alike = [one for one in every if singular(plainly(one)) == stem]
    alike += [one for one in every if stem in words.get(one, ())]
    return next(iter(alike), "") or close(name, every) or ""


def fields_of_root(root: str) -> list[str]:
    """What a root, or a counter, has."""
    if root == "counter":
        return list(COUNTER_FACTS)
    return [path.partition(".")[2] for path in FACTS if path.startswith(f"{root}.")]


def fields_of_part(part: str) -> tuple[str, ...]:
    return PART_FIELDS[part][1] if part in PART_FIELDS else ()
