"""Weights that a model computes from its weights alone, by statistics that count zeros, become weights of their own.

Standardised convolutions look along the very axes that pruning shortens: the mean of a row counts all of its columns,
so that under the separate operators no column could go. Once trained, what they compute is the same at every run, and
it prunes as any weight does. Nothing is computed until the elements are asked for.

What leaves zeros out stays as it is, for slots are followed through it: weights that are moved, scaled or added, and
weight norms, whose lengths are sums of squares.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, count
from typing import Any

import numpy as np
import onnx_ir as ir

from ozgraph.frontends.normal_form import drop_unused
from ozgraph.frontends.shapes import InferenceError, Skeleton
from ozgraph.frontends.tensors import alias, elements

_COUNTING_ZEROS = frozenset(
    {
        "BatchNormalization",
        "GroupNormalization",
        "InstanceNormalization",
        "LayerNormalization",
        "LogSoftmax",
        "MeanVarianceNormalization",
        "ReduceLogSumExp",
        "ReduceMax",
        "ReduceMean",
        "ReduceMin",
        "RMSNormalization",
        "Softmax",
    }
)
"""What gives something else when a slot at zero is left out."""

_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""What multiplies data by a weight, its second input. Where the first is computed from weights, it stands for data."""

_WEIGHT = 1

_BY_CHANCE = frozenset(
    {
        "Bernoulli",
        "Dropout",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)

_FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.DOUBLE})
"""In half precision the elements would be rounded otherwise than by whatever runs the model."""

_SMALL = 64
"""Weights with no more elements may be sizes that the shape of the result follows from."""


@dataclass(frozen=True, slots=True)
class Tree:
    """A weight that is computed, and how.

    Attributes:
        root: what layers read.
        nodes: in order; the last one makes the root.
        leaves: the initializers that they read.
    """

    root: ir.Value
    nodes: tuple[ir.Node, ...]
    leaves: tuple[ir.Value, ...]


def trees(graph: ir.Graph) -> list[Tree]:
    """The weights of layers that are computed from weights alone, by statistics that count zeros; in normal form."""
    fixed: set[ir.Node] = set()
    looked: set[ir.Node] = set()
    for node in graph:
        if not _is_fixed(node, fixed):
            continue
        fixed.add(node)
        makers = {value.producer() for value in node.inputs if value is not None}
        if node.op_type in _COUNTING_ZEROS or not looked.isdisjoint(makers):
            looked.add(node)
    return [
        _tree(value, fixed)
        for node in graph
        if node in looked
        for value in node.outputs
        if not value.is_graph_output() and any(_is_layer(use.node) and use.idx == _WEIGHT for use in value.uses())
    ]


def _is_layer(node: ir.Node) -> bool:
    return node.op_type in _LAYERS and node.domain in ("", "ai.onnx")


def _is_fixed(node: ir.Node, fixed: set[ir.Node]) -> bool:
    if node.domain not in ("", "ai.onnx") or node.op_type in _BY_CHANCE or _is_layer(node) or not node.inputs:
        return False
    if any(attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for attribute in _said(node)):
        return False
    return all(value is None or value.const_value is not None or value.producer() in fixed for value in node.inputs)


def _said(node: ir.Node) -> Iterator[ir.Attr]:
    return (attribute for attribute in node.attributes.values() if not attribute.is_ref())


def _tree(root: ir.Value, fixed: set[ir.Node]) -> Tree:
    nodes: dict[ir.Node, None] = {}
    leaves: dict[ir.Value, None] = {}
    last = root.producer()
    assert last is not None
    pending = [last]
    while pending:
        node = pending.pop()
        if node in nodes:
            continue
        nodes[node] = None
        for value in node.inputs:
            maker = value.producer() if value is not None else None
            if maker in fixed and maker is not None:
                pending.append(maker)
            elif value is not None:
                leaves[value] = None
    graph = last.graph
    assert graph is not None
    return Tree(root, tuple(node for node in graph if node in nodes), tuple(leaves))


