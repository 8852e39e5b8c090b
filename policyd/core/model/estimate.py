"""How many tokens a running answer is, before its provider says: learned for each model from the answers before.

Rule 1: pure: the same finished calls in the same order give the same rates, on every machine.
Rule 2: a call is estimated by one rate from its first byte to its last: `rate` is asked once, and what other calls
        teach meanwhile changes nothing for it.
Rule 3: bounded: the model that was heard of longest ago is forgotten. Names come from outside.
Rule 4: until a model has finished LEAST calls nothing is known of it, and the plain estimate stands.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field, replace

LEAST = 5  # finished calls before they are believed
MODELS = 1024  # that are remembered
SLOWEST = 0.12  # of what a call says more is taken over, once many have been heard
AGAIN = 16  # of so many calls whose events are counted, one has its text counted too
_BOUNDS = (0.2, 20.0)  # a rate beyond these is no rate: what was asked for is not what is billed


def _only(members: bytes) -> bytes:
    return bytes(byte if byte in members else 32 for byte in range(256))


_LETTERS = bytes(range(65, 91)) + bytes(range(97, 123))
_DIGITS = bytes(range(48, 58))
_SIGNS = bytes(byte for byte in range(33, 127) if byte not in _LETTERS + _DIGITS)
_WORDS, _NUMBERS, _MARKS = _only(_LETTERS), _only(_DIGITS), _only(_SIGNS)
_LEADS = (  # first bytes of characters beyond ASCII, and thousandths of a token for one of each
    (bytes(range(0xC2, 0xE0)), 500),  # accents, Cyrillic, Greek, Arabic, Hebrew
    (bytes(range(0xE0, 0xE3)), 700),  # India, Thailand; typographic signs
    (b"\xe3", 750),  # kana, and the signs of East Asia
    (bytes(range(0xE4, 0xEA)), 850),  # Han
    (bytes(range(0xEA, 0xEE)), 800),  # Hangul
    (bytes(range(0xEE, 0xF0)), 800),
    (bytes(range(0xF0, 0xF5)), 2500),  # emoji
)


def weigh(text: str) -> tuple[int, int]:
    """About how many thousandths of a token a text is: its ASCII, and the rest of it.

    Tokens follow words, numbers of up to three digits, runs of signs, and lines; fitted to what a byte-pair vocabulary
    makes of prose, code and JSON.
    """
    data = text.encode("utf-8", "surrogatepass")
    letters, marks = data.translate(_WORDS), data.translate(_MARKS)
    plain = 558 * len(letters.split()) + 113 * (len(letters) - letters.count(b" "))
    plain += 544 * len(marks.split()) + 109 * (len(marks) - marks.count(b" "))
    plain += 1495 * sum((len(number) + 2) // 3 for number in data.translate(_NUMBERS).split())
    plain += 583 * data.count(b"\n") + 932 * data.count(b"\n  ")
    if len(data) == len(text):
        return plain, 0
    return plain, sum(each * (len(data) - len(data.translate(None, lead))) for lead, each in _LEADS)


@dataclass(slots=True)
class Seen:
    """What an answer was, as far as it has been read. `plain` and `other` are thousandths of a token, see `weigh`."""

    pieces: int = 0  # events that carried text
    plain: int = 0
    other: int = 0
    counted: int = 0  # tokens that a tokenizer made of it, as it came
    reasoned: bool = False  # reasoning was among the text
    weighed: bool = False  # the text was weighed, and not its events alone counted
    before: tuple[int, int, int, int] | None = (
        None  # input, output, cached, written: before the provider's last numbers
    )


@dataclass(frozen=True, slots=True)
class Rate:
    """What is known of a model. A rate is how much more there is in truth than the plain estimate says."""

    calls: int = 0
    piece: float = 1.0  # tokens of an event that carries text
    plain: float = 1.0
    other: float = 1.0
    input: float = 1.0
    tools: float = 1.0  # the input of requests that offer tools
    off_piece: float = 0.0  # how far the estimate by events was off lately, as a part of the truth
    off_text: float = 0.0  # the same by text
    off_counted: float = 0.0  # the same by a tokenizer
    tokenizer: str = ""  # of this call: the vocabulary that counts what it can in the rate's place

    @property
    def known(self) -> bool:
        return self.calls >= LEAST

    @property
    def by_pieces(self) -> bool:
        """Whether the events tell better than the text: most providers send a token an event."""
        return self.known and self.off_piece < self.off_text

    @property
    def weighs(self) -> bool:
        """Whether this call's text is weighed; where events tell better, now and then, to go on learning."""
        return not self.by_pieces or self.calls % AGAIN == 0

    @property
    def miscounted(self) -> bool:
        """Whether it is no model of that vocabulary, whatever its name says: what was learned tells better."""
        return self.known and self.off_counted > max(0.1, self.error)

    @property
    def error(self) -> float:
        """How far the output's estimate was off lately, as a part of the truth."""
        return min(self.off_piece, self.off_text)

    def input_tokens(self, estimate: int, *, tools: bool) -> int:
        """The plain estimate of a request's input, as this model counts."""
        return round(estimate * (self.tools if tools else self.input)) if self.known else estimate


