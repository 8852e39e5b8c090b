"""Our small ext_proc proto against Envoy's complete messages: the same bytes, both ways, and nothing lost in between.

The oracle is `envoy-data-plane`, generated from Envoy's own proto files.
"""

from __future__ import annotations

import datetime
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import betterproto2
import pytest
from envoy_data_plane.envoy.service.ext_proc import v3 as theirs_v3
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.internal import api_implementation
from google.protobuf.message import Message

from policyd.adapters.envoy._pb import ext_proc_pb2 as pb
from tests.sizes import size

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.filterwarnings("ignore:.* is deprecated:DeprecationWarning")  # what is deprecated still comes
PAIRS = {
    "request": (pb.ProcessingRequest, theirs_v3.ProcessingRequest),
    "response": (pb.ProcessingResponse, theirs_v3.ProcessingResponse),
}
ROUNDS = size(400)
DEEPEST = 6

# ---- random complete messages, over all of their fields ------------------------------------------------------------


def some_text(chance: random.Random) -> str:
    return "".join(chance.choice("abcZ09-é漢🙂 ") for _ in range(chance.randrange(1, 9)))


def some_scalar(chance: random.Random, kind: str) -> Any:
    match kind:
        case "string":
            return some_text(chance)
        case "bytes":
            return chance.randbytes(chance.randrange(1, 40))
        case "bool":
            return True
        case "double" | "float":
            return float(chance.randrange(-1000, 1000)) / 8
        case _:
            return chance.randrange(1, 2**31 - 1)


def unwrapped(chance: random.Random, python_type: type) -> Any:
    if python_type is datetime.timedelta:
        return datetime.timedelta(milliseconds=chance.randrange(1, 100_000))
    return some_scalar(chance, {bool: "bool", int: "int32", str: "string"}[python_type])


def their_value(chance: random.Random, meta: Any, cls: Any, depth: int) -> Any:
    if meta.unwrap is not None:
        return unwrapped(chance, cls)
    if meta.proto_type == "message":
        return their_message(chance, cls, depth + 1)
    if meta.proto_type == "enum":
        return chance.choice(list(cls))
    return some_scalar(chance, meta.proto_type)


def their_field(chance: random.Random, cls: Any, name: str, depth: int) -> Any:
    about = cls._betterproto
    meta, kind = about.meta_by_field_name[name], about.cls_by_field[name]
    if meta.map_meta is not None:
        value_meta, value_kind = meta.map_meta[1], about.cls_by_field.get(f"{name}.value")
        return {
            some_text(chance): their_value(chance, value_meta, value_kind, depth) for _ in range(chance.randrange(3))
        }
    if meta.repeated:
        return [their_value(chance, meta, kind, depth) for _ in range(chance.randrange(3))]
    return their_value(chance, meta, kind, depth)


def their_message(chance: random.Random, cls: Any, depth: int = 0) -> Any:
    """A message of theirs with about two thirds of its fields set, one of each oneof."""
    metas = cls._betterproto.meta_by_field_name
    groups = {meta.group for meta in metas.values() if meta.group}
    chosen = {group: chance.choice([n for n, m in metas.items() if m.group == group]) for group in sorted(groups)}
    fields = {}
    for name, meta in metas.items():
        nested = meta.proto_type in ("message", "map") and meta.unwrap is None
        if meta.group and chosen[meta.group] != name:
            continue
        if (nested and depth >= DEEPEST) or (not meta.group and chance.random() < 0.35):
            continue
        fields[name] = their_field(chance, cls, name, depth)
    return cls(**fields)


def our_message(chance: random.Random, message: Message, depth: int = 0) -> Any:
    """Fills a message of ours the same way."""
    chosen = {one.name: chance.choice(one.fields).name for one in message.DESCRIPTOR.oneofs}
    for field in message.DESCRIPTOR.fields:
        group = field.containing_oneof
        if group and chosen[group.name] != field.name:
            continue
        if (field.message_type and depth >= DEEPEST) or (not group and chance.random() < 0.35):
            continue
        our_field(chance, message, field, depth)
    return message


def our_field(chance: random.Random, message: Message, field: FieldDescriptor, depth: int) -> None:
    here = getattr(message, field.name)
    if is_map(field):
        for _ in range(chance.randrange(3)):
            our_message(chance, here[some_text(chance)], depth + 1)
    elif field.is_repeated:
        for _ in range(chance.randrange(3)):
            if field.message_type:
                our_message(chance, here.add(), depth + 1)
            else:
                here.append(our_scalar(chance, field))
    elif field.message_type:
        here.SetInParent()
        if field.message_type.full_name == "google.protobuf.Duration":
            here.FromMilliseconds(chance.randrange(1, 100_000))
        else:
            our_message(chance, here, depth + 1)
    else:
        setattr(message, field.name, our_scalar(chance, field))


def our_scalar(chance: random.Random, field: FieldDescriptor) -> Any:
    if field.enum_type:
        return chance.choice(field.enum_type.values).number
    kinds = {FieldDescriptor.TYPE_STRING: "string", FieldDescriptor.TYPE_BYTES: "bytes"}
    kinds |= {FieldDescriptor.TYPE_BOOL: "bool", FieldDescriptor.TYPE_DOUBLE: "double"}
    return some_scalar(chance, kinds.get(field.type, "int32"))


def is_map(field: FieldDescriptor) -> bool:
    return bool(field.message_type and field.message_type.GetOptions().map_entry)


