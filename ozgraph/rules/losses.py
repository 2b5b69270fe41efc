"""Losses: the elements of a batch that they do not reduce."""

from __future__ import annotations

from ozgraph.graph import Op
from ozgraph.rules.lattice import opaque, vanishing
from ozgraph.rules.notation import Axes
from ozgraph.rules.registry import register
from ozgraph.rules.rule import ByRanks, Rule, Spec, letters, need_shape

_CLASSES = "a loss counts every class"


@ByRanks
def _loss(op: Op) -> Spec:
    """Scores [n, c, *d] and targets [n, *d]; without a reduction a loss for each target, and log(p) if asked for."""
    names = letters("a", len(need_shape(op.inputs[0], op)))
    targets = (names[0], *names[2:])
    frozen = {"a1": _CLASSES}
    losses: Axes = targets
    if op.attributes.get("reduction", "mean") != "none":
        frozen |= {name.name: "a loss is taken over all of it" for name in targets}
        losses = ()
    operands = (names, targets, (names[1],))[: len(op.inputs)]
    return Spec(operands, (losses, names)[: len(op.outputs)], frozen=frozen)


register("NegativeLogLikelihoodLoss", Rule(_loss, vanishing, text="n c *d, n *d, c -> n *d"))
register("SoftmaxCrossEntropyLoss", Rule(_loss, opaque, text="n c *d, n *d, c -> n *d, n c *d"))
