"""A recipe's model: 5 to 40 operators whose outputs depend on the inputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from fuzz.layers import LAYERS
from fuzz.recipes import LARGEST, Draws, Recipe
from fuzz.workshop import DoesNotFitError, Tensor, Workshop, channels, projected
from models.building import Array, Net

FEWEST, MOST = 5, 40
"""Operators in a model."""

BATCH, ROWS = 2, 11

_LOTTERY = [name for name, (_, weight, _) in LAYERS.items() for _ in range(weight)]


@dataclass(frozen=True)
class Made:
    """A random model.

    Attributes:
        layers: the names of the layers that it is made of, in order.
        everything: also prune families that overlap, and those whose norm is emitted decomposed.
    """

    model: onnx.ModelProto
    layers: tuple[str, ...]
    everything: bool

    def inputs(self, seed: int, batch: int = BATCH) -> dict[str, Array]:
        """Random inputs."""
        rng = np.random.default_rng([seed, 77])
        made: dict[str, Array] = {}
        for info in self.model.graph.input:
            kind = info.type.tensor_type
            shape = [size.dim_value or batch for size in kind.shape.dim]
            if kind.elem_type == onnx.TensorProto.INT64:
                made[info.name] = rng.integers(0, ROWS, shape)
            else:
                made[info.name] = rng.standard_normal(shape).astype(helper.tensor_dtype_to_np_dtype(kind.elem_type))
        return made


def build(recipe: Recipe, dtype: npt.DTypeLike = np.float32) -> Made:
    """The model of a recipe; the same weights in any element type."""
    draws = Draws(recipe.start)
    net = Net("random", opset=draws.pick((21, 18, 23)), dtype=dtype, seed=recipe.seed)
    most = FEWEST + max(draws.below(MOST - FEWEST + 1), draws.below(MOST - FEWEST + 1))
    everything, open_batch = draws.chance(4), draws.chance(5)
    w = Workshop(net, [], set(), fixed_batch=not open_batch)
    for number in range(2 if draws.chance(6) else 1):
        _input(w, f"x{number}", draws, "batch" if open_batch else BATCH)
    if draws.below(3):  # the sizes of inputs are frozen: go on from something that is not
        w.used.update(tensor.name for tensor in w.pool)
        w.pool = [projected(w, tensor, draws.pick((6, 8, 12))) for tensor in w.pool]
    layers = []
    for step in recipe.steps:
        name = _LOTTERY[step[0] * len(_LOTTERY) // (LARGEST + 1)]
        if _try(w, name, Draws(step[1:]), most):
            layers.append(name)
    if not layers:
        x = projected(w, w.pool[0], 8)
        w.used.add(w.pool[0].name)
        w.pool.append(x)
    return Made(_finished(w, draws), tuple(layers), everything)


def _input(w: Workshop, name: str, draws: Draws, batch: int | str) -> None:
    kind = draws.pick(("image", "image", "sequence", "features", "tokens"))
    if kind == "image":
        channels_, side = draws.pick((3, 4, 6)), draws.pick((6, 8, 4))
        w.pool.append(Tensor(w.net.input(name, (batch, channels_, side, side)), (BATCH, channels_, side, side)))
        return
    length, width = draws.pick((5, 4, 6)), draws.pick((8, 6, 12))
    if kind == "tokens":
        tokens = w.net.input(name, (batch, length), np.int64)
        table = w.net.const(w.net.normal(ROWS, width, scale=0.7), "embedding")
        w.pool.append(Tensor(w.net.op("Gather", table, tokens), (BATCH, length, width)))
    else:
        shape = (length, width) if kind == "sequence" else (width,)
        w.pool.append(Tensor(w.net.input(name, (batch, *shape)), (BATCH, *shape)))


def _try(w: Workshop, name: str, draws: Draws, most: int) -> bool:
    """Add a layer if it fits, with room for one operator on every loose end (a dense layer is two)."""
    ranks, _, build_layer = LAYERS[name]
    net = w.net
    before = len(net.nodes), len(net.initializers), len(net.infos), len(w.pool)
    used = set(w.used)
    try:
        x = w.choose(draws, *ranks)
        build_layer(w, x, draws)
        w.used.add(x.name)
        if len(net.nodes) + 2 * len(_loose(w)) <= most:
            return True
    except DoesNotFitError:
        pass
    del net.nodes[before[0] :], net.initializers[before[1] :], net.infos[before[2] :], w.pool[before[3] :]
    w.used = used
    left = {tensor.name for tensor in net.initializers}
    w.tables = {shape: name for shape, name in w.tables.items() if name in left}
    return False


def _loose(w: Workshop) -> list[Tensor]:
    return [tensor for tensor in w.pool if tensor.name not in w.used]


def _finished(w: Workshop, draws: Draws) -> onnx.ModelProto:
    """End every loose end in a small layer, or now and then in an output."""
    net = w.net
    outputs = []
    for tensor in _loose(w):
        made = tensor if draws.chance(8) and len(net.nodes) >= FEWEST else projected(w, tensor, 3)
        while len(net.nodes) < FEWEST:
            made = projected(w, Tensor(net.op("Relu", made.name), made.shape), made.shape[channels(made)] + 1)
        outputs.append(made)
    kind = helper.np_dtype_to_tensor_dtype(net.dtype)
    open_batch = not w.fixed_batch
    results = [
        helper.make_tensor_value_info(made.name, kind, ["batch" if open_batch else BATCH, *made.shape[1:]])
        for made in outputs
    ]
    infos = [] if open_batch else net.infos
    graph = helper.make_graph(net.nodes, net.name, net.inputs, results, net.initializers, value_info=infos)
    imports = [helper.make_opsetid("", net.opset)]
    return helper.make_model(graph, opset_imports=imports, ir_version=helper.find_min_ir_version_for(imports))