# ---- what both say -------------------------------------------------------------------------------------------------


def differences(ours: Message, theirs: Any, where: str = "") -> Iterator[str]:
    """Every field that ours knows and that does not read the same in theirs."""
    for field in ours.DESCRIPTOR.fields:
        place = f"{where}.{field.name}"
        mine, other = getattr(ours, field.name), getattr(theirs, field.name)
        if is_map(field):
            yield from () if set(mine) == set(other) else (f"{place}: keys",)
            for key in set(mine) & set(other):
                yield from differences(mine[key], other[key], f"{place}[{key}]")
        elif field.is_repeated:
            yield from () if len(mine) == len(other) else (f"{place}: length",)
            for number, (one, two) in enumerate(zip(mine, other, strict=False)):
                yield from value_differences(field, one, two, f"{place}[{number}]")
        elif field.has_presence and ours.HasField(field.name) != (other is not None):
            yield f"{place}: presence"
        elif other is not None:
            yield from value_differences(field, mine, other, place)


def value_differences(field: FieldDescriptor, mine: Any, other: Any, place: str) -> Iterator[str]:
    if isinstance(other, datetime.timedelta):
        yield from () if mine.ToTimedelta() == other else (place,)
    elif field.message_type:
        yield from differences(mine, other, place)
    else:
        same = int(mine) == int(other) if isinstance(other, betterproto2.Enum) else mine == other
        yield from () if same else (f"{place}: {mine!r} {other!r}",)


# ---- the tests -----------------------------------------------------------------------------------------------------


def test_the_stubs_are_the_fast_ones() -> None:
    assert api_implementation.Type() == "upb"


def test_the_stubs_are_fresh() -> None:
    done = subprocess.run([sys.executable, ROOT / "proto" / "generate.py", "--check"], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize("which", PAIRS)
def test_what_envoy_writes_reads_the_same_and_leaves_whole(which: str) -> None:
    ours, theirs = PAIRS[which]
    chance = random.Random(which)
    for _ in range(ROUNDS):
        sent = their_message(chance, theirs)
        data = bytes(sent)
        read = ours.FromString(data)
        assert not list(differences(read, sent))
        again = read.SerializeToString()  # also what ours knows nothing about
        assert theirs.parse(again) == sent == theirs.parse(data)


@pytest.mark.parametrize("which", PAIRS)
def test_what_policyd_writes_reads_the_same(which: str) -> None:
    ours, theirs = PAIRS[which]
    chance = random.Random(which)
    for _ in range(ROUNDS):
        sent = our_message(chance, ours())
        read = theirs.parse(sent.SerializeToString())
        assert not list(differences(sent, read))
        assert ours.FromString(bytes(read)) == sent


@pytest.mark.parametrize("which", PAIRS)
def test_a_field_that_ours_does_not_know_is_kept(which: str) -> None:
    """The oracle's own eyes: without ours in between, dropping unknown fields would be seen."""
    ours, theirs = PAIRS[which]
    chance = random.Random(which)
    lost = 0
    for _ in range(ROUNDS):
        sent = their_message(chance, theirs)
        read = ours.FromString(bytes(sent))
        read.DiscardUnknownFields()
        lost += theirs.parse(read.SerializeToString()) != sent
    assert lost > ROUNDS // 4


def known_pairs(ours: Descriptor, theirs: Any, seen: set[str]) -> Iterator[tuple[FieldDescriptor, Any]]:
    if ours.full_name in seen or ours.full_name.startswith("google."):
        return
    seen.add(ours.full_name)
    about = theirs._betterproto
    for field in ours.fields:
        yield field, about.meta_by_field_name[field.name]
        if field.message_type and not is_map(field):
            other = about.cls_by_field[field.name]
            if other is not datetime.timedelta:
                yield from known_pairs(field.message_type, other, seen)


@pytest.mark.parametrize("which", PAIRS)
def test_every_field_has_envoys_name_number_and_oneof(which: str) -> None:
    ours, theirs = PAIRS[which]
    pairs = list(known_pairs(ours.DESCRIPTOR, theirs, set()))
    assert len(pairs) > 20
    for field, meta in pairs:
        assert (field.name, field.number) == (field.name, meta.number), field.full_name
        group = field.containing_oneof.name if field.containing_oneof else None
        assert group == meta.group, field.full_name
        assert field.is_repeated == (meta.repeated or meta.map_meta is not None), field.full_name


def test_every_field_of_theirs_was_tried() -> None:
    """The random messages reach everything: a field never set would prove nothing."""
    chance, tried = random.Random("reach"), set()
    for _ in range(ROUNDS):
        for _, theirs in PAIRS.values():
            collect(their_message(chance, theirs), tried)
    wanted = {
        f"{theirs.__name__}.{name}" for _, theirs in PAIRS.values() for name in theirs._betterproto.meta_by_field_name
    }
    wanted |= {f"ImmediateResponse.{name}" for name in ("status", "headers", "body", "grpc_status", "details")}
    wanted |= {f"HeaderValueOption.{name}" for name in ("header", "append", "append_action", "keep_empty_value")}
    assert wanted <= tried


def collect(message: Any, tried: set[str]) -> None:
    for name in message._betterproto.meta_by_field_name:
        value = getattr(message, name)
        if not value:
            continue
        tried.add(f"{type(message).__name__}.{name}")
        nested = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
        for one in nested:
            if isinstance(one, betterproto2.Message):
                collect(one, tried)
