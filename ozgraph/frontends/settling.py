"""What is settled before running is taken out of the way of analysis: branches never taken, lists as sequences."""

from __future__ import annotations

import onnx_ir as ir

from ozgraph.frontends.bodies import inline_branches
from ozgraph.frontends.control_flow import Control
from ozgraph.frontends.known import Inferred, Variability
from ozgraph.frontends.normal_form import drop_unused
from ozgraph.frontends.sequences import Resolver, uses_sequences
from ozgraph.frontends.shapes import Skeleton
from ozgraph.frontends.stacking import stack_results

_WITH_BODIES = frozenset({"If", "Loop", "Scan"})


def settle(skeleton: Skeleton, inferred: Inferred, varying: Variability) -> bool:
    """Simplify the model behind ``skeleton`` in place; whether anything changed, so that it must be inferred again.

    1. An If whose condition is the same number at every run gives way to the branch that it takes.
    2. Sequences and optionals whose elements are known become the tensors that they hold.
    3. A Loop that only appends to a sequence, stacked afterwards, stacks its results itself.
    """
    model = skeleton.model
    taken = {}
    for node, control in skeleton.controls.items():
        choice = _settled_choice(control, varying)
        if choice is not None:
            taken[node] = choice
    inline_branches(model, skeleton.controls, taken)
    changed = bool(taken)
    if not changed and uses_sequences(skeleton.nodes):
        changed = stack_results(model, skeleton.controls, inferred)
        changed = changed or Resolver(model, skeleton.version, inferred, varying).run(skeleton.controls)
        drop_unused(model)  # tensors that were made for a sequence which has to stay
    elif changed:
        drop_unused(model)
    return changed


def uses_bodies_or_sequences(model: ir.Model) -> bool:
    """Whether ``model`` has anything that :func:`settle`, or the normal form of bodies, may rewrite."""
    parts = (model.graph, *(function.graph for function in model.functions.values()))
    nodes = [node for part in parts for node in part.all_nodes()]
    return any(node.op_type in _WITH_BODIES for node in nodes) or uses_sequences(nodes)


def _settled_choice(control: Control, varying: Variability) -> int | None:
    condition = control.conditions[0] if control.node.op_type == "If" else None
    known = varying.integers.get(condition.name or "") if isinstance(condition, ir.Value) else None
    if known is None or not known.static or known.elements.size != 1:
        return None
    return 0 if bool(known.elements.reshape(-1)[0]) else 1