UNKNOWN = Rate()


@dataclass(slots=True)
class Estimates:
    """The rates of every model that was heard of lately."""

    _rates: OrderedDict[tuple[str, str], Rate] = field(default_factory=OrderedDict)

    def rate(self, provider: str, model: str) -> Rate:
        """What is known of a model now."""
        return self._rates.get((provider, model[:256]), UNKNOWN)

    def learn_output(self, provider: str, model: str, seen: Seen, tokens: int) -> None:
        """An answer that streamed is over: its provider says how many tokens the text that was seen is."""
        if not seen.pieces or tokens <= 0:
            return
        old = self.rate(provider, model)
        step = max(SLOWEST, 1 / (old.calls + 1))
        off = abs(seen.counted / tokens - 1) if seen.counted else old.off_counted
        new = replace(
            old,
            calls=old.calls + 1,
            piece=_bound(old.piece + step * (tokens / seen.pieces - old.piece)),
            off_counted=old.off_counted + step * (off - old.off_counted),
            off_piece=old.off_piece + step * (abs(old.piece * seen.pieces / tokens - 1) - old.off_piece),
        )
        self._put(provider, model, _with_text(new, old, seen, tokens, step) if seen.weighed else new)

    def learn_input(self, provider: str, model: str, estimate: int, tokens: int, *, tools: bool) -> None:
        """The same of a request's input."""
        if estimate <= 0 or tokens <= 0:
            return
        old = self.rate(provider, model)
        step = max(SLOWEST, 1 / max(1, old.calls))
        ratio = tokens / estimate
        if tools:
            new = replace(old, tools=_bound(old.tools + step * (ratio - old.tools)))
        else:
            new = replace(old, input=_bound(old.input + step * (ratio - old.input)))
        self._put(provider, model, new)

    def _put(self, provider: str, model: str, rate: Rate) -> None:
        key = (provider, model[:256])
        self._rates[key] = rate
        self._rates.move_to_end(key)
        if len(self._rates) > MODELS:
            self._rates.popitem(last=False)

    def clear(self) -> None:
        """Forget every model: dry runs that are to be compared begin alike."""
        self._rates.clear()

    def copy(self) -> Estimates:
        """What is known now, to go back to."""
        return Estimates(self._rates.copy())

    def become(self, other: Estimates) -> None:
        """Know what the other knows, and nothing else."""
        self._rates = other._rates.copy()

    def __len__(self) -> int:
        return len(self._rates)


def _with_text(new: Rate, old: Rate, seen: Seen, tokens: int, step: float) -> Rate:
    """Both rates move by what their part of the text had in the miss (normalised least mean squares)."""
    plain, other = seen.plain / 1000, seen.other / 1000
    size = plain * plain + other * other
    if not size:
        return new
    miss = tokens - (old.plain * plain + old.other * other)
    off = old.off_text + step * (abs(miss) / tokens - old.off_text)
    pull = max(step, 0.3) if old.calls < 4 * LEAST else step
    return replace(
        new,
        plain=_bound(old.plain + pull * miss * plain / size),
        other=_bound(old.other + pull * miss * other / size),
        off_text=off,
    )


def _bound(value: float) -> float:
    return min(max(value, _BOUNDS[0]), _BOUNDS[1])
