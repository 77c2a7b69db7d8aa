"""The operators that the code of a TorchScript archive calls, held against the list of those that
a model may use.

TorchScript is a language of its own with operators that write and map files, call other machines
and start work. Its serialised form is Python-like and parses with Python's `ast`, so nothing has
to run to see what a model calls. What a name means is decided by torch's importer, whose rules are
followed here:

1. `torch.x` is `aten::x`, and `ops.a.x` is `a::x`; neither `torch` nor `ops` may stand alone.
2. `value.x(...)` is a method of a class of the file, or else the operator `aten::x` or `prim::x`.
   Types are not worked out: the name must be allowed, or be defined in the file and not refused.
3. `x(...)` is one of a few built-in names, or a function of the file that was given that name.
4. `__torch__.torch.classes.a.X` is written in C++; all else under `__torch__` is the file's own.

This is the first fence. The second is the runner, which loads models nowhere but in a process of
its own.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator, Set
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

from service.models.code_syntax import CodeUnreadable, definitions

FILE_OPERATORS = frozenset({"save", "from_file"})
CLASSES = frozenset(
    {
        "quantized.Conv2dPackedParamsBase",
        "quantized.Conv3dPackedParamsBase",
        "quantized.EmbeddingPackedParamsBase",
        "quantized.LinearPackedParamsBase",
        "rnn.CellParamsBase",
        "sparse.LinearPackedParamsBase",
    }
)
"""Classes written in C++ that hold packed weights and do nothing else."""
_CLASS_METHODS = frozenset({"unpack", "bias", "__getstate__", "__setstate__"})
_BUILTIN = frozenset(
    {"abs", "all", "annotate", "any", "bin", "bool", "chr", "complex", "dict", "divmod"}
    | {"enumerate", "float", "getattr", "hasattr", "hash", "hex", "int", "isinstance", "len"}
    | {"list", "max", "min", "oct", "ord", "pow", "print", "range", "rangelist", "round"}
    | {"sorted", "str", "sum", "tuple", "unchecked_cast", "uninitialized", "zip"}
    | {"Exception", "AssertionError"}
)
_ROOTS = frozenset({"torch", "ops", "__torch__", "CONSTANTS"})
_REFUSED_NAMES = MappingProxyType(
    {"fork": "prim::fork", "awaitable": "prim::awaitable", "id": "prim::id"}
    | {name: f"prim::{name}" for name in ("rpc_async", "rpc_sync", "rpc_remote")}
)
_CUSTOM_CLASS = re.compile(r"__torch__\.torch\.classes\b(?:\.(\w+\.\w+))?")
_METHOD = re.compile(r"^ +def ([A-Za-z_][A-Za-z0-9_]*)\(", re.MULTILINE)
MAX_FINDINGS = 50
_UNKNOWN = "is not among the operators that models may use"
_FILES = "reads or writes files"


@dataclass(frozen=True)
class Finding:
    """One refused operator and where it is called."""

    file: str
    line: int
    operator: str
    reason: str


@dataclass(frozen=True)
class OperatorList:
    """What `allowed_operators.txt` says.

    Attributes:
        allowed: operators a model may use, `namespace::name`.
        refused: known operators it may not, with the reason where there is a special one.
    """

    allowed: frozenset[str]
    refused: MappingProxyType[str, str]


@lru_cache
def operator_list() -> OperatorList:
    """The list that comes with the service; `tools/allowed_operators.py` writes it."""
    allowed: set[str] = set()
    refused: dict[str, str] = {}
    text = Path(__file__).with_name("allowed_operators.txt").read_text("ascii")
    for line in text.splitlines():
        sign, name, *reason = line.split(" ", 2)
        if sign == "+":
            allowed.add(name)
        else:
            refused[name] = reason[0] if reason else _UNKNOWN
    return OperatorList(frozenset(allowed), MappingProxyType(refused))


def defined_methods(source: str) -> set[str]:
    """Names of the methods that the classes of a code file define.

    Found by their lines: a text of the serialiser's never reaches over the end of one.
    """
    return set(_METHOD.findall(source))


def refused_operators(
    source: str, file: str, methods: frozenset[str] | None = None
) -> list[Finding]:
    """Every refused operator in one code file, in the order of lines.

    Args:
        source: the code.
        file: its name, for the findings.
        methods: names of methods that any file of the archive defines; left out, those of this one.

    Raises:
        CodeUnreadable: the source is not what torch's serialiser writes.
    """
    found: dict[tuple[int, str], Finding] = {}
    known = frozenset(defined_methods(source)) if methods is None else methods
    reading = _Reading(file, known)
    for statement in definitions(source):
        for finding in reading.statement(statement):
            found.setdefault((finding.line, finding.operator), finding)
            if len(found) >= MAX_FINDINGS:
                return [found[key] for key in sorted(found)]
    return [found[key] for key in sorted(found)]


def refused_class(name: str) -> str | None:
    """Why a class of this dotted name may not be used; None where it may.

    Args:
        name: dotted, or a type with such names in it.
    """
    for match in _CUSTOM_CLASS.finditer(name):
        if match[1] not in CLASSES:
            return "is a class that is not among those that models may use"
    return None


class _Reading:
    """Finds what one class or function calls."""

    def __init__(self, file: str, methods: frozenset[str]) -> None:
        self._file = file
        self._methods = methods
        self._list = operator_list()

    def statement(self, node: ast.stmt) -> Iterator[Finding]:
        """Findings in a statement of a module."""
        match node:
            case ast.ClassDef(decorator_list=[], keywords=[]):
                for base in node.bases:
                    yield from self._tree(base, frozenset(), frozenset())
                for inner in node.body:
                    if isinstance(inner, ast.FunctionDef):
                        yield from self._function(inner)
                    elif isinstance(inner, ast.Assign | ast.AnnAssign | ast.Pass):
                        yield from self._tree(inner, frozenset(), frozenset())
                    else:
                        raise _unexpected(inner)
            case ast.FunctionDef():
                yield from self._function(node)
            case ast.Assign(targets=[ast.Name("op_version_set")], value=ast.Constant(int())):
                return  # torch 1.0 to 1.2 wrote this at the top
            case _:
                raise _unexpected(node)

    def _function(self, node: ast.FunctionDef) -> Iterator[Finding]:
        if node.decorator_list:
            raise _unexpected(node)
        arguments = node.args
        if arguments.vararg or arguments.kwarg or arguments.posonlyargs:
            raise _unexpected(node)
        parameters = {one.arg for one in (*arguments.args, *arguments.kwonlyargs)}
        stores: Counter[str] = Counter()
        functions: Counter[str] = Counter()
        nested: ast.stmt | None = None
        for inner in ast.walk(node):
            if isinstance(inner, ast.FunctionDef | ast.ClassDef) and inner is not node:
                nested = inner
            if isinstance(inner, ast.Name) and not isinstance(inner.ctx, ast.Load):
                stores[inner.id] += 1
            match inner:
                case ast.Assign(targets=[ast.Name(name)], value=ast.Attribute() as value):
                    path = _dotted(value)
                    functions[name] += path is not None and path[0] == "__torch__"
        for name in sorted((parameters | stores.keys()) & (_ROOTS | _REFUSED_NAMES.keys())):
            raise CodeUnreadable(f"line {node.lineno}: `{name}` is given another meaning")
        # a name is a function of the file where it never has another value
        called = {
            name
            for name, count in functions.items()
            if count == stores[name] and name not in parameters
        }
        found = list(self._tree(node, frozenset(parameters | stores.keys()) - called, called))
        if nested is not None and not found:  # what torch writes for `fork`, and for nothing else
            raise _unexpected(nested)
        yield from found

    def _tree(self, root: ast.AST, bound: frozenset[str], functions: Set[str]) -> Iterator[Finding]:
        within: set[int] = set()  # names and attributes that a longer chain has dealt with
        for node in ast.walk(root):
            if isinstance(node, ast.Call):
                yield from self._call(node, bound, functions)
            if isinstance(node, ast.Attribute):
                if id(node) in within:
                    within.add(id(node.value))
                    continue
                within.add(id(node.value))
                yield from self._attribute(node)
            elif isinstance(node, ast.Name) and node.id in _ROOTS and id(node) not in within:
                raise CodeUnreadable(f"line {node.lineno}: `{node.id}` stands alone")

    def _attribute(self, node: ast.Attribute) -> Iterator[Finding]:
        """The longest chain of names that ends here."""
        path = _dotted(node)
        inner: ast.expr = node
        while isinstance(inner, ast.Attribute):
            if inner.attr in FILE_OPERATORS:
                yield self._finding(node, _written(node), _FILES)
                return
            inner = inner.value
        if path is None or path[0] not in ("torch", "ops", "__torch__"):
            return
        name = ".".join(path)
        if path[0] == "__torch__":
            if reason := refused_class(name):
                yield self._finding(node, name, reason)
            return
        operator = f"aten::{path[1]}" if path[0] == "torch" else "::".join(path[1:3])
        if path[0] == "ops" and len(path) < 3:
            yield self._finding(node, name, _UNKNOWN)
        elif operator not in self._list.allowed:
            yield self._finding(node, name, self._reason(operator))

    def _call(
        self, node: ast.Call, bound: frozenset[str], functions: Set[str]
    ) -> Iterator[Finding]:
        match node.func:
            case ast.Name(name):
                if name in functions:
                    return
                if name in _REFUSED_NAMES:
                    yield self._finding(node, name, self._reason(_REFUSED_NAMES[name]))
                elif name in bound or name not in _BUILTIN:
                    yield self._finding(node, name, _UNKNOWN)
                elif name in ("getattr", "hasattr"):
                    yield from self._named_attribute(node)
            case ast.Attribute():
                path = _dotted(node.func)
                if path is None or path[0] not in ("torch", "ops", "__torch__"):
                    yield from self._method(node, node.func)
            case _:
                yield self._finding(node, ast.unparse(node.func)[:80], _UNKNOWN)

    def _named_attribute(self, node: ast.Call) -> Iterator[Finding]:
        match node.args:
            case [_, ast.Constant(str(name))]:
                if name in FILE_OPERATORS:
                    yield self._finding(node, f"getattr(..., {name!r})", _FILES)
            case _:
                raise CodeUnreadable(f"line {node.lineno}: an attribute without a name")

    def _method(self, node: ast.Call, called: ast.Attribute) -> Iterator[Finding]:
        name = called.attr
        if name in FILE_OPERATORS:
            return  # found as an attribute
        meanings = (f"aten::{name}", f"prim::{name}")
        if any(one in self._list.allowed for one in meanings):
            return
        for one in meanings:
            if one in self._list.refused:
                yield self._finding(node, _written(called), self._list.refused[one])
                return
        if name not in self._methods and name not in _CLASS_METHODS:
            yield self._finding(
                node, _written(called), "is neither an operator nor a method that the file defines"
            )

    def _reason(self, operator: str) -> str:
        known = self._list.refused.get(operator)
        if known is not None:
            return known
        namespace, _, _ = operator.partition("::")
        if not any(one.startswith(f"{namespace}::") for one in self._list.allowed):
            return f"belongs to the operator namespace `{namespace}`, which is not allowed"
        return _UNKNOWN

    def _finding(self, node: ast.expr, operator: str, reason: str) -> Finding:
        return Finding(self._file, node.lineno, operator, reason)


def _dotted(node: ast.expr) -> list[str] | None:
    """The names of a chain of attributes that starts with a name."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return None
    return [node.id, *reversed(parts)]


def _written(node: ast.Attribute) -> str:
    """How a chain is shown: what it starts with, where that is no name, as dots."""
    parts = [node.attr]
    inner = node.value
    while isinstance(inner, ast.Attribute):
        parts.append(inner.attr)
        inner = inner.value
    parts.append(inner.id if isinstance(inner, ast.Name) else "(...)")
    return ".".join(reversed(parts))


def _unexpected(node: ast.stmt) -> CodeUnreadable:
    return CodeUnreadable(f"line {node.lineno}: unexpected {type(node).__name__}")
