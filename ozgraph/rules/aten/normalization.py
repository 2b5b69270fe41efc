"""Normalisations: batch, instance, layer, root mean square and group, and the norm of a weight.

Where slots go, weights keep their values: a factor is a scalar behind the norm, so that the smaller module trains as
the zeroed original does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ozgraph.graph import Op, Value
from ozgraph.plan import NewOp
from ozgraph.rules.aten.arguments import rank_of, source_of
from ozgraph.rules.lattice import UNKNOWN, ZERO, Slots
from ozgraph.rules.normalization import POSITIONS, batch_normalized
from ozgraph.rules.notation import ONE_AXIS, Axes, Letter, Product, parse
from ozgraph.rules.registry import register
from ozgraph.rules.rule import Describe, Edit, Reduction, Rule, Spec, from_pattern, letters

_ONE: Slots = np.array([1.0])

_BATCH_NORM = parse("n c *s, c, c, c, c -> n c *s")
_CHANNELS = 1


def _state(op: Op, states: Sequence[Slots | None], position: int, otherwise: Slots = UNKNOWN) -> Slots:
    """The state of an operand; ``otherwise`` where it is left out."""
    if op.input(position) is None:
        return otherwise
    state = states[position]
    return UNKNOWN if state is None else state


class _Steps:
    """A chain of new operators; every method enters one and gives the name of its result."""

    def __init__(self, edit: Edit) -> None:
        self._edit = edit
        self.ops: list[NewOp] = []

    def __call__(self, type_: str, *operands: str, **attributes: Any) -> str:
        name = self._edit.rename(f"step{len(self.ops)}")
        self.ops.append(NewOp(type_, operands, (name,), attributes, "aten"))
        return name

    def standardised(self, x: str, axes: list[int], share: float, epsilon: float) -> str:
        """(x - mean) / deviation over axes of which a share is left, where the lost positions were zero.

        Of n positions m stay: mu = mean over kept * m / n, and
        var = mean over kept (x - mu)^2 * m / n + (1 - m / n) mu^2.
        """
        mu = self("mul.Scalar", self("mean.dim", x, dim=axes, keepdim=True), other=share)
        centred = self("sub.Tensor", x, mu)
        spread = self("mean.dim", self("mul.Tensor", centred, centred), dim=axes, keepdim=True)
        lost = self("mul.Scalar", self("mul.Tensor", mu, mu), other=1 - share)
        variance = self("add.Tensor", self("mul.Scalar", spread, other=share), lost)
        return self("div.Tensor", centred, self("sqrt", self("add.Scalar", variance, other=epsilon)))

    def finish(self, last: str, result: Value | None) -> None:
        assert result is not None
        self._edit.replace(*self.ops, NewOp("alias", (last,), (result.name,), {}, "aten"))


def _batch_norm(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
    """As in ONNX; with the statistics of the batch, a channel that is constant becomes beta, and so does gamma zero."""
    x, gamma, beta = _state(op, states, 0), _state(op, states, 1, _ONE), _state(op, states, 2, ZERO)
    if op.attributes.get("training", False):
        if axis != _CHANNELS:
            return np.full(x.shape, np.nan)
        return np.where(~np.isnan(x) | (gamma == 0), beta, np.nan)
    mean, variance = _state(op, states, 3), _state(op, states, 4)
    return batch_normalized(op, (x, gamma, beta, mean, variance), float(op.attributes["eps"]))


def _batch(op: Op) -> Spec:
    """Statistics of the batch (a standardised weight has them in eval mode too) run over all axes but the channels."""
    spec = from_pattern(_BATCH_NORM, op)
    if not op.attributes.get("training", False):
        return spec
    return replace(spec, frozen={"n": POSITIONS}, reduced=dict.fromkeys(_positions(op), Reduction.NORM))


def _positions(op: Op) -> list[str]:
    """The letters of the axes behind the channels."""
    axes = from_pattern(_BATCH_NORM, op).operands[0] or ()
    return [axis.name for axis in axes[_CHANNELS + 1 :] if isinstance(axis, Letter)]


def _batch_norm_keeps_its_statistics(edit: Edit) -> None:
    """Statistics of the batch over fewer positions are written out, the lost ones counted as in a group norm."""
    op, source = edit.op, source_of(edit.op)
    if not op.attributes.get("training", False):
        return
    share = float(np.prod([edit.kept(letter).mean() for letter in _positions(op)]))
    if share == 1:
        return
    step, rank = _Steps(edit), source.rank
    axes = [axis for axis in range(rank) if axis != _CHANNELS]
    last = step.standardised(source.name, axes, share, float(op.attributes["eps"]))
    for type_, operand in (("mul.Tensor", op.input(1)), ("add.Tensor", op.input(2))):
        if operand is not None:
            sizes = [edit.shape(operand)[0], *([1] * (rank - 2))]
            last = step(type_, last, step("unflatten.int", operand.name, dim=0, sizes=sizes))
    step.finish(last, op.outputs[0])


register(
    "aten.batch_norm",
    Rule(
        _batch,
        _batch_norm,
        rewrite=_batch_norm_keeps_its_statistics,
        statistics=frozenset({3, 4}),
        text="n c *s, c, c, c, c -> n c *s",
    ),
)


def _instance_norm(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
    """A slot that is constant over the normalised positions becomes beta, and so does one with gamma zero."""
    x, gamma, beta = _state(op, states, 0), _state(op, states, 1, _ONE), _state(op, states, 2, ZERO)
    if op.attributes.get("use_input_stats", True):
        return np.where(~np.isnan(x) | (gamma == 0), beta, np.nan)
    mean, variance = _state(op, states, 3), _state(op, states, 4)
    return batch_normalized(op, (x, gamma, beta, mean, variance), float(op.attributes["eps"]))


def _instance(op: Op) -> Spec:
    names = letters("a", rank_of(op))
    over = {f"a{number}": POSITIONS for number in range(2, len(names))}
    channels: Axes = (names[1],)
    return Spec((names, *(channels for _ in op.inputs[1:])), (names,), frozen=over)


register(
    "aten.instance_norm",
    Rule(_instance, _instance_norm, statistics=frozenset({3, 4}), text="n c *s, c, c, c, c -> n c *s"),
)


def _normalized(op: Op) -> int:
    """The first axis that the norm runs over."""
    return rank_of(op) - len(op.attributes["normalized_shape"])


def _over_last_axes(reduction: Reduction) -> Describe:
    def describe(op: Op) -> Spec:
        rank, first = rank_of(op), _normalized(op)
        names = letters("a", rank)
        affine = [names[first:] for _ in op.inputs[1:]]
        over = [f"a{number}" for number in range(first, rank)]
        return Spec((names, *affine), (names,), reduced=dict.fromkeys(over, reduction))

    return describe


def _layer_norm(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
    """On a normalised axis gamma zero leaves beta; beside it a constant slot becomes zero, then beta."""
    x, gamma, beta = _state(op, states, 0), _state(op, states, 1, _ONE), _state(op, states, 2, ZERO)
    if axis >= _normalized(op):
        return np.where(gamma == 0, beta, np.nan)
    return np.where(~np.isnan(x), beta, np.nan)


def _rms_norm(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
    """Zero stays zero, and gamma zero makes it."""
    return np.where((_state(op, states, 0) == 0) | (_state(op, states, 1, _ONE) == 0), 0.0, np.nan)


def _shrinkage(edit: Edit) -> tuple[list[int], int, int]:
    """The normalised sizes after, and how many slots there were and are."""
    source = source_of(edit.op)
    assert source.shape is not None
    first = _normalized(edit.op)
    after = list(edit.shape(source)[first:])
    return after, int(np.prod(source.shape[first:])), int(np.prod(after))


def _rms_keeps_its_statistics(edit: Edit) -> None:
    """N slots became m and the others are zero: eps * n / m and a factor sqrt(n / m) behind it give the same norm."""
    op, result = edit.op, edit.op.outputs[0]
    after, before_count, after_count = _shrinkage(edit)
    if before_count == after_count:
        return
    assert result is not None and result.dtype is not None
    given = op.attributes.get("eps")
    epsilon = float(np.finfo(result.dtype).eps) if given is None else float(given)
    ratio = before_count / after_count
    part = edit.rename("norm")
    names = tuple(None if value is None else value.name for value in op.inputs)
    edit.replace(
        NewOp(op.type, names, (part,), {"normalized_shape": after, "eps": epsilon * ratio}, "aten"),
        NewOp("mul.Scalar", (part,), (result.name,), {"other": float(np.sqrt(ratio))}, "aten"),
    )


def _layer_norm_keeps_its_statistics(edit: Edit) -> None:
    """N slots became m and the others are zero: the norm is written out, the lost ones counted."""
    op, source = edit.op, source_of(edit.op)
    _, before_count, after_count = _shrinkage(edit)
    if before_count == after_count:
        return
    step = _Steps(edit)
    axes = list(range(_normalized(op), source.rank))
    last = step.standardised(source.name, axes, after_count / before_count, float(op.attributes["eps"]))
    for type_, operand in (("mul.Tensor", op.input(1)), ("add.Tensor", op.input(2))):
        if operand is not None:
            last = step(type_, last, operand.name)
    step.finish(last, op.outputs[0])


register(
    "aten.layer_norm",
    Rule(
        _over_last_axes(Reduction.NORM),
        _layer_norm,
        rewrite=_layer_norm_keeps_its_statistics,
        text="*b *c, *c, *c -> *b *c",
    ),
)
register(
    "aten.rms_norm",
    Rule(_over_last_axes(Reduction.RMS), _rms_norm, rewrite=_rms_keeps_its_statistics, text="*b *c, *c -> *b *c"),
)


def _group_norm(op: Op) -> Spec:
    """Whole groups go as they are; inside a group the statistics run over the channels too."""
    rank = rank_of(op)
    n, _, *positions = letters("a", rank)
    channels = Product(("g", "c"))
    axes: Axes = (n, channels, *positions)
    return Spec(
        (axes, *((channels,) for _ in op.inputs[1:])),
        (axes,),
        sizes={"g": int(op.attributes["num_groups"])},
        reduced={"c": Reduction.NORM},
        frozen={f"a{number}": POSITIONS for number in range(2, rank)},
    )


def _group_norm_slots(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
    """Gamma zero leaves beta. A zero input alone does not: in its group it is not the mean."""
    gamma, beta = _state(op, states, 1, _ONE), _state(op, states, 2, ZERO)
    return np.where(gamma == 0, beta, np.nan)


def _group_norm_keeps_its_statistics(edit: Edit) -> None:
    """Fewer groups are fewer groups; fewer channels in a group are written out, the lost ones counted.

    The share that is left of a group's elements is that of its channels alone.
    """
    op, source = edit.op, source_of(edit.op)
    groups, channels = int(edit.kept("g").sum()), edit.kept("c")
    if channels.all():
        edit.set_attribute("num_groups", groups)
        return
    share, rank = float(channels.mean()), source.rank
    left = int(channels.sum())
    step = _Steps(edit)
    axes = list(range(2, rank + 1))
    grouped = step("unflatten.int", source.name, dim=1, sizes=[groups, left])
    standardised = step.standardised(grouped, axes, share, float(op.attributes["eps"]))
    last = step("flatten.using_ints", standardised, start_dim=1, end_dim=2)
    for type_, operand in (("mul.Tensor", op.input(1)), ("add.Tensor", op.input(2))):
        if operand is not None:
            beside = step("unflatten.int", operand.name, dim=0, sizes=[groups * left, *([1] * (rank - 2))])
            last = step(type_, last, beside if rank > 2 else operand.name)
    step.finish(last, op.outputs[0])


register(
    "aten.group_norm",
    Rule(
        _group_norm,
        _group_norm_slots,
        rewrite=_group_norm_keeps_its_statistics,
        text="n (g c) *s, (g c), (g c) -> n (g c) *s",
    ),
)


def _weight_norm(op: Op) -> Spec:
    """``v * g / norm(v)``, the norm over all axes but one."""
    rank = rank_of(op)
    names = letters("a", rank)
    axis = int(op.attributes.get("dim", 0)) % rank
    factors: Axes = tuple(name if number == axis else ONE_AXIS for number, name in enumerate(names))
    return Spec((names, factors), (names,), reduced={f"a{n}": Reduction.SUM for n in range(rank) if n != axis})


def _weight_norm_slots(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
    """A slice without length has no direction; one with factor zero is zero."""
    v, g = _state(op, states, 0), _state(op, states, 1)
    if axis != int(op.attributes.get("dim", 0)) % rank_of(op):
        return np.where(v == 0, 0.0, np.nan)
    return np.where(v == 0, np.inf, np.where(g == 0, 0.0, np.nan))


register("aten._weight_norm", Rule(_weight_norm, _weight_norm_slots, text="o *i, o *1 -> o *i"))
