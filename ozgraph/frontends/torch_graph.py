"""From an exported program to a :class:`~ozgraph.graph.Graph`: one operator a call, schemas read, writes made values.

Operators have the domain ``aten`` and the type of their overload: ``conv2d``, ``add.Tensor``, ``mean.dim``. Operators
of other namespaces keep theirs as domain. A call in place has the type of its twin out of place (``relu_`` is
``relu``). ``inputs`` are the tensor arguments in the order of the schema, None where one is left out or is a number;
lists of tensors are spread out. ``attributes`` are all other arguments by their name in the schema, defaults included:
plain numbers, strings and lists; a size that is computed at run time is a :class:`~ozgraph.rules.aten.Computed`.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import fx
from torch.export.graph_signature import InputKind, OutputKind

from ozgraph.frontends.torch_aliases import Aliases
from ozgraph.frontends.torch_origin import TorchConstant, TorchOrigin, Weight, numpy_dtype
from ozgraph.graph import Graph, Op, Value
from ozgraph.rules.aten.computed import Computed

VERSION = 1
"""What ``Op.version`` says of every ATen operator."""

_PLACEMENT = frozenset({"device", "layout", "pin_memory", "memory_format", "generator", "non_blocking"})
INLINED = {"wrap_with_set_grad_enabled": 1, "wrap_with_autocast": 4}
"""Higher-order operators that run a nested graph as it stands, with the position of the graph."""

_CHECKS = ("_assert", "sym_constrain_range")
"""Operators that only look whether something holds."""

_MAY_COPY = frozenset({"reshape", "contiguous", "flatten", "to", "type_as", "expand_as", "reshape_as", "view_as"})
_KINDS = {
    InputKind.PARAMETER: "parameter",
    InputKind.BUFFER: "buffer",
    InputKind.CONSTANT_TENSOR: "constant",
}


def build(origin: TorchOrigin, name: str) -> Graph:
    """The graph of ``origin.program``; ``origin`` learns where everything comes from."""
    return _Builder(origin).graph(name)


class _Builder:
    def __init__(self, origin: TorchOrigin) -> None:
        self._origin = origin
        self._program = origin.program
        self._values: dict[str, Value] = {}
        self._ops: list[Op] = []
        self._op_names: set[str] = set()
        self._env: dict[fx.Node, Any] = {}
        self._aliases = Aliases(self._synthetic)

    def graph(self, name: str) -> Graph:
        inputs, constants = self._placeholders()
        results = self._run(self._program.graph)
        user = [spec.kind is OutputKind.USER_OUTPUT for spec in self._program.graph_signature.output_specs]
        self._origin.leaves_out = [
            self._aliases.read(result) if isinstance(result, Value) else None
            for result, given in zip(results, user, strict=True)
            if given
        ]
        outputs = [self._aliases.read(value) for value in _tensors(results)]
        # A buffer that a run writes is part of the signature: what comes in, and what goes out to the next run.
        for value in constants:
            after = self._aliases.read(value)
            if after is not value:
                value.constant = None
                inputs.append(value)
                outputs.append(after)
        self._drop_unread(outputs)
        return Graph(name, tuple(self._ops), self._values, tuple(inputs), tuple(dict.fromkeys(outputs)), self._origin)

    def _drop_unread(self, outputs: list[Value]) -> None:
        """Results beside others that nobody reads (positions of maxima, last states) are as if they were not there."""
        wanted = set(outputs)
        for op in self._ops:
            node = self._origin.nodes.get(op)
            target = None if node is None else node.target
            if isinstance(target, torch._ops.OpOverload) and len(target._schema.returns) > 1:
                for value in op.outputs:
                    if value is not None and not value.uses and value not in wanted:
                        del self._values[value.name], self._origin.values[value]
                        value.producer = None
                op.outputs = tuple(v if v is not None and v.producer is op else None for v in op.outputs)

    # -- values -------------------------------------------------------------------------------------------------

    def _placeholders(self) -> tuple[list[Value], list[Value]]:
        program = self._program
        inputs: list[Value] = []
        constants: dict[Any, Value] = {}
        names = _shared_names(self._origin.module)
        # Weights are entered first, so that they keep their names.
        waiting = []
        for node, spec in zip(
            (node for node in program.graph.nodes if node.op == "placeholder"),
            program.graph_signature.input_specs,
            strict=True,
        ):
            if spec.kind not in _KINDS:
                waiting.append(node)
                continue
            target = str(spec.target)
            tensor = program.state_dict[target] if target in program.state_dict else program.constants[target]
            key = _identity(tensor)
            if key not in constants:
                held = _of(self._origin.module, target, tensor)
                # A shared tensor goes by the name that named_parameters has for it.
                everywhere = names.get(_identity(held), (target,))
                value = self._value(everywhere[0], node.meta.get("val", tensor))
                value.constant = TorchConstant(everywhere[0], held)
                constants[key] = value
                self._origin.weights[value] = Weight(
                    everywhere[0],
                    everywhere,
                    _KINDS[spec.kind],
                    isinstance(held, torch.nn.Parameter) and held.requires_grad,
                    spec.persistent is not False and spec.kind is not InputKind.CONSTANT_TENSOR,
                )
                self._origin.values[value] = (node, None)
            self._env[node] = constants[key]
        for node in waiting:
            found = node.meta.get("val")
            if isinstance(found, torch.Tensor):
                value = self._env[node] = self._value(node.name, found)
                self._origin.values[value] = (node, None)
                inputs.append(value)
                self._origin.leaves_in.append(value)
            else:
                self._env[node] = _number(found, node.name)
                self._origin.leaves_in.append(None)
        return inputs, list(constants.values())

    def _value(self, name: str, like: Any) -> Value:
        """A new value with the shape and type of a fake tensor."""
        unique, count = name, 1
        while unique in self._values:
            count += 1
            unique = f"{name}_{count}"
        shape: tuple[int, ...] | None = None
        dynamic: tuple[bool, ...] = ()
        dtype = None
        if isinstance(like, torch.Tensor):
            sizes = [_size(extent) for extent in like.shape]
            if None not in sizes:
                shape = tuple(size for size in sizes if size is not None)
                dynamic = tuple(_varies(extent) for extent in like.shape)
            dtype = numpy_dtype(like.dtype)
        value = self._values[unique] = Value(unique, shape, dtype, dynamic)
        return value

    # -- operators ----------------------------------------------------------------------------------------------

    def _run(self, graph: fx.Graph) -> Any:
        """Enter all operators of a graph whose placeholders are bound; what it returns."""
        for node in graph.nodes:
            if node.op == "get_attr":
                self._env[node] = self._attribute(node)
            elif node.op == "call_function":
                self._env[node] = self._call(node)
            elif node.op == "output":
                return fx.map_arg(node.args[0], self._env.__getitem__)
        return ()

    def _attribute(self, node: fx.Node) -> Any:
        found: Any = node.graph.owning_module
        for part in str(node.target).split("."):
            found = getattr(found, part)
        if not isinstance(found, torch.Tensor):
            return found
        value = self._value(str(node.target), found)
        value.constant = TorchConstant(value.name, found)
        self._origin.weights[value] = Weight(value.name, (value.name,), "constant", False, False)
        self._origin.values[value] = (node, None)
        return value

    def _call(self, node: fx.Node) -> Any:
        target = node.target
        if target is operator.getitem:
            source: Any
            index: Any
            source, index = fx.map_arg(node.args, self._env.__getitem__)
            return source[index]
        if isinstance(target, torch._ops.HigherOrderOperator):
            return self._higher_order(node, target)
        if isinstance(target, torch._ops.OpOverload):
            if target._opname.startswith(_CHECKS):
                return None
            found = node.meta.get("val")
            if _has_tensor(found) or _has_tensor_argument(node):
                if not _has_tensor(found) and found is not None:
                    return fx.node.map_aggregate(found, lambda item: _number(item, node.name))
                return self._operator(node, target)
        return _number(node.meta.get("val"), node.name)

    def _higher_order(self, node: fx.Node, target: torch._ops.HigherOrderOperator) -> Any:
        arguments = fx.map_arg(node.args, self._env.__getitem__)
        name = str(target)
        position = INLINED.get(name)
        if position is None:
            return self._enter(node, name, "higher_order", list(_tensors(arguments)), {})
        nested = arguments[position]
        assert isinstance(nested, fx.GraphModule)
        names = (inner for inner in nested.graph.nodes if inner.op == "placeholder")
        self._env.update(zip(names, arguments[position + 1 :], strict=True))
        return self._run(nested.graph)

    def _operator(self, node: fx.Node, target: torch._ops.OpOverload[Any, Any]) -> Any:
        schema = target._schema
        inputs: list[Value | None] = []
        attributes: dict[str, Any] = {}
        written: list[Value] = []
        viewed: list[Value] = []
        for position, argument in enumerate(schema.arguments):
            if position < len(node.args):
                given = node.args[position]
            elif argument.name in node.kwargs:
                given = node.kwargs[argument.name]
            else:
                given = argument.default_value
            held = fx.map_arg(given, self._env.__getitem__)
            if "Tensor" in str(argument.type):
                for item in held if isinstance(held, (list, tuple)) else (held,):
                    if isinstance(item, Value):
                        inputs.append(self._aliases.read(item))
                        if argument.alias_info is not None:
                            (written if argument.alias_info.is_write else viewed).append(item)
                    else:
                        inputs.append(None)
                        if item is not None:
                            attributes[argument.name] = item
            elif argument.name not in _PLACEMENT:
                attributes[argument.name] = _plain(held)
        namespace, _, name = schema.name.partition("::")
        if written and name.endswith("_") and not name.endswith("__"):
            name = name[:-1]
        type_ = f"{name}.{schema.overload_name}" if schema.overload_name else name
        made = self._enter(node, type_, namespace, inputs, attributes)
        results = list(_tensors(made))
        if written:
            for handle, result in zip(written, results, strict=False):
                self._aliases.write(handle, result)
            if len(written) == 1 and len(results) == 1:
                return written[0]  # the very tensor comes back
        elif len(viewed) == 1:
            certain = name not in _MAY_COPY
            for result in results:
                assert result.producer is not None
                self._aliases.view(viewed[0], result, result.producer, certain=certain)
        return made

    def _enter(
        self, node: fx.Node, type_: str, domain: str, inputs: list[Value | None], attributes: dict[str, Any]
    ) -> Any:
        """An operator for a node; its results in the structure in which the node gives them."""
        found = node.meta.get("val")
        outputs: list[Value | None] = []

        def result(item: Any, name: str) -> Any:
            if isinstance(item, torch.Tensor):
                value = self._value(name, item)
                number = len(outputs) if isinstance(found, (list, tuple)) else None
                self._origin.values[value] = (node, number)
                outputs.append(value)
                return value
            outputs.append(None)
            return _number(item, name) if item is not None else None

        if isinstance(found, (list, tuple)):
            made: Any = [result(item, f"{node.name}.{number}") for number, item in enumerate(found)]
        else:
            made = result(found, node.name)
        op = self._add(node.name, type_, domain, inputs, outputs, attributes)
        self._origin.nodes[op] = node
        return made

    def _add(
        self,
        name: str,
        type_: str,
        domain: str,
        inputs: Sequence[Value | None],
        outputs: Sequence[Value | None],
        attributes: dict[str, Any],
    ) -> Op:
        unique, count = name, 1
        while unique in self._op_names:
            count += 1
            unique = f"{name}_{count}"
        self._op_names.add(unique)
        op = Op(unique, type_, domain, VERSION, tuple(inputs), tuple(outputs), attributes)
        for position, value in enumerate(op.inputs):
            if value is not None:
                value.uses.append((op, position))
        for value in op.outputs:
            if value is not None:
                value.producer = op
        self._ops.append(op)
        return op

    def _synthetic(self, type_: str, operands: tuple[Value, ...], like: Value, view: Op, result: int) -> Value:
        """An operator that only analysis knows of: what a write did to another view of the same memory."""
        unique, count = f"{like.name}.{type_}", 1
        while unique in self._values:
            count += 1
            unique = f"{like.name}.{type_}_{count}"
        made = self._values[unique] = Value(unique, like.shape, like.dtype, like.dynamic)
        self._add(
            unique,
            type_,
            "ozgraph",
            operands,
            (made,),
            {"view": view, "result": result},
        )
        return made


def _shared_names(module: torch.nn.Module) -> dict[Any, tuple[str, ...]]:
    """Every name of every tensor of a module."""
    found: dict[Any, list[str]] = {}
    for named in (module.named_parameters, module.named_buffers):
        for name, tensor in named(remove_duplicate=False):
            found.setdefault(_identity(tensor), []).append(name)
    return {key: tuple(names) for key, names in found.items()}


def _identity(tensor: torch.Tensor) -> Any:
    """What makes two names the same tensor."""
    return id(tensor)


def _of(module: torch.nn.Module, name: str, otherwise: torch.Tensor) -> torch.Tensor:
    """The caller's own tensor of that name."""
    owner, _, last = name.rpartition(".")
    try:
        found = getattr(module.get_submodule(owner), last)
    except AttributeError:
        return otherwise
    return found if isinstance(found, torch.Tensor) else otherwise


