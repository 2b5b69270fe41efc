"""Normalisations: batch, instance, layer, root mean square and group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ozgraph.graph import Array, Op, Value
from ozgraph.plan import NewOp
from ozgraph.rules.lattice import UNKNOWN, ZERO, ByStates, Slots, finite
from ozgraph.rules.notation import ONE_AXIS, Axes, Letter, Product
from ozgraph.rules.registry import register
from ozgraph.rules.rule import ByRanks, Describe, Edit, Reduction, Rule, Spec, attribute, letters, need_shape

POSITIONS = "the statistics run over it"


def _state(states: Sequence[Slots | None], position: int) -> Slots:
    state = states[position] if position < len(states) else None
    return UNKNOWN if state is None else state


@ByStates
def _batch_norm(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
    known = [_state(states, position) for position in range(5)]
    return batch_normalized(op, known, float(op.attributes.get("epsilon", 1e-5)))


def batch_normalized(op: Op, states: Sequence[Slots], epsilon: float) -> Slots:
    """``gamma * (x - mean) / sqrt(var + eps) + beta``, slot by slot; beta alone where gamma is zero.

    Args:
        states: of x, gamma, beta, mean and variance.
    """
    x, gamma, beta, mean, variance = states
    dtype = op.inputs[0].dtype if op.inputs[0] is not None and op.inputs[0].dtype is not None else np.float32
    with np.errstate(all="ignore"):
        value = ((x - mean) / np.sqrt(variance + epsilon) * gamma + beta).astype(dtype)
    return np.where(gamma == 0, beta, finite(value))


def _trains(op: Op) -> bool:
    """Whether the statistics are those of the batch; before opset 14, further results say so."""
    return bool(op.attributes.get("training_mode", 0)) or any(value is not None for value in op.outputs[1:])


@ByRanks
def _batch(op: Op) -> Spec:
    names = letters("a", len(need_shape(op.inputs[0], op)))
    channels: Axes = names[1:2]
    operands = (names, *(channels for _ in op.inputs[1:]))
    results = (names, *(channels for _ in op.outputs[1:]))
    over = {name.name: POSITIONS for name in (names[0], *names[2:])} if _trains(op) else {}
    return Spec(operands, results, frozen=over)


@ByStates
def _batch_normalized(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
    if result:
        return UNKNOWN
    return (_instance_norm if _trains(op) else _batch_norm)(op, states, result, axis)


register(
    "BatchNormalization",
    Rule(_batch, _batch_normalized, statistics=frozenset({3, 4}), text="n c *s, c, c, c, c -> n c *s"),
)


@ByStates
def _instance_norm(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
    """A slot that is constant over the normalised positions becomes beta, and so does one with gamma zero.

    A slot among those positions is not the mean there when it is zero.
    """
    x, gamma, beta = (_state(states, position) for position in range(3))
    constant = ~np.isnan(x) if axis < 2 else np.zeros(x.shape, dtype=np.bool_)
    return np.where(constant | (gamma == 0), beta, np.nan)


def _instance(op: Op) -> Spec:
    names = letters("a", len(need_shape(op.inputs[0], op)))
    over = {f"a{number}": Reduction.NORM for number in range(2, len(names))}
    return Spec((names, (names[1],), (names[1],)), (names,), reduced=over)


def _instance_norm_keeps_its_statistics(edit: Edit) -> None:
    """Fewer instances are fewer instances; fewer positions, as where groups of channels lie in one, are written out."""
    op = edit.op
    source, gamma, beta = op.inputs[:3]
    assert source is not None and source.shape is not None and source.dtype is not None
    assert gamma is not None and beta is not None
    before, after = int(np.prod(source.shape[2:])), int(np.prod(edit.shape(source)[2:]))
    if before == after:
        return
    beside = np.array([-1, *([1] * (source.rank - 2))], dtype=np.int64)
    shaped = {part: edit.rename(part) for part in ("gamma", "beta")}
    steps = [
        NewOp("Reshape", (value.name, beside), (shaped[part],)) for part, value in (("gamma", gamma), ("beta", beta))
    ]
    steps += decomposed(
        edit,
        source.name,
        range(2, source.rank),
        before,
        after,
        dtype=source.dtype,
        gamma=shaped["gamma"],
        beta=shaped["beta"],
        epsilon=float(op.attributes.get("epsilon", 1e-5)),
    )
    edit.replace(*steps)


register(
    "InstanceNormalization",
    Rule(_instance, _instance_norm, rewrite=_instance_norm_keeps_its_statistics, text="n c *s, c, c -> n c *s"),
)


def _normalized_from(op: Op) -> int:
    rank = len(need_shape(op.inputs[0], op))
    return int(op.attributes.get("axis", -1)) % rank


def _over_last_axes(reduction: Reduction) -> Describe:
    @ByRanks
    def describe(op: Op) -> Spec:
        rank = len(need_shape(op.inputs[0], op))
        first = _normalized_from(op)
        names = letters("a", rank)
        # Scale and bias broadcast to the normalised axes, aligned on the right.
        affine = [None if value is None else names[rank - value.rank :] for value in op.inputs[1:]]
        over = [f"a{number}" for number in range(first, rank)]
        statistics: Axes = (*names[:first], *(ONE_AXIS for _ in names[first:]))
        axes = (names, *affine), (names, *(statistics for _ in op.outputs[1:]))
        return Spec(*axes, reduced=dict.fromkeys(over, reduction))

    return describe


@ByStates
def _layer_norm(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
    """On a normalised axis gamma zero leaves beta; beside it a constant slot becomes zero, then beta."""
    if result:
        return UNKNOWN
    x, gamma = _state(states, 0), _state(states, 1)
    beta = _state(states, 2) if op.input(2) is not None else ZERO
    if axis >= _normalized_from(op):
        return np.where(gamma == 0, beta, np.nan)
    return np.where(~np.isnan(x), beta, np.nan)


@ByStates
def _rms_norm(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
    """Zero stays zero, and gamma zero makes it."""
    if result:
        return UNKNOWN
    return np.where((_state(states, 0) == 0) | (_state(states, 1) == 0), 0.0, np.nan)


def _shrinkage(edit: Edit) -> tuple[int, int]:
    """Normalised slots before and after."""
    source = edit.op.inputs[0]
    assert source is not None and source.shape is not None
    first = _normalized_from(edit.op)
    return int(np.prod(source.shape[first:])), int(np.prod(edit.shape(source)[first:]))


def rescaled_rms(edit: Edit, before: int, after: int, *, gamma: int, epsilon: float, inverse: int) -> None:
    """N slots became m and the others are zero: gamma * sqrt(n / m) with eps * n / m is the very same norm.

    Args:
        before, after: n and m.
        gamma: the operand that holds it.
        epsilon: what the operator takes where it says nothing.
        inverse: the result that holds one over the root mean square, which is now smaller by sqrt(n / m).
    """
    if before == after:
        return
    op, ratio = edit.op, before / after
    epsilon = float(op.attributes.get("epsilon", epsilon)) * ratio
    edit.set_attribute("epsilon", epsilon)
    constant, scale = edit.constant(gamma), op.input(gamma)
    statistic = op.outputs[inverse] if len(op.outputs) > inverse else None
    assert scale is not None
    larger = None if constant is None else (constant.astype(np.float64) * np.sqrt(ratio)).astype(constant.dtype)
    if larger is not None and statistic is None:
        edit.set_constant(gamma, larger)
        return
    factor = np.array(np.sqrt(ratio), dtype=scale.dtype)
    names: list[str | Array | None] = [None if value is None else value.name for value in op.inputs]
    results = ["" if value is None else value.name for value in op.outputs]
    steps = []
    if larger is not None:
        names[gamma] = larger
    else:  # a computed scale is multiplied at run time
        names[gamma] = grown = edit.rename("scale")
        steps.append(NewOp("Mul", (scale.name, factor), (grown,)))
    if statistic is not None:
        results[inverse] = edit.rename("inverse")
    steps.append(NewOp(op.type, tuple(names), tuple(results), {**op.attributes, "epsilon": epsilon}, op.domain))
    if statistic is not None:
        own = factor.astype(statistic.dtype or scale.dtype)
        steps.append(NewOp("Mul", (results[inverse], own), (statistic.name,)))
    edit.replace(*steps)


def _rms_keeps_its_statistics(edit: Edit) -> None:
    before, after = _shrinkage(edit)
    rescaled_rms(edit, before, after, gamma=1, epsilon=1e-5, inverse=1)


def decomposed(
    edit: Edit,
    source: str,
    axes: Sequence[int],
    before: int,
    after: int,
    *,
    dtype: np.dtype[Any],
    gamma: Value | str | None,
    beta: Value | str | None,
    epsilon: float,
) -> list[NewOp]:
    """A layer norm with the original count and the zeroed slots' share of the variance, up to the first result.

    mu = sum(x) / n and var = (sum of kept (x - mu)^2 + (n - m) mu^2) / n, n slots before and m after. Scale and bias
    broadcast; they are operands, or names of what operands have been made into.
    """
    result = edit.op.outputs[0]
    assert result is not None

    def number(value: float) -> np.ndarray[tuple[()], np.dtype[np.generic]]:
        return np.array(value, dtype=dtype)

    def total(of: str, to: str) -> NewOp:
        if edit.opset >= 13:
            return NewOp("ReduceSum", (of, np.array(axes, dtype=np.int64)), (to,), {"keepdims": 1})
        return NewOp("ReduceSum", (of,), (to,), {"keepdims": 1, "axes": list(axes)})

    name = {
        part: edit.rename(part)
        for part in ("sum", "mu", "d", "dd", "ss", "mm", "lost", "all", "var", "veps", "std", "y")
    }
    steps = [
        total(source, name["sum"]),
        NewOp("Mul", (name["sum"], number(1 / before)), (name["mu"],)),
        NewOp("Sub", (source, name["mu"]), (name["d"],)),
        NewOp("Mul", (name["d"], name["d"]), (name["dd"],)),
        total(name["dd"], name["ss"]),
        NewOp("Mul", (name["mu"], name["mu"]), (name["mm"],)),
        NewOp("Mul", (name["mm"], number(before - after)), (name["lost"],)),
        NewOp("Add", (name["ss"], name["lost"]), (name["all"],)),
        NewOp("Mul", (name["all"], number(1 / before)), (name["var"],)),
        NewOp("Add", (name["var"], number(epsilon)), (name["veps"],)),
        NewOp("Sqrt", (name["veps"],), (name["std"],)),
        NewOp("Div", (name["d"], name["std"]), (name["y"],)),
    ]
    last = name["y"]
    for operator, operand in (("Mul", gamma), ("Add", beta)):
        if operand is not None:
            following = edit.rename(operator.lower())
            factor = operand if isinstance(operand, str) else operand.name
            steps.append(NewOp(operator, (last, factor), (following,)))
            last = following
    steps.append(NewOp("Identity", (last,), (result.name,)))
    return steps


def statistics(edit: Edit) -> list[NewOp]:
    """The mean and one over the deviation, where they are results of their own, after :func:`decomposed`."""
    parts = zip(edit.op.outputs[1:3], ("Identity", "Reciprocal"), ("mu", "std"), strict=False)
    return [
        NewOp(operator, (edit.rename(part),), (value.name,)) for value, operator, part in parts if value is not None
    ]


def _layer_norm_keeps_its_statistics(edit: Edit) -> None:
    before, after = _shrinkage(edit)
    if before == after:
        return
    op = edit.op
    source = op.inputs[0]
    assert source is not None and source.dtype is not None
    axes = range(_normalized_from(op), source.rank)
    epsilon = float(op.attributes.get("epsilon", 1e-5))
    steps = decomposed(
        edit,
        source.name,
        axes,
        before,
        after,
        dtype=source.dtype,
        gamma=op.input(1),
        beta=op.input(2),
        epsilon=epsilon,
    )
    edit.replace(*steps, *statistics(edit))


register(
    "LayerNormalization",
    Rule(
        _over_last_axes(Reduction.NORM),
        _layer_norm,
        rewrite=_layer_norm_keeps_its_statistics,
        text="*b *c, *c, *c -> *b *c",
    ),
)
register(
    "RMSNormalization SimplifiedLayerNormalization",
    Rule(
        _over_last_axes(Reduction.RMS),
        _rms_norm,
        rewrite=_rms_keeps_its_statistics,
        text="*b *c, *c -> *b *c",
    ),
)


def _group_norm(op: Op) -> Spec:
    """Whole groups go as they are; inside a group the statistics run over the channels too."""
    rank = len(need_shape(op.inputs[0], op))
    n, _, *positions = letters("a", rank)
    channels = Product(("g", "c"))
    # Until opset 20 scale and bias have one element a group.
    affine: Axes = (channels,) if op.version >= 21 else (Letter("g"),)
    axes: Axes = (n, channels, *positions)
    return Spec(
        (axes, affine, affine),
        (axes,),
        sizes={"g": attribute("num_groups", 1)(op)},
        reduced={"c": Reduction.NORM},
        frozen={f"a{number}": POSITIONS for number in range(2, rank)},
    )


def _group_norm_slots(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
    """Gamma zero leaves beta. A zero input alone does not: in its group it is not the mean."""
    gamma, beta = _state(states, 1), _state(states, 2)
    return np.where(gamma == 0, beta, np.nan)


def _group_norm_keeps_its_statistics(edit: Edit) -> None:
    """Fewer groups are fewer groups; fewer channels in a group are emitted decomposed.

    Of a group's n elements m stay and the others are zero: mu = mean over kept * m / n, and
    var = mean over kept (x - mu)^2 * m / n + (1 - m / n) mu^2. The share m / n is that of the channels alone.
    """
    op = edit.op
    groups, channels = int(edit.kept("g").sum()), edit.kept("c")
    if channels.all():
        edit.set_attribute("num_groups", groups)
        return
    source, gamma, beta, result = op.inputs[0], op.inputs[1], op.inputs[2], op.outputs[0]
    assert source is not None and gamma is not None and beta is not None and result is not None
    dtype = source.dtype or np.dtype(np.float32)
    share = float(channels.mean())
    rank = len(source.shape or ())
    inner, last = np.array([0, groups, -1], dtype=np.int64), np.array([2], dtype=np.int64)
    beside = np.array([-1, *([1] * (rank - 2))], dtype=np.int64)
    part = {
        name: edit.rename(name)
        for name in ("x", "m", "mu", "d", "dd", "v", "vs", "mm", "lost", "var", "veps", "std", "y", "size", "back")
    }

    def number(value: float) -> Array:
        return np.array(value, dtype=dtype)

    steps = [
        NewOp("Reshape", (source.name, inner), (part["x"],)),
        NewOp("ReduceMean", (part["x"], last), (part["m"],), {"keepdims": 1}),
        NewOp("Mul", (part["m"], number(share)), (part["mu"],)),
        NewOp("Sub", (part["x"], part["mu"]), (part["d"],)),
        NewOp("Mul", (part["d"], part["d"]), (part["dd"],)),
        NewOp("ReduceMean", (part["dd"], last), (part["v"],), {"keepdims": 1}),
        NewOp("Mul", (part["v"], number(share)), (part["vs"],)),
        NewOp("Mul", (part["mu"], part["mu"]), (part["mm"],)),
        NewOp("Mul", (part["mm"], number(1 - share)), (part["lost"],)),
        NewOp("Add", (part["vs"], part["lost"]), (part["var"],)),
        NewOp("Add", (part["var"], number(float(op.attributes.get("epsilon", 1e-5)))), (part["veps"],)),
        NewOp("Sqrt", (part["veps"],), (part["std"],)),
        NewOp("Div", (part["d"], part["std"]), (part["y"],)),
        NewOp("Shape", (source.name,), (part["size"],)),
        NewOp("Reshape", (part["y"], part["size"]), (part["back"],)),
    ]
    # Scales of one element a group, before opset 21, never get here: they hold the channels back.
    current = part["back"]
    for operator, operand in (("Mul", gamma), ("Add", beta)):
        shaped, following = edit.rename(f"{operator.lower()}_operand"), edit.rename(operator.lower())
        steps += [
            NewOp("Reshape", (operand.name, beside), (shaped,)),
            NewOp(operator, (current, shaped), (following,)),
        ]
        current = following
    steps.append(NewOp("Identity", (current,), (result.name,)))
    edit.replace(*steps)


register(
    "GroupNormalization",
    Rule(
        _group_norm,
        _group_norm_slots,
        rewrite=_group_norm_keeps_its_statistics,
        text="n (g c) *s, (g c), (g c) -> n (g c) *s",
    ),
)


def _mean_variance(op: Op) -> Spec:
    rank = len(need_shape(op.inputs[0], op))
    names = letters("a", rank)
    axes = [int(axis) % rank for axis in op.attributes.get("axes", (0, 2, 3))]
    return Spec((names,), (names,), frozen={f"a{axis}": POSITIONS for axis in axes})


def _centred(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
    """A constant over the normalised positions has no deviation to divide by."""
    return np.where(np.isnan(_state(states, 0)), np.nan, np.inf)


register("MeanVarianceNormalization", Rule(_mean_variance, _centred, text="n c *s -> n c *s"))
