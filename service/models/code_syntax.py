"""The code of a TorchScript archive as a syntax tree, in bounded time and memory.

torch's parser and Python's agree on what the serialiser writes, and not beyond: triple quotes,
prefixed strings, comments that hold types, tabs and line continuations are read differently or by
one of them only. So the text is first held against the tokens that the serialiser writes; this also
bounds depth and number of what `ast.parse` then builds. Definitions are parsed one by one, for a
syntax tree takes a hundred times the bytes of its text.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import pairwise

MAX_TOKENS = 500_000
"""In one class or function."""
_MAX_BRACKETS = 64
_MAX_INDENT = 100

_TOKEN = re.compile(
    r"""
    (?P<space>[ ]+)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?!["'])
    |(?P<number>(?:[0-9]|\.[0-9])(?:[0-9a-zA-Z_.]|(?<=[eE])[-+])*)(?!["'])
    |(?P<string>"(?!"")(?:[^"\\\n]|\\(?:[\\"'abfnrtv]|[0-3][0-7]{2}))*"
               |'(?!'')(?:[^'\\\n]|\\(?:[\\"'abfnrtv]|[0-3][0-7]{2}))*')
    |(?P<open>[(\[{])
    |(?P<close>[)\]}])
    |(?P<line>\n)
    |(?P<operator>!=|[-+*/%&|^~<>=:,.])
    """,
    re.VERBOSE,
)
_DEFINITION = re.compile(r"^(?=[^ \n)])", re.MULTILINE)

_NODES: tuple[type[ast.AST], ...] = (
    # what stands in a module and a class
    *(ast.Module, ast.ClassDef, ast.FunctionDef, ast.arguments, ast.arg, ast.keyword),
    # statements
    *(ast.Return, ast.Assign, ast.AnnAssign, ast.AugAssign, ast.For, ast.While, ast.If, ast.With),
    *(ast.withitem, ast.Pass, ast.Break, ast.Continue, ast.Assert, ast.Raise, ast.Expr, ast.Delete),
    # expressions
    *(ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.IfExp, ast.Dict, ast.Compare, ast.Call, ast.Constant),
    *(ast.Attribute, ast.Subscript, ast.Name, ast.List, ast.Tuple, ast.Slice, ast.Starred),
    *(ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.expr_context),
)


class CodeUnreadable(Exception):
    """The code is not what torch's serialiser writes; the text says where."""


def definitions(source: str) -> Iterator[ast.stmt]:
    """Every class and function of one file, in order, with line numbers of the file.

    Raises:
        CodeUnreadable: the source is not what torch's serialiser writes.
    """
    starts = [match.start() for match in _DEFINITION.finditer(source)]
    first = starts[0] if starts else len(source)
    if source[:first].strip("\n"):
        raise CodeUnreadable("line 1: unexpected indent")
    for start, stop in pairwise([*starts, len(source)]):
        text = source[start:stop]
        line = source.count("\n", 0, start)
        _scan(text, line)
        for statement in _parsed(text, line):
            ast.increment_lineno(statement, line)
            _check_nodes(statement)
            yield statement


def _scan(text: str, first_line: int) -> None:
    """Refuse characters, depths and amounts that the serialiser does not write."""
    position = depth = tokens = 0
    line = first_line + 1
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise CodeUnreadable(f"line {line}: unexpected {text[position : position + 20]!r}")
        position = match.end()
        tokens += 1
        kind = match.lastgroup
        if kind == "open":
            depth += 1
            if depth > _MAX_BRACKETS:
                raise CodeUnreadable(f"line {line}: more than {_MAX_BRACKETS} nested brackets")
        elif kind == "close":
            depth -= 1
        elif kind == "line":
            line += 1
            if text.startswith(" " * (2 * _MAX_INDENT), position):
                raise CodeUnreadable(f"line {line}: too deep an indent")
        if depth < 0:
            raise CodeUnreadable(f"line {line}: unmatched {match.group()!r}")
        if tokens > MAX_TOKENS:
            raise CodeUnreadable(
                f"line {first_line + 1}: a definition of more than {MAX_TOKENS} words and signs"
            )


def _parsed(text: str, line: int) -> list[ast.stmt]:
    try:
        return ast.parse(text).body
    except SyntaxError as error:
        raise CodeUnreadable(f"line {line + (error.lineno or 1)}: {error.msg}") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise CodeUnreadable(f"line {line + 1}: {error or type(error).__name__}") from error


def _check_nodes(statement: ast.stmt) -> None:
    for node in ast.walk(statement):
        if not isinstance(node, _NODES):
            where = getattr(node, "lineno", statement.lineno)
            raise CodeUnreadable(f"line {where}: unexpected {type(node).__name__}")
