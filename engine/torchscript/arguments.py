"""What `forward` takes, and values held against it.

TorchScript checks arguments itself, but only when called, without saying which item of a nested
one is wrong, and it does not turn an integer into a float or a text into a dictionary's integer
key. The engine's own interpreter checks nothing at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from engine.torchscript.program import Program


@dataclass(frozen=True)
class Argument:
    """One argument of forward.

    Attributes:
        name: as in the source.
        type: TorchScript's own description, for `fitted` and `arranged`.
        optional: has a default.
        default: where it is optional.
        keyword_only: cannot be given by position.
    """

    name: str
    type: Any
    optional: bool
    default: Any
    keyword_only: bool

    def __str__(self) -> str:
        shown = f" = {self.default!r}" if self.optional else ""
        return f"{self.name}: {self.type.annotation_str}{shown}"


class Misfit(Exception):
    """A value is not of the type that is wanted.

    Attributes:
        path: keys and indices that lead to it.
        wanted: the type, in words.
        given: the value, in words.
        hint: how a recipe says it.
    """

    def __init__(self, wanted: str, value: Any, hint: str) -> None:
        super().__init__(wanted)
        self.path: list[str | int] = []
        self.wanted = wanted
        self.given = in_words(value)
        self.hint = hint


def arguments_of(program: Program) -> list[Argument]:
    """What forward takes, without self; of a joint program what its methods take, in order."""
    return [
        argument for method in program.methods for argument in arguments_of_method(program, method)
    ]


def arguments_of_method(program: Program, method: str) -> list[Argument]:
    """What one method takes, without self."""
    schema = program.schema(method)
    return [
        Argument(
            name=argument.name,
            type=argument.type,
            optional=argument.has_default_value(),
            default=argument.default_value if argument.has_default_value() else None,
            keyword_only=argument.kwarg_only,
        )
        for argument in schema.arguments[1:]
    ]


def fitted(wanted: Any, value: Any) -> Any:
    """The value as a type of TorchScript takes it.

    Integers become floats and the keys of dictionaries numbers where the type says so.

    Raises:
        Misfit: it is of another type.
    """
    kind = wanted.kind()
    if kind in _CONTAINERS:
        return _CONTAINERS[kind](wanted, value)
    if kind == "OptionalType":
        return None if value is None else fitted(wanted.getElementType(), value)
    if kind == "UnionType":
        for choice in wanted.containedTypes():
            try:
                return fitted(choice, value)
            except Misfit:
                continue
    elif kind in _PLAIN:
        accepts, convert, hint = _PLAIN[kind]
        if type(value) in accepts or (accepts == (Tensor,) and isinstance(value, Tensor)):
            return convert(value)
        raise Misfit(wanted.annotation_str, value, hint)
    raise Misfit(wanted.annotation_str, value, "a recipe has no way to write such an argument")


def arranged(wanted: Any, value: Any) -> Any:
    """Nested dictionaries with the keys `0`, `1`, ... where a list or a tuple is wanted, as such.

    Tensors of a dataset come by name; only the type says what the names mean.
    """
    kind = wanted.kind()
    if kind == "OptionalType":
        return arranged(wanted.getElementType(), value)
    if not isinstance(value, dict):
        return value
    if kind == "DictType":
        return {key: arranged(wanted.getValueType(), item) for key, item in value.items()}
    if kind not in {"ListType", "TupleType"} or set(value) != {str(i) for i in range(len(value))}:
        return value
    items = [value[str(i)] for i in range(len(value))]
    if kind == "ListType":
        return [arranged(wanted.getElementType(), item) for item in items]
    kinds = wanted.elements()
    return tuple(
        arranged(kinds[i], item) if i < len(kinds) else item for i, item in enumerate(items)
    )


def in_words(value: Any) -> str:
    """What a value is, for messages."""
    if isinstance(value, Tensor):
        return "a tensor"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, dict):
        return f"a dictionary of {len(value)}"
    if value is None or isinstance(value, bool):
        return str(value).lower() if value is not None else "null"
    return f"the text {value!r}" if isinstance(value, str) else f"the number {value}"


def _list(wanted: Any, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise Misfit(wanted.annotation_str, value, "write it as `{list: [...]}`")
    return [_at(i, wanted.getElementType(), item) for i, item in enumerate(value)]


def _tuple(wanted: Any, value: Any) -> tuple[Any, ...]:
    kinds = wanted.elements()
    if not isinstance(value, tuple) or len(value) != len(kinds):
        hint = f"write it as `{{tuple: [...]}}` of {len(kinds)} entries"
        raise Misfit(wanted.annotation_str, value, hint)
    return tuple(_at(i, kinds[i], item) for i, item in enumerate(value))


def _dict(wanted: Any, value: Any) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise Misfit(wanted.annotation_str, value, "write it as `{dict: {key: ...}}`")
    found = {}
    for key, item in value.items():
        found[_key(wanted, key)] = _at(key, wanted.getValueType(), item)
    return found


def _key(wanted: Any, key: Any) -> Any:
    convert = _KEYS.get(wanted.getKeyType().kind())
    try:
        if convert is not None:
            return convert(key)
    except ValueError:
        pass
    hint = f"its keys are {wanted.getKeyType().annotation_str}"
    raise Misfit(wanted.annotation_str, key, hint)


def _at(key: str | int, wanted: Any, value: Any) -> Any:
    try:
        return fitted(wanted, value)
    except Misfit as misfit:
        misfit.path.insert(0, key)
        raise


def _same(value: Any) -> Any:
    return value


_Container = Callable[[Any, Any], Any]
_CONTAINERS: dict[str, _Container] = {"ListType": _list, "TupleType": _tuple, "DictType": _dict}
_KEYS: dict[str, Callable[[Any], Any]] = {"StringType": _same, "IntType": int, "FloatType": float}
_NUMBER = "write it as `{value: 3}`"
_PLAIN: dict[str, tuple[Sequence[type], Callable[[Any], Any], str]] = {
    "TensorType": ((Tensor,), _same, "write it as `{shape: [1, 3, 224, 224]}`"),
    "IntType": ((int,), _same, _NUMBER),
    "FloatType": ((int, float), float, "write it as `{value: 0.5}`"),
    "ComplexType": ((int, float, complex), complex, _NUMBER),
    "NumberType": ((bool, int, float), _same, _NUMBER),
    "BoolType": ((bool,), _same, "write it as `{value: true}`"),
    "StringType": ((str,), _same, "write it as `{value: text}`"),
    "NoneType": ((type(None),), _same, "write it as `{value: null}`"),
}
"""Per kind: Python types that are taken, what makes the value of them, how a recipe says it."""