def fold(model: ir.Model, found: list[Tree]) -> None:
    """Put a weight in the place of every tree, in place, as far as its type and shape are known and nothing grows."""
    made: list[tuple[Tree, ir.Value]] = []
    for tree in found:
        recipe = _Recipe(tree, model)
        kind = recipe.kind()
        if kind is None or math.prod(kind[1]) > sum(_size(leaf) for leaf in tree.leaves):
            continue
        dtype, shape = kind
        tensor = ir.LazyTensor(recipe, dtype=dtype, shape=ir.Shape(shape), name=tree.root.name)
        value = ir.Value(
            name=tree.root.name, shape=ir.Shape(shape), type=ir.TensorType(dtype), const_value=tensor
        )  # fmt: skip
        for node, index in tuple(tree.root.uses()):
            node.replace_input_with(index, value)
        made.append((tree, value))
    drop_unused(model)
    graph = model.graph
    taken = _names(graph)
    for tree, value in made:
        value.name = _name(tree, value, taken)
        taken.add(value.name)
        graph.register_initializer(value)


def _names(graph: ir.Graph) -> set[str]:
    made = (value.name for node in graph.all_nodes() for value in node.outputs)
    return {name for name in (*graph.initializers, *(value.name for value in graph.inputs), *made) if name}


def _size(leaf: ir.Value) -> int:
    return 0 if leaf.const_value is None else int(leaf.const_value.size)


def _name(tree: Tree, value: ir.Value, taken: set[str]) -> str:
    """After the weight of that shape that it is made of, if there is one; never its very name, for they differ."""
    alike = (leaf for leaf in tree.leaves if leaf.const_value is not None and leaf.const_value.shape == value.shape)
    names = [f"{leaf.name}.computed" for leaf in alike if leaf.name] + [value.name or "computed"]
    numbered = (f"{names[-1]}_{number}" for number in count(2))
    return next(name for name in chain(names, numbered) if name not in taken)


class _Recipe:
    """Computes a tree on onnx's reference evaluator; it holds the weights' tensors, but not their elements."""

    def __init__(self, tree: Tree, model: ir.Model) -> None:
        copies: dict[ir.Value, ir.Value] = {}
        for number, leaf in enumerate(tree.leaves):
            tensor = leaf.const_value
            assert tensor is not None
            copies[leaf] = ir.Value(
                name=f"leaf{number}",
                shape=ir.Shape(tensor.shape.numpy()),
                type=ir.TensorType(tensor.dtype),
                const_value=alias(tensor, f"leaf{number}"),
            )
        nodes = []
        for node in tree.nodes:
            inputs = [None if value is None else copies[value] for value in node.inputs]
            copy = ir.Node("", node.op_type, inputs, list(node.attributes.values()), num_outputs=len(node.outputs))
            for value, twin in zip(node.outputs, copy.outputs, strict=True):
                twin.name = f"result{len(copies)}" if value.name else ""
                copies[value] = twin
            nodes.append(copy)
        leaves, self._root = [copies[leaf] for leaf in tree.leaves], copies[tree.root]
        imports = model.graph.opset_imports
        graph = ir.Graph(
            [leaf for leaf in leaves if _size(leaf) > _SMALL],
            [self._root],
            nodes=nodes,
            initializers=[leaf for leaf in leaves if _size(leaf) <= _SMALL],
            opset_imports={"": imports.get("", imports.get("ai.onnx", 1))},
            name="computed_weight",
        )
        self._model = ir.Model(graph, ir_version=model.ir_version)

    def kind(self) -> tuple[ir.DataType, tuple[int, ...]] | None:
        """Type and shape of the weight; None where they do not follow, or where it is no weight."""
        try:
            known = Skeleton(self._model).infer({})
        except InferenceError:
            return None
        name = self._root.name or ""
        shape, dtype = known.static_shape(name), ir.DataType(known.dtypes.get(name, 0))
        return None if shape is None or dtype not in _FLOATS else (dtype, shape)

    def __call__(self) -> ir.TensorProtocol:
        """The elements."""
        from onnx.reference import ReferenceEvaluator

        inputs = [(value.name or "", value.const_value) for value in self._model.graph.inputs]
        feeds = {name: elements(tensor) for name, tensor in inputs if tensor is not None}
        with np.errstate(all="ignore"):
            found: Any = ReferenceEvaluator(ir.to_proto(self._model)).run(None, feeds)
        return ir.Tensor(np.asarray(found[0]))
