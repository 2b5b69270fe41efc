"""PyTorch out: a plan carried out on the captured program gives a smaller ``torch.fx.GraphModule``.

Importing this module imports torch.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from ozgraph.backends.torch_modes import with_modes
from ozgraph.errors import PassError
from ozgraph.frontends.torch_graph import INLINED
from ozgraph.frontends.torch_origin import TorchOrigin
from ozgraph.frontends.torch_versions import unguarded
from ozgraph.graph import Array, Graph, Op, Value
from ozgraph.plan import NewOp, Plan, Zeroing
from ozgraph.rules.aten.computed import Computed


def to_module(graph: Graph, plan: Plan, *, modes: bool = True) -> fx.GraphModule:
    """The pruned model as a module that trains, saves and compiles like any other.

    Parameters and buffers have their original names and their own memory. ``.train()`` and ``.eval()`` mean what they
    meant: dropout, batch norm statistics and whatever else in the program depends on the mode.

    Args:
        graph: captured from a module; it is not changed, and neither is the module.
        plan: what goes.
        modes: look at the module in train mode too; without it the result computes what eval mode does.
    """
    origin: TorchOrigin = graph.origin
    module = unlifted(origin)
    edits = _Edits(graph, plan, module)
    edits.apply()
    if modes:
        with_modes(module, origin, edits.moved)
    module.graph.eliminate_dead_code(_is_impure)
    module.graph.lint()
    module.recompile()
    module.train(origin.module.training if modes else False)
    return module


def zeroed(graph: Graph, members: Zeroing) -> dict[str, Tensor]:
    """The tensors of the original, by name, with these positions at zero: [shape] copies of those concerned."""
    found: dict[str, Tensor] = {}
    for (value, axis), positions in members.items():
        assert value.constant is not None
        if value.name not in found:
            found[value.name] = value.constant.tensor.detach().clone()  # type: ignore[attr-defined]
        index = torch.from_numpy(np.asarray(positions)).to(found[value.name].device)
        found[value.name].index_fill_(axis, index, 0)
    return found


def sliced(tensor: Tensor, cuts: Mapping[int, Array]) -> Tensor:
    """A copy of a tensor with only some positions of some axes."""
    found = tensor.detach()
    for axis, positions in cuts.items():
        found = found.index_select(axis, torch.from_numpy(np.asarray(positions)).to(found.device))
    if not cuts:
        return found.clone(memory_format=torch.preserve_format)
    if found.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous():
        return found.contiguous(memory_format=torch.channels_last)
    return found


def unlifted(origin: TorchOrigin) -> fx.GraphModule:
    """The program as a module of its own, its weights the original's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = unguarded(origin.program)
        return fx.GraphModule(exported, exported.graph, type(origin.module).__name__)


_LEVELS = "torch._functorch.predispatch"
"""Where the functions are that begin and end a level: what lies between them computes at it."""


def _is_impure(node: fx.Node) -> bool:
    """Writes in place and the levels of ``vmap`` stay, whether anything reads their result or not."""
    if node.op in ("placeholder", "output", "call_module") or getattr(node.target, "__module__", "") == _LEVELS:
        return True
    schema = getattr(node.target, "_schema", None)
    return bool(schema is not None and schema.is_mutable)


