"""Operators that reach outside the model, found in the code of a TorchScript archive.

TorchScript is a language of its own with operators that write and map files. Its serialised form
is Python-like and parses with Python's `ast`, so nothing has to run to see what a model calls.
There are two ways to name an operator, and both are looked at: `torch.save(...)` and its kind
(any attribute of that name, for `x.save(...)` on a tensor finds the same operator), and
`ops.namespace.name`, where every namespace but the known computing ones is refused.

This is the first fence. The second is the runner, which loads models nowhere but in a process of
its own without credentials.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

FILE_OPERATORS = frozenset({"save", "from_file"})
REMOTE_CALLS = frozenset({"rpc_async", "rpc_sync", "rpc_remote"})
COMPUTING_NAMESPACES = frozenset(
    {
        "aten",
        "mkldnn",
        "mkldnn_prepacked",
        "onednn",
        "prepacked",
        "prim",
        "quantized",
        "_quantized",
        "sparse",
        "torchvision",
        "xnnpack",
    }
)
COMPUTING_CLASSES = frozenset({"quantized", "rnn", "sparse", "xnnpack", "mkldnn"})
# A second look at the raw text, should torch's parser and Python's ever read a line differently.
_WRITTEN_CALL = re.compile(r"\.[\s\\]*(save|from_file)[\s\\]*\(")


@dataclass(frozen=True)
class Finding:
    """One refused operator and where it is called."""

    file: str
    line: int
    operator: str
    reason: str


class CodeUnreadable(Exception):
    """The code does not parse."""


def refused_operators(source: str, file: str) -> list[Finding]:
    """Every refused operator in one code file, in the order of lines.

    Raises:
        CodeUnreadable: the source is not what torch's serialiser writes.
    """
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise CodeUnreadable(f"line {error.lineno}: {error.msg}") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise CodeUnreadable(f"{error or type(error).__name__}") from error
    found = {(one.line, one.operator): one for one in _findings(tree, file)}
    lines_found = {line for line, _ in found}
    for match in _WRITTEN_CALL.finditer(source):
        line = source.count("\n", 0, match.start(1)) + 1
        if line not in lines_found:
            operator = f"{match[1]}"
            found[line, operator] = Finding(file, line, operator, _FILES)
    return [found[key] for key in sorted(found)]


_FILES = "reads or writes files"


def _findings(tree: ast.AST, file: str) -> Iterator[Finding]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            name = _dotted(node)
            if node.attr in FILE_OPERATORS:
                yield Finding(file, node.lineno, name, _FILES)
            elif reason := _foreign(name):
                yield Finding(file, node.lineno, name, reason)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in REMOTE_CALLS:
                yield Finding(file, node.lineno, node.func.id, "calls other machines")
            elif node.func.id == "getattr" and (named := _constant_name(node)) in FILE_OPERATORS:
                yield Finding(file, node.lineno, f"getattr(..., {named!r})", _FILES)


def _dotted(node: ast.Attribute) -> str:
    parts = [node.attr]
    inner = node.value
    while isinstance(inner, ast.Attribute):
        parts.append(inner.attr)
        inner = inner.value
    parts.append(inner.id if isinstance(inner, ast.Name) else "(...)")
    return ".".join(reversed(parts))


def _foreign(name: str) -> str | None:
    """Why this dotted name is refused: its namespace is not one of those that only compute."""
    parts = name.split(".")
    if parts[0] == "ops" and len(parts) == 3 and parts[1] not in COMPUTING_NAMESPACES:
        return f"belongs to the operator namespace `{parts[1]}`, which is not allowed"
    is_class = parts[:3] == ["__torch__", "torch", "classes"] and len(parts) == 5
    if is_class and parts[3] not in COMPUTING_CLASSES:
        return f"belongs to the class namespace `{parts[3]}`, which is not allowed"
    return None


def _constant_name(call: ast.Call) -> str:
    if len(call.args) < 2 or not isinstance(call.args[1], ast.Constant):
        return ""
    return str(call.args[1].value)
