"""A plan carried out on the caller's own module: tensors sliced, attributes of layers put right.

The module's Python stays. Whether it still computes what it should is for the caller of this module to find out by
running it; :class:`Before` undoes everything.

Importing this module imports torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from ozgraph.backends.torch import sliced
from ozgraph.backends.torch_layers import fit
from ozgraph.errors import UsageError
from ozgraph.frontends.torch_origin import TorchOrigin
from ozgraph.frontends.torch_quiet import contents
from ozgraph.graph import Array, Graph, Op, Value
from ozgraph.plan import NewOp, Plan

_AGAIN = re.compile(r"@\d+")
"""What torch.export adds to the path of a module that is called once more."""


class Before:
    """A module as it is now, to go back to."""

    def __init__(self, module: nn.Module) -> None:
        self._parts = [(part, dict(part.__dict__), contents(part)) for part in module.modules()]
        self._config = config = getattr(module, "config", None)
        self._said = dict(config.__dict__) if hasattr(config, "__dict__") else {}
        tensors = (*module.parameters(), *module.buffers())
        self._tensors = [(tensor, tensor.data, tensor.grad if tensor.is_leaf else None) for tensor in tensors]

    def restore(self) -> None:
        """Put everything back."""
        for part, attributes, held in self._parts:
            part.__dict__.clear()
            part.__dict__.update(attributes)
            for container, content in held:
                if isinstance(container, list):
                    container[:] = content
                else:
                    container.clear()
                    container.update(content)
        if self._said:
            self._config.__dict__.clear()
            self._config.__dict__.update(self._said)
        for tensor, data, grad in self._tensors:
            tensor.grad = None
            tensor.data = data
            if tensor.is_leaf:
                tensor.grad = grad


def shrink(graph: Graph, plan: Plan, optimizer: torch.optim.Optimizer | None = None) -> list[Op]:
    """Slice the tensors of the module that a graph was captured from, and put the attributes of its layers right.

    Parameters stay the objects that they are; gradients are dropped, and what an optimizer keeps of the same shape as
    a parameter is sliced along with it.

    Returns:
        The operators whose other sizes are not those of a layer: the module's own Python has to follow by itself.

    Raises:
        UsageError: a tensor that shrinks is none of the module's parameters and buffers.
    """
    origin: TorchOrigin = graph.origin
    cuts: dict[Value, dict[int, Array]] = {}
    for (value, axis), positions in plan.keep.items():
        cuts.setdefault(value, {})[axis] = positions
    for parameter in origin.module.parameters():
        parameter.grad = None
    for value, axes in cuts.items():
        _slice(origin, value, axes, optimizer)
    return _layers(origin, plan)


def _slice(
    origin: TorchOrigin, value: Value, axes: Mapping[int, Array], optimizer: torch.optim.Optimizer | None
) -> None:
    tensor: Tensor = value.constant.tensor  # type: ignore[union-attr]
    if origin.weights[value].kind == "constant":
        raise UsageError(
            f"cannot shrink {type(origin.module).__name__} in place: {value.name!r} is a tensor that its Python makes, "
            "neither a parameter nor a buffer; register it as a buffer, or take to_module() of what "
            "ozgraph.eliminate or ozgraph.prune returns"
        )
    shape = tensor.shape
    smaller = sliced(tensor, axes)
    if tensor.requires_grad:
        # What autograd keeps of a parameter lives as long as any loss that was computed with it, and remembers the old
        # shape; another type in between makes it forget.
        other = torch.float16 if tensor.dtype is torch.float32 else torch.float32
        tensor.data = torch.empty(0, dtype=other, device=tensor.device)
    tensor.data = smaller
    kept = optimizer.state.get(tensor, {}) if optimizer is not None else {}
    for name, item in kept.items():
        if isinstance(item, Tensor) and item.shape == shape:
            kept[name] = sliced(item, axes)


def _layers(origin: TorchOrigin, plan: Plan) -> list[Op]:
    """Attributes of layers, from their tensors and from what the plan rewrites in the operators that they call."""
    changed: dict[str, dict[str, Any]] = {}
    heads: dict[str, int] = {}
    left: list[Op] = []
    for op, node in origin.nodes.items():
        path = path_of(node)
        if op.type.startswith("scaled_dot_product_attention"):
            query = op.inputs[0]
            shape = plan.shapes.get(query, query.shape) if query is not None else None
            if shape is not None and len(shape) == 4:
                heads[path] = shape[1]
        rewrite = plan.rewrites.get(op)
        if op in plan.replacements:
            if not _scaled(origin, op, plan.replacements[op], changed.setdefault(path, {})):
                left.append(op)
        elif rewrite is not None:
            changed.setdefault(path, {}).update(rewrite.attributes)
            for position, array in rewrite.constants.items():
                if not _operand(origin, op, position, array):
                    left.append(op)
            left.append(op)
    left += [op for op, _ in plan.takes]
    for path, layer in origin.module.named_modules():
        fit(layer, changed.get(path, {}), heads.get(path))
    return left


def _operand(origin: TorchOrigin, op: Op, position: int, array: Array) -> bool:
    """Give the layer that calls an operator a new tensor: one of its own, or a bias where it had none."""
    value = op.input(position)
    if value is None:
        layer = origin.module.get_submodule(path_of(origin.nodes[op]))
        if position == 2 and getattr(layer, "bias", 0) is None:
            like: Tensor = layer.weight  # type: ignore[assignment]
            layer.bias = nn.Parameter(torch.from_numpy(array).to(like), requires_grad=like.requires_grad)
            return True
        return False
    if value not in origin.weights or len(value.uses) > 1:
        return False
    tensor: Tensor = value.constant.tensor  # type: ignore[union-attr]
    tensor.data = torch.from_numpy(array).to(tensor)
    return True


def _scaled(origin: TorchOrigin, op: Op, sequence: tuple[NewOp, ...], changed: dict[str, Any]) -> bool:
    """A norm that became itself with other arguments and a factor: its weight takes the factor."""
    weight = op.input(1)
    if (
        [new.type for new in sequence] != [op.type, "mul.Scalar"]
        or weight not in origin.weights
        or weight is None
        or len(weight.uses) > 1
        or weight.constant is None
    ):
        return False
    changed.update(sequence[0].attributes)
    tensor: Tensor = weight.constant.tensor  # type: ignore[attr-defined]
    tensor.data = tensor.data * sequence[1].attributes["other"]
    return True


def path_of(node: fx.Node) -> str:
    """The module, by its path, whose forward makes a call."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [str(entry[0]) for entry in stack.values()]
    return _AGAIN.sub("", paths[-1]) if paths else ""
