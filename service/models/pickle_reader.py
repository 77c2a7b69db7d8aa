"""The pickles of a TorchScript archive, read without executing anything.

torch writes its pickles with a few opcodes of protocol 2 and reads them back with an interpreter
in C++, which builds what it is told to. Here the same opcodes move stand-ins on a stack: of classes
and functions only the names are kept, of tensors where they lie and how they are shaped. What torch
never writes (other opcodes, other callables, memo numbers out of turn) is refused, so that
Python's idea of the stream and torch's cannot differ.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Any

from service.models.pickle_calls import call, storage_of
from service.models.pickle_values import (
    GlobalRef,
    Opaque,
    PickleContent,
    PickleRefused,
    Weighed,
    is_allowed,
    is_class,
)
from service.models.storage_types import TensorRef

MAX_OPCODES = 4_000_000
_MAX_TEXT = 1 << 20
_INT64 = 1 << 63
_MAX_WEIGHT = 50_000_000


def read_pickle(
    data: bytes, *, plain: bool = False, max_opcodes: int = MAX_OPCODES
) -> PickleContent:
    """Walk the whole pickle.

    Args:
        data: its bytes.
        plain: allow neither objects nor tensors, as in tables of source lines.
        max_opcodes: refuse more.

    Raises:
        PickleRefused: it holds what torch does not write.
    """
    machine = _Machine(data, plain=plain)
    try:
        return machine.run(max_opcodes)
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise PickleRefused(f"it is cut off or damaged at byte {machine.position}") from error


class _Machine:
    def __init__(self, data: bytes, *, plain: bool) -> None:
        self._data = data
        self.position = 0
        self._plain = plain
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: list[Any] = []
        self._content = PickleContent()

    def run(self, max_opcodes: int) -> PickleContent:
        if self._data[:2] != b"\x80\x02":
            raise PickleRefused("it is not a pickle of protocol 2")
        self.position = 2
        data, actions = self._data, _ACTIONS
        for count in range(max_opcodes):
            code = data[self.position]
            self.position += 1
            if code == 0x2E:  # STOP
                self._content.opcodes = count
                return self._finish()
            action = actions.get(code)
            if action is None:
                raise PickleRefused(
                    f"it has the opcode {code:#04x} at byte {self.position - 1}, which torch does "
                    "not write"
                )
            action(self)
        raise PickleRefused(f"it has more than {max_opcodes} opcodes")

    def _finish(self) -> PickleContent:
        if self._marks or len(self._stack) != 1:
            raise PickleRefused("it ends with more or less than one value")
        if self.position != len(self._data):
            raise PickleRefused("it has bytes behind its end")
        self._content.root = self._stack[0]
        return self._content

    # what the actions below are made of

    def take(self, size: int) -> bytes:
        start = self.position
        self.position += size
        if self.position > len(self._data):
            raise PickleRefused("it is cut off")
        return self._data[start : self.position]

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def pop(self) -> Any:
        if self._marks and self._marks[-1] == len(self._stack):
            raise PickleRefused("it takes a value that is not there")
        return self._stack.pop()

    def pop_to_mark(self) -> list[Any]:
        start = self._marks.pop()
        values = self._stack[start:]
        del self._stack[start:]
        return values

    def mark(self) -> None:
        self._marks.append(len(self._stack))
        if len(self._marks) > 1000:
            raise PickleRefused("its values are nested too deeply")

    def remember(self, number: int) -> None:
        # torch numbers them in order; a large number would make its reader reserve memory
        if number != len(self._memo):
            raise PickleRefused(f"its memo jumps to {number}")
        value = self.pop()
        self._stack.append(value)
        self._memo.append(value)

    def recall(self, number: int) -> None:
        self._stack.append(self._memo[number])

    def push_tuple(self, values: list[Any]) -> None:
        if any(isinstance(one, Opaque | tuple) for one in values):
            made = Weighed(values)
            made.weight = self.place(values)
            self._stack.append(made)
        else:
            self._stack.append(tuple(values))

    def place(self, values: Iterable[Any]) -> int:
        """Put values into another, and return their weight."""
        weight = 1
        for one in values:
            if isinstance(one, Opaque):
                one.placed = True
                weight += one.weight
            else:
                weight += one.weight if isinstance(one, Weighed) else 1
        if weight > _MAX_WEIGHT:
            raise PickleRefused("its values contain each other too many times")
        return weight

    def container(self, kind: str) -> None:
        self._stack.append(Opaque(kind))

    def fill(self, kind: str, values: list[Any]) -> None:
        target = self.pop()
        self._stack.append(target)
        weight = self.place(values)
        if not isinstance(target, Opaque) or target.kind != kind or target.placed:
            raise PickleRefused(f"it adds to what is no {kind}, or not its own any more")
        target.weight += weight
        if kind == "dict":
            if len(values) % 2:
                raise PickleRefused("a dictionary has a key without a value")
            if any(
                not isinstance(key, str | int | float | complex | Opaque | TensorRef | tuple)
                for key in values[::2]
            ):
                raise PickleRefused("a dictionary has a key that cannot be one")

    def text(self, size: int) -> None:
        if size > _MAX_TEXT:
            raise PickleRefused(f"it has a text of {size} bytes; {_MAX_TEXT} are allowed")
        self._stack.append(self.take(size).decode("utf-8"))

    def long(self, size: int) -> None:
        value = int.from_bytes(self.take(size), "little", signed=True)
        if size > 9 or not -_INT64 <= value < _INT64:
            raise PickleRefused("it has a number of more than 64 bits")
        self._stack.append(value)

    def line(self) -> str:
        end = self._data.index(b"\n", self.position, self.position + 2000)
        return self.take(end + 1 - self.position)[:-1].decode("ascii")

    def name(self) -> None:
        try:
            module, name = self.line(), self.line()
        except ValueError as error:
            raise PickleRefused(f"a name at byte {self.position} cannot be read") from error
        found = GlobalRef(module, name)
        if is_class(found) and not self._plain:
            self._content.classes.add(found.dotted)
        elif not is_allowed(found) or (self._plain and module != "torch.jit._pickle"):
            raise PickleRefused(f"it names `{found.dotted[:200]}`, which no model needs")
        self._stack.append(found)

    def new_object(self) -> None:
        arguments, kind = self.pop(), self.pop()
        if arguments != () or not is_class(kind):
            raise PickleRefused("it makes an object of what is no class of the program")
        self._stack.append(Opaque("object"))

    def build(self) -> None:
        weight = self.place([self.pop()])
        target = self.pop()
        if not isinstance(target, Opaque) or target.kind != "object" or target.placed:
            raise PickleRefused("it sets the state of what is no object, or has one already")
        target.weight += weight
        self._stack.append(target)

    def call(self) -> None:
        arguments, target = self.pop(), self.pop()
        if not isinstance(target, GlobalRef) or not isinstance(arguments, tuple):
            raise PickleRefused("it calls what cannot be called")
        weight = self.place(arguments)
        self._stack.append(call(target, arguments, weight, self._content))


_Action = Callable[[_Machine], None]


def _setters() -> dict[int, _Action]:
    """What each opcode does to the machine."""

    def tuple_of(count: int) -> _Action:
        def act(machine: _Machine) -> None:
            values = [machine.pop() for _ in range(count)]
            machine.push_tuple(values[::-1])

        return act

    def constant(value: Any) -> _Action:
        return lambda machine: machine.push(value)

    def number(layout: str) -> _Action:
        unpack = struct.Struct(layout)
        return lambda machine: machine.push(unpack.unpack(machine.take(unpack.size))[0])

    def counted(layout: str, use: Callable[[_Machine, int], None]) -> _Action:
        unpack = struct.Struct(layout)
        return lambda machine: use(machine, unpack.unpack(machine.take(unpack.size))[0])

    def item(machine: _Machine) -> None:
        value, key = machine.pop(), machine.pop()
        machine.fill("dict", [key, value])

    return {
        ord("("): _Machine.mark,
        ord(")"): constant(()),
        ord("]"): lambda machine: machine.container("list"),
        ord("}"): lambda machine: machine.container("dict"),
        ord("N"): constant(None),
        0x88: constant(True),
        0x89: constant(False),
        ord("K"): number("<B"),
        ord("M"): number("<H"),
        ord("J"): number("<i"),
        ord("G"): number(">d"),
        0x8A: counted("<B", _Machine.long),
        ord("X"): counted("<I", _Machine.text),
        ord("q"): counted("<B", _Machine.remember),
        ord("r"): counted("<I", _Machine.remember),
        ord("h"): counted("<B", _Machine.recall),
        ord("j"): counted("<I", _Machine.recall),
        ord("t"): lambda machine: machine.push_tuple(machine.pop_to_mark()),
        0x85: tuple_of(1),
        0x86: tuple_of(2),
        0x87: tuple_of(3),
        ord("a"): lambda machine: machine.fill("list", [machine.pop()]),
        ord("e"): lambda machine: machine.fill("list", machine.pop_to_mark()),
        ord("s"): item,
        ord("u"): lambda machine: machine.fill("dict", machine.pop_to_mark()),
        ord("c"): _Machine.name,
        0x81: _Machine.new_object,
        ord("R"): _Machine.call,
        ord("b"): _Machine.build,
        ord("Q"): lambda machine: machine.push(storage_of(machine.pop())),
    }


_ACTIONS = _setters()
