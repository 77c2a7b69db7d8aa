"""A TorchScript program: the uploaded file as an object whose tensors can be read and replaced.

TorchScript compiles a method when it is first called and keeps that plan, so editing a graph
that has run changes nothing in this process. A `Program` therefore separates the two: graphs are
edited only on a fresh copy (`copy`), which has not run, and are not edited once they have.

Loading reads the text of the program once: public methods are inlined, and copies are clones
of the graph, node by node, so that an instruction has the same index in every copy.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch

from engine.calling import copies
from engine.errors import NotTorchScript, UnsupportedOperator
from engine.torchscript.archive import read_archive
from engine.torchscript.attributes import Attributes
from engine.torchscript.autocast import leave_autocast
from engine.torchscript.calls import Calls
from engine.torchscript.fused import unfuse
from engine.torchscript.fused_convolutions import split_convolutions
from engine.torchscript.instructions import Block, Instruction, compile_graph, nodes_of, walk
from engine.torchscript.listed_weights import name_listed_weights
from engine.torchscript.private_methods import (
    close_private_methods,
    inline_public_methods,
    is_private,
)
from engine.torchscript.refusals import refuse_depth, refuse_odd
from engine.torchscript.slim_archive import slim
from engine.torchscript.stored_state import forget_stored, storing
from engine.torchscript.thaw import thaw

if TYPE_CHECKING:
    from engine.features.followed import Followed

_SMALL_BYTES = 64 << 20
"""Of weights: a file of fewer is made in memory, where torch holds it three times."""


@dataclass(frozen=True)
class ModuleReference:
    """A submodule as a value: its dotted path."""

    path: str


class Program:
    """A loaded program in evaluation mode.

    Attributes:
        device: where its tensors lie.
        calls: what forward gives other exported methods, as far as the upload calls them.
        methods: whose graphs `block` holds; more than one in a `JointProgram`.
        followed: features of the upload that this program is asked for (see `engine.features`);
            copies have the same.
    """

    methods: tuple[str, ...] = ("forward",)
    followed: Followed | None = None

    def __init__(self, module: Any, device: str, calls: Calls | None = None) -> None:
        """Args: module: a script module, or the `torch._C.ScriptModule` inside one."""
        if isinstance(module, torch.jit.ScriptModule):
            self.__dict__["module"] = module
            module = module._c
        self._c = module
        self.device = device
        self.calls = calls

    @property
    def alone(self) -> Program:
        """The program itself, where this one joins several of its methods."""
        return self

    @cached_property
    def module(self) -> torch.jit.ScriptModule:
        """The script module; its tensors may be trained in place."""
        # Made when asked for: it takes longer than cloning the program.
        wrap: Any = torch.jit._recursive.wrap_cpp_module
        wrapped: torch.jit.ScriptModule = wrap(self._c)
        return wrapped

    @property
    def graph(self) -> Any:
        """The graph of forward; edits of it are what `save` writes."""
        return self._c._get_method("forward").graph

    def schema(self, method: str = "forward") -> Any:
        """What a method takes and gives, as torch describes it."""
        return self._c._get_method(method).schema

    @classmethod
    def load(cls, source: Path | bytes, *, device: str = "cpu") -> Program:
        """Load a file or its bytes.

        Raises:
            NotTorchScript: the file is no TorchScript archive, or damaged.
            UnsupportedOperator: it needs an operator this build of torch does not have.
        """
        module = read_archive(source, device)
        if not hasattr(module, "forward"):
            raise NotTorchScript(
                "the program has no `forward` method",
                where="forward",
                hint="script or trace a module whose forward takes the model's inputs",
            )
        training = module.training
        if training:
            module.eval()
        refuse_odd(module)
        name_listed_weights(module)
        program = cls(module, device)
        calls = Calls.of(program._clone()) if program.other_methods() else None
        torch._C._jit_pass_inline(graph_of(module))
        refuse_depth(graph_of(module))
        inline_public_methods(module)
        close_private_methods(module)
        if storing(module._c):
            program = forget_stored(cls(module, device))
            module = program.module
        others = [program.graph_of_method(name) for name in program.other_methods()]
        rebuilt = leave_autocast(graph_of(module))
        for graph in others:
            with suppress(UnsupportedOperator):  # it is not followed, then, and says why
                rebuilt = leave_autocast(graph) or rebuilt
        for graph in [graph_of(module), *others]:
            rebuilt = unfuse(graph) or rebuilt
            rebuilt = split_convolutions(graph) or rebuilt
        rebuilt = thaw(module) or rebuilt
        if rebuilt:
            # The module has other attributes by now.
            program = cls(module, device)
            # Reading it anew tidies a rebuilt graph: choices that are constants now disappear, and
            # what was registered on the live module is a parameter to all of torch.
            program = program.read_back()
            torch._C._jit_pass_inline(graph_of(program.module))
        program.calls = calls
        return program

    @classmethod
    def as_uploaded(cls, source: Path | bytes, *, device: str = "cpu") -> Program:
        """Load a file exactly as it is, to run and to time it; the engine analyses `load`'s."""
        return cls(read_archive(source, device), device)

    def to_bytes(self) -> bytes:
        """The TorchScript file, as bytes."""
        return bytes(self._c.save_to_buffer())

    def save(self, path: Path) -> None:
        """Write the TorchScript file, without tables of source lines. It is never in memory."""
        with TemporaryDirectory(dir=path.parent) as folder:
            # Torch writes the file's name into the archive; this is the name it gives to bytes.
            file = Path(folder) / "archive"
            if sum(tensor.nbytes for tensor in self.attributes().values()) < _SMALL_BYTES:
                # an error of the disk is Python's then; torch's own writer would end the process
                file.write_bytes(self.to_bytes())
            else:
                self._c.save(str(file))
            slim(file)
            file.replace(path)

    def copy(self, *, share: bool = False) -> Program:
        """A program of its own: own graph that has not run yet, and own weights.

        Args:
            share: over the same weights, for callers that replace them.
        """
        fresh = self._clone(share=share)
        fresh.__dict__["block"] = self.block
        return fresh

    def _clone(self, *, share: bool = True) -> Program:
        held = self.attributes()
        with self._without_weights(held):
            fresh = Program(_cloned(self._c), self.device, self.calls)
            fresh._attributes.like(self._attributes)
        fresh.followed = self.followed
        fresh._take(held, clone=not share)
        return fresh

    def twin(self, *, share: bool = False) -> Program:
        """Own weights over the same graph, which must not be edited; cheap.

        Args:
            share: over the same weights, for callers that replace them.
        """
        if not share:
            fresh = Program(copy.deepcopy(self.module), self.device, self.calls)
            fresh.followed = self.followed
            return fresh
        held = self.attributes()
        with self._without_weights(held):
            fresh = self.twin()
        fresh._take(held, clone=False)
        return fresh

    def shadow(self) -> Program:
        """The same parameters over the same graph, and a state (buffers, attributes) of its own."""
        fresh = self.twin(share=True)
        fresh.own(self._attributes.buffers)
        return fresh

    def read_back(self) -> Program:
        """What a save and a load make of this program, over the same weights."""
        held = self.attributes()
        with self._without_weights(held):
            code = self.to_bytes()
        read = Program(read_archive(code, self.device), self.device, self.calls)
        read._take(held, clone=False)
        read.followed = self.followed
        return read

    @contextmanager
    def _without_weights(self, held: dict[str, torch.Tensor]) -> Iterator[None]:
        """With empty weights the code can be cloned or written without copying them."""
        empty: dict[torch.dtype, torch.Tensor] = {}
        try:
            for name, tensor in held.items():
                if tensor.dtype not in empty:
                    empty[tensor.dtype] = tensor.detach().new_empty(0)
                self._put(name, empty[tensor.dtype])
            yield
        finally:
            for name, tensor in held.items():
                self._put(name, tensor)

    def _take(self, tensors: dict[str, torch.Tensor], *, clone: bool) -> None:
        copies: dict[tuple[Any, ...], torch.Tensor] = {}
        for name, tensor in tensors.items():
            # Tied weights stay tied: one copy for all names of the same memory.
            key = memory_of(tensor)
            if key not in copies:
                copies[key] = tensor.detach().clone() if clone else tensor.detach()
            self._put(name, copies[key].requires_grad_(tensor.requires_grad))

    def own(self, names: Collection[str]) -> None:
        """Copy these tensors, which the program shared with another until now."""
        held = self.attributes()
        self._take({name: held[name] for name in names}, clone=True)

    def _put(self, name: str, tensor: torch.Tensor) -> None:
        self._attributes[name] = tensor

    def run(self, inputs: Sequence[Any]) -> Any:
        """Outputs of forward by the TorchScript runtime, for a single run.

        Without its optimiser, which takes seconds on large graphs and pays off only when a program
        runs often. The program gets copies, for it may change its arguments in place.
        """
        with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            return self.module(*copies(inputs))

    @cached_property
    def block(self) -> Block:
        """The forward graph as instructions."""
        return compile_graph(self.graph)

    def place(self, instruction: Instruction) -> tuple[Any, Any]:
        """The node of an instruction in this program's own graph, and the graph, for editing."""
        return self._nodes[instruction.index], self.graph

    @cached_property
    def _nodes(self) -> list[Any]:
        return nodes_of(self.block, self.graph)

    def edited(self) -> None:
        """Forget the instructions, after edits of the graph; they are read anew when needed."""
        self.__dict__.pop("block", None)
        self.__dict__.pop("_nodes", None)

    def other_methods(self) -> list[str]:
        """Methods besides forward that the upload exports."""
        return [
            name
            for name in self._c._method_names()
            if name not in {"forward", "training"} and not is_private(name)
        ]

    def graph_of_method(self, name: str) -> Any:
        """The graph of any method; edits of it are what `save` writes."""
        return self._c._get_method(name).graph

    def method_block(self, name: str) -> Block:
        """Another method as instructions, inlined on a copy."""
        graph = self.graph_of_method(name).copy()
        torch._C._jit_pass_inline(graph)
        return compile_graph(graph)

    @cached_property
    def _attributes(self) -> Attributes:
        return Attributes(self._c)

    def parameters(self) -> dict[str, torch.Tensor]:
        """Floating-point parameters by qualified name, shared ones once."""
        found: dict[torch.Tensor, str] = {}
        for name in self._attributes.parameters:
            found.setdefault(self._attributes[name], name)
        return {name: tensor for tensor, name in found.items() if tensor.is_floating_point()}

    def attributes(self) -> dict[str, torch.Tensor]:
        """Every parameter and buffer by qualified name, shared ones under each of their names."""
        held = self._attributes
        return {name: held[name] for name in (*held.parameters, *held.buffers)}

    def buffers(self) -> dict[str, torch.Tensor]:
        """Every tensor that is no parameter, which forward may write to, by qualified name."""
        held = self._attributes
        return {name: held[name] for name in held.buffers}

    def attribute(self, path: str) -> Any:
        """The value of one attribute; for a submodule its path as a `ModuleReference`."""
        held = self._attributes
        return ModuleReference(path) if held.is_module(path) else held[path]

    def constants(self) -> dict[str, torch.Tensor]:
        """Tensors baked into the graph, by `constant:<instruction>`."""
        return {
            f"constant:{instruction.index}": instruction.constant
            for instruction in walk(self.block)
            if isinstance(instruction.constant, torch.Tensor)
        }

    def tensors(self) -> dict[str, torch.Tensor]:
        """Parameters, buffers and baked constants by name."""
        return self.attributes() | self.constants()

    def set_tensor(self, name: str, tensor: torch.Tensor) -> None:
        """Replace a parameter or buffer in place; the name stays."""
        current: torch.Tensor = self._attributes[name]
        self._put(name, tensor.detach().requires_grad_(current.requires_grad))

    def submodule(self, path: str) -> Any:
        """The submodule at a dotted path; the program's module for the empty path."""
        module: Any = self.module
        for part in path.split(".") if path else []:
            module = getattr(module, part)
        return module

    def layer_names(self) -> list[str]:
        """Names of the submodules that own tensors, in order."""
        return list(dict.fromkeys(name.rpartition(".")[0] for name in self.attributes()))


def memory_of(tensor: torch.Tensor) -> tuple[Any, ...]:
    """A key that two tensors share when they are the same memory; empty ones are never shared."""
    if tensor.numel() == 0:
        return (id(tensor),)
    return (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)


def graph_of(module: torch.jit.ScriptModule) -> Any:
    """The graph of forward."""
    return module._c._get_method("forward").graph


def _cloned(module: Any) -> Any:
    """A module with classes and graphs of its own."""
    # Torch's own bundled_inputs copies modules this way; a save and a load parse the text anew.
    clone: Any = getattr(torch._C, "_hack_do_not_use_clone_module_with_class")  # noqa: B009
    return clone(module, [], [])