def _arguments(
    target: Any, tensors: Sequence[Any], attributes: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Operands and attributes in the places that the schema has for them; what is left out takes its default."""
    given = list(tensors)
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for number, argument in enumerate(target._schema.arguments):
        kind = str(argument.type)
        if "Tensor" in kind:
            if not given and argument.name not in attributes:
                continue
            value = attributes.get(argument.name)
            if "List" in kind:
                value, given = given, []
            elif given:
                value = given.pop(0)
        elif argument.name in attributes:
            value = attributes[argument.name]
            if isinstance(value, str) and "str" not in kind and isinstance(getattr(torch, value, None), torch.dtype):
                value = getattr(torch, value)
        else:
            continue
        if number == len(args) and not argument.kwarg_only:
            args.append(value)
        else:
            kwargs[argument.name] = value
    return tuple(args), kwargs


class _Edits:
    """One plan on one module."""

    def __init__(self, graph: Graph, plan: Plan, module: fx.GraphModule) -> None:
        self._graph, self._plan, self._module = graph, plan, module
        self._origin: TorchOrigin = graph.origin
        self._by_name: dict[str, fx.Node] = {node.name: node for node in module.graph.nodes}
        self._by_target: dict[str, fx.Node] = {
            str(node.target): node for node in module.graph.nodes if node.op == "get_attr"
        }
        self._moved: dict[Value, fx.Node] = {}
        self._made = 0
        self._inlined = self._inline(
            {self._origin.nodes.get(op) for op in (*plan.rewrites, *plan.replacements, *(op for op, _ in plan.takes))}
        )

    def moved(self, original: fx.Node) -> fx.Node | None:
        """The call that stands in the module for a node of the program; None where it was replaced."""
        node = self._inlined.get(original)
        if node is None and original.graph is self._origin.program.graph:
            node = self._by_name.get(original.name)
        return node if node is not None and node.target is original.target and not node._erased else None

    def _inline(self, wanted: set[fx.Node | None]) -> dict[fx.Node, fx.Node]:
        """Put the calls of nested graphs in line where some of them are to change: node of the program -> node here."""
        found: dict[fx.Node, fx.Node] = {}
        for node in list(self._module.graph.nodes):
            position = INLINED.get(str(node.target)) if node.op == "call_function" else None
            if position is None:
                continue
            nested = getattr(self._module, str(node.args[position].target))
            if wanted.isdisjoint(nested.graph.nodes):
                continue
            holders = [inner for inner in nested.graph.nodes if inner.op == "placeholder"]
            copied = dict(zip(holders, node.args[position + 1 :], strict=True))
            with self._module.graph.inserting_before(node):
                results = self._module.graph.graph_copy(nested.graph, copied)
                if str(node.target) == "wrap_with_set_grad_enabled" and not node.args[0]:
                    results = fx.map_arg(results, self._detached)
            found.update(copied)
            self._by_name.update((inner.name, mine) for inner, mine in copied.items() if inner.op == "call_function")
            for user in list(node.users):
                user.replace_all_uses_with(results[user.args[1]])  # type: ignore[index]
                self._module.graph.erase_node(user)
            self._module.graph.erase_node(node)
        return found

    def _detached(self, node: fx.Node) -> fx.Node:
        return self._module.graph.call_function(torch.ops.aten.detach.default, (node,))

    def apply(self) -> None:
        self._weights()
        for op, sequence in self._plan.replacements.items():
            self._replace(op, sequence)
        for op, changes in self._plan.rewrites.items():
            if op in self._plan.replacements:
                continue
            node = self._node(op)
            for name, value in changes.attributes.items():
                self._set_argument(node, name, value)
            for position, array in changes.constants.items():
                self._set_operand(node, op, position, self._constant(node, array))
            if changes.sizes:
                raise PassError(f"{op.name!r} has no shape operands to rewrite; its rule is not for PyTorch")
        for (op, position), cuts in self._plan.takes.items():
            self._take(op, position, cuts)

    # -- weights -----------------------------------------------------------------------------------------------------

    def _weights(self) -> None:
        """Give the module tensors of its own, sliced; names of one tensor stay names of one tensor."""
        cuts: dict[Value, dict[int, Array]] = {}
        for (value, axis), positions in self._plan.keep.items():
            cuts.setdefault(value, {})[axis] = positions
        done: dict[int, Tensor] = {}
        named = {value.name: value for value in self._origin.weights}
        aliases = {name: value for value, weight in self._origin.weights.items() for name in weight.names} | named
        tensors: dict[str, Tensor] = {}
        tensors.update(self._module.named_parameters(remove_duplicate=False))
        tensors.update(self._module.named_buffers(remove_duplicate=False))
        for name, tensor in tensors.items():
            held = aliases.get(name)
            if id(tensor) not in done:
                fresh = sliced(tensor, cuts.get(held, {}) if held is not None else {})
                if isinstance(tensor, nn.Parameter):
                    fresh = nn.Parameter(fresh, requires_grad=tensor.requires_grad)
                done[id(tensor)] = fresh
            self._store(name, done[id(tensor)], isinstance(tensor, nn.Parameter))

    def _store(self, name: str, tensor: Tensor, trainable: bool) -> None:
        owner_name, _, last = name.rpartition(".")
        owner = self._module.get_submodule(owner_name)
        if trainable:
            owner._parameters[last] = tensor  # type: ignore[assignment]
        else:
            owner._buffers[last] = tensor

    # -- nodes -------------------------------------------------------------------------------------------------------

    def _node(self, op: Op) -> fx.Node:
        """The node of an operator in the module's graph."""
        original = self._origin.nodes.get(op)
        node = self.moved(original) if original is not None else None
        if node is None:
            raise PassError(f"{op.name!r} does not stand in the captured program and cannot be rewritten")
        return node

    def _of(self, value: Value) -> fx.Node:
        """What computes or holds a value in the module's graph."""
        if value in self._moved:
            return self._moved[value]
        weight = self._origin.weights.get(value)
        if weight is not None:
            for name in weight.names:
                if name in self._by_target:
                    return self._by_target[name]
        source, number = self._origin.values[value]
        node = self._by_name[source.name]
        if number is None:
            return node
        for user in node.users:
            if user.op == "call_function" and user.args[1:] == (number,):
                return user
        with self._module.graph.inserting_after(node):
            return self._module.graph.call_function(operator.getitem, (node, number))

    def _set_argument(self, node: fx.Node, name: str, value: Any) -> None:
        """Give a call another argument, by its name in the schema; sizes computed at run time stay computed."""
        schema = node.target._schema  # type: ignore[union-attr]
        names = [argument.name for argument in schema.arguments]
        if name not in names:
            raise PassError(f"{node.target} has no argument {name!r}")
        position = names.index(name)
        argument = schema.arguments[position]
        before = node.args[position] if position < len(node.args) else node.kwargs.get(name)
        fresh = self._argument(value, before)
        if position < len(node.args):
            node.update_arg(position, fresh)
        elif argument.kwarg_only or position > len(node.args) or name in node.kwargs:
            node.update_kwarg(name, fresh)
        else:
            node.args = (*node.args, fresh)

    def _argument(self, value: Any, before: Any) -> Any:
        if isinstance(value, (list, tuple)):
            old = list(before) if isinstance(before, (list, tuple)) else [None] * len(value)
            old += [None] * (len(value) - len(old))
            return [self._argument(item, was) for item, was in zip(value, old, strict=False)]
        if isinstance(value, Computed):
            if isinstance(before, fx.Node):
                return before
            return self._by_name[value.source]
        if isinstance(value, np.generic):
            return value.item()
        if isinstance(value, np.ndarray):
            return value.tolist()
        return value

    def _set_operand(self, node: fx.Node, op: Op, position: int, operand: fx.Node) -> None:
        """Give a call another tensor at an operand position of its operator."""
        tensors: list[tuple[int | str, int | None]] = []
        schema = node.target._schema  # type: ignore[union-attr]
        for number, argument in enumerate(schema.arguments):
            if "Tensor" not in str(argument.type):
                continue
            place: int | str = number if number < len(node.args) else argument.name
            given = node.args[number] if number < len(node.args) else node.kwargs.get(argument.name)
            if isinstance(given, (list, tuple)):
                tensors.extend((place, index) for index in range(len(given)))
            else:
                tensors.append((place, None))
        place, index = tensors[position]
        if index is not None:
            given = list(node.args[place] if isinstance(place, int) else node.kwargs[place])  # type: ignore[arg-type]
            given[index] = operand
            operand = given  # type: ignore[assignment]
        if isinstance(place, int):
            node.update_arg(place, operand)
        else:
            node.update_kwarg(place, operand)

    def _constant(self, before: fx.Node, array: Array) -> fx.Node:
        """A buffer of the module for a constant that the plan brings."""
        self._made += 1
        name = f"_pruned_constant_{self._made}"
        device = next((t.device for t in self._module.parameters()), torch.device("cpu"))
        self._module.register_buffer(name, torch.from_numpy(np.array(array)).to(device))
        with self._module.graph.inserting_before(before):
            return self._module.graph.get_attr(name)

    def _take(self, op: Op, position: int, cuts: tuple[tuple[int, Array], ...]) -> None:
        node = self._node(op)
        value = op.inputs[position]
        assert value is not None
        operand = self._of(value)
        for axis, positions in cuts:
            index = self._constant(node, np.asarray(positions, dtype=np.int64))
            with self._module.graph.inserting_before(node):
                operand = self._module.graph.call_function(torch.ops.aten.index_select.default, (operand, axis, index))
        self._set_operand(node, op, position, operand)

    def _replace(self, op: Op, sequence: tuple[NewOp, ...]) -> None:
        """Put other calls in place of one."""
        node = self._node(op)
        own = {value.name: number for number, value in enumerate(op.outputs) if value is not None}
        known: dict[str, Any] = {}
        with self._module.graph.inserting_before(node):
            for new in sequence:
                name, _, overload = new.type.partition(".")
                target = getattr(getattr(getattr(torch.ops, new.domain or "aten"), name), overload or "default")
                inputs = [self._input(entry, known, node) for entry in new.inputs]
                made = self._module.graph.call_function(target, *_arguments(target, inputs, new.attributes))
                for number, result in enumerate(new.outputs):
                    known[result] = made if len(new.outputs) == 1 else self._result(made, number)
        self._moved |= {value: known[value.name] for value in op.outputs if value is not None}
        if len(op.outputs) == 1:
            node.replace_all_uses_with(known[next(iter(own))])
        else:
            for user in list(node.users):
                name = next(name for name, number in own.items() if user.args[1] == number)
                user.replace_all_uses_with(known[name])
                self._module.graph.erase_node(user)
        self._module.graph.erase_node(node)

    def _result(self, made: fx.Node, number: int) -> fx.Node:
        return self._module.graph.call_function(operator.getitem, (made, number))

    def _input(self, entry: str | Array | None, known: Mapping[str, Any], node: fx.Node) -> Any:
        if entry is None:
            return None
        if isinstance(entry, str):
            return known[entry] if entry in known else self._of(self._graph.values[entry])
        return self._constant(node, np.asarray(entry))