def _tensors(nested: Any) -> Iterable[Value]:
    """The values in a structure of lists, tuples and dicts."""
    if isinstance(nested, Value):
        yield nested
    elif isinstance(nested, (list, tuple)):
        for item in nested:
            yield from _tensors(item)
    elif isinstance(nested, dict):
        for item in nested.values():
            yield from _tensors(item)


def _has_tensor(found: Any) -> bool:
    if isinstance(found, (list, tuple)):
        return any(map(_has_tensor, found))
    return isinstance(found, torch.Tensor)


def _has_tensor_argument(node: fx.Node) -> bool:
    return any(_has_tensor(argument.meta.get("val")) for argument in node.all_input_nodes)


def _size(extent: Any) -> int | None:
    """A size at the sample shapes; None where it depends on data."""
    if isinstance(extent, int):
        return extent
    hint = extent.node.hint
    return None if hint is None else int(hint)


def _varies(extent: Any) -> bool:
    return not isinstance(extent, int)


def _number(found: Any, name: str) -> Any:
    """A number that is computed at run time, as it is at the sample shapes; anything else as it stands."""
    if isinstance(found, torch.SymInt):
        size = _size(found)
        return None if size is None else Computed(size, name)
    if isinstance(found, (torch.SymFloat, torch.SymBool)):
        return found.node.hint
    return found


def _plain(given: Any) -> Any:
    """An argument as plain Python."""
    if isinstance(given, (list, tuple)):
        return [_plain(item) for item in given]
    if isinstance(given, (torch.dtype, torch.memory_format, torch.layout, torch.device)):
        return str(given).removeprefix("torch.")
    return given
