"""The wire form of a CEL expression, cel.expr.CheckedExpr: read into a tree, and written back.

Rule 1: ids live on the wire only: writing numbers the nodes afresh.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count

from google.protobuf.any_pb2 import Any as AnyMessage

from policyd.core.compile._pb import celexpr_pb2 as pb
from policyd.core.compile.cel_tree import Call, Const, Entry, Fields, Fold, Ident, Items, Node, Select

# ---- reading ----------------------------------------------------------------------------------------------------


def read_checked(data: bytes) -> Node:
    """The tree of a serialized CheckedExpr."""
    message = pb.CheckedExpr.FromString(AnyMessage.FromString(data).value)
    return _Reader(message.source_info, message.type_map, message.reference_map).node(message.expr)


def read_parsed(data: bytes) -> Node:
    """The tree of a serialized ParsedExpr: no types, names not resolved."""
    message = pb.ParsedExpr.FromString(AnyMessage.FromString(data).value)
    return _Reader(message.source_info, {}, {}).node(message.expr)


class _Reader:
    def __init__(
        self, info: pb.SourceInfo, types: Mapping[int, pb.Type], references: Mapping[int, pb.Reference]
    ) -> None:
        self._positions = dict(info.positions)
        self._types = {id_: type_text(type_) for id_, type_ in types.items()}
        self._overloads = {id_: tuple(reference.overload_id) for id_, reference in references.items()}

    def node(self, expr: pb.Expr) -> Node:
        kind = expr.WhichOneof("expr_kind")
        at, type_ = self._positions.get(expr.id, -1), self._types.get(expr.id, "")
        match kind:
            case "const_expr":
                return _constant(expr.const_expr, type_, at)
            case "ident_expr":
                return Ident(expr.ident_expr.name, type_, at)
            case "select_expr":
                select = expr.select_expr
                return Select(self.node(select.operand), select.field, select.test_only, type_, at)
            case "call_expr":
                return self._call(expr.call_expr, self._overloads.get(expr.id, ()), type_, at)
            case "list_expr":
                items = expr.list_expr
                return Items(tuple(map(self.node, items.elements)), tuple(items.optional_indices), type_, at)
            case "struct_expr":
                struct = expr.struct_expr
                return Fields(tuple(map(self._entry, struct.entries)), struct.message_name, type_, at)
            case "comprehension_expr":
                return self._fold(expr.comprehension_expr, type_, at)
            case _:
                raise ValueError("a node without a kind")

    def _call(self, call: pb.Expr.Call, overloads: tuple[str, ...], type_: str, at: int) -> Call:
        target = self.node(call.target) if call.HasField("target") else None
        return Call(call.function, tuple(map(self.node, call.args)), target, overloads, type_, at)

    def _entry(self, entry: pb.Expr.CreateStruct.Entry) -> Entry:
        key = entry.field_key if entry.WhichOneof("key_kind") == "field_key" else self.node(entry.map_key)
        return Entry(key, self.node(entry.value), entry.optional_entry)

    def _fold(self, fold: pb.Expr.Comprehension, type_: str, at: int) -> Fold:
        return Fold(
            var=fold.iter_var,
            var2=fold.iter_var2,
            over=self.node(fold.iter_range),
            accu=fold.accu_var,
            init=self.node(fold.accu_init),
            condition=self.node(fold.loop_condition),
            step=self.node(fold.loop_step),
            result=self.node(fold.result),
            type=type_,
            at=at,
        )


def _constant(constant: pb.Constant, type_: str, at: int) -> Const:
    kind = constant.WhichOneof("constant_kind")
    if kind is None:
        raise ValueError("a constant without a value")
    value = None if kind == "null_value" else getattr(constant, kind)
    return Const(kind.removesuffix("_value"), value, type_, at)


_PRIMITIVES = ("", "bool", "int", "uint", "double", "string", "bytes")
_WELL_KNOWN = ("", "dyn", "timestamp", "duration")


def type_text(type_: pb.Type) -> str:
    """A static type as CEL writes it."""
    kind = type_.WhichOneof("type_kind")
    match kind:
        case "primitive":
            return _PRIMITIVES[type_.primitive]
        case "wrapper":
            return f"wrapper({_PRIMITIVES[type_.wrapper]})"
        case "well_known":
            return _WELL_KNOWN[type_.well_known]
        case "list_type":
            return f"list({type_text(type_.list_type.elem_type)})"
        case "map_type":
            return f"map({type_text(type_.map_type.key_type)}, {type_text(type_.map_type.value_type)})"
        case "message_type":
            return type_.message_type
        case "abstract_type":
            inner = ", ".join(map(type_text, type_.abstract_type.parameter_types))
            return f"{type_.abstract_type.name}({inner})"
        case "null":
            return "null"
        case "type":
            return "type"
        case _:
            return "dyn"


# ---- writing ----------------------------------------------------------------------------------------------------

_CHECKED_URL = "type.googleapis.com/cel.expr.CheckedExpr"


def write_checked(node: Node) -> bytes:
    """The tree as the serialized form that the runtime takes."""
    message = pb.CheckedExpr()
    _Writer(message).put(node, message.expr)
    return AnyMessage(type_url=_CHECKED_URL, value=message.SerializeToString()).SerializeToString()


class _Writer:
    def __init__(self, message: pb.CheckedExpr) -> None:
        self._references = message.reference_map
        self._ids = count(1)

    def put(self, node: Node, into: pb.Expr) -> None:
        into.id = next(self._ids)
        match node:
            case Const():
                setattr(into.const_expr, f"{node.kind}_value", 0 if node.kind == "null" else node.value)
            case Ident():
                into.ident_expr.name = node.name
                self._references[into.id].name = node.name
            case Select():
                into.select_expr.field, into.select_expr.test_only = node.field, node.test
                self.put(node.operand, into.select_expr.operand)
            case Call():
                self._call(node, into)
            case Items():
                into.list_expr.optional_indices.extend(node.optional)
                for element in node.elements:
                    self.put(element, into.list_expr.elements.add())
                into.list_expr.SetInParent()
            case Fields():
                into.struct_expr.message_name = node.message
                for entry in node.entries:
                    self._entry(entry, into.struct_expr.entries.add())
                into.struct_expr.SetInParent()
            case Fold():
                self._fold(node, into.comprehension_expr)

    def _call(self, node: Call, into: pb.Expr) -> None:
        into.call_expr.function = node.function
        if node.overloads:
            self._references[into.id].overload_id.extend(node.overloads)
        if node.target is not None:
            self.put(node.target, into.call_expr.target)
        for argument in node.args:
            self.put(argument, into.call_expr.args.add())

    def _entry(self, entry: Entry, into: pb.Expr.CreateStruct.Entry) -> None:
        into.id = next(self._ids)
        into.optional_entry = entry.optional
        if isinstance(entry.key, str):
            into.field_key = entry.key
        else:
            self.put(entry.key, into.map_key)
        self.put(entry.value, into.value)

    def _fold(self, node: Fold, into: pb.Expr.Comprehension) -> None:
        into.iter_var, into.iter_var2, into.accu_var = node.var, node.var2, node.accu
        self.put(node.over, into.iter_range)
        self.put(node.init, into.accu_init)
        self.put(node.condition, into.loop_condition)
        self.put(node.step, into.loop_step)
        self.put(node.result, into.result)
