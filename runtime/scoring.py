"""What scores need besides the weights: the optimizer's options, second derivatives, and numbers that are finite."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ozgraph.errors import UsageError
from ozgraph.runtime.places import Layout
from ozgraph.runtime.selection import Scores
from ozgraph.runtime.shards import Processes, is_sharded, local_gradient


def options_by_name(optimizer: Optimizer, zeroed: Layout, scored: Layout) -> dict[str, dict[str, Any]]:
    """Parameter name -> the optimizer's group of options that holds it.

    Args:
        zeroed: tensors that must be there.
        scored: more of them that may be.

    Raises:
        UsageError: the optimizer lacks some that would be zeroed.
    """
    held = {id(tensor): options for options in optimizer.param_groups for tensor in options["params"]}
    trainable = {entry.name: entry.trained for entry in zeroed.occupied if entry.trained is not None}
    absent = [name for name, trained in trainable.items() if id(trained) not in held]
    if len(absent) == len(trainable):
        raise UsageError(
            "the optimizer holds none of the parameters of these groups; give it the parameters of the module that "
            "the groups were found on, or bind the groups to its module with groups.bind(module)"
        )
    if absent:
        raise UsageError(
            f"the optimizer does not hold {len(absent)} parameters that would be zeroed ({', '.join(absent[:4])}"
            f"{', ...' if len(absent) > 4 else ''}); give it them, or leave their families out with exclude"
        )
    every = trainable | {entry.name: entry.trained for entry in scored.occupied if entry.trained is not None}
    return {name: held[id(trained)] for name, trained in every.items() if id(trained) in held}


def hessian_gradient(loss: Tensor, module: nn.Module, layout: Layout, processes: Processes) -> dict[str, Tensor]:
    """H g of the parameters of a layout by name, by a second derivative; the graph of ``loss`` stays.

    Raises:
        UsageError: parameters are sharded, or an operator of the model has no second derivative.
    """
    ours = {entry.name: entry.parameter for entry in layout.occupied if entry.parameter.requires_grad}
    if any(is_sharded(tensor) for tensor in ours.values()):
        raise UsageError("grasp cannot differentiate twice through sharded parameters; leave it out of the saliency")
    # The gradient is that of all parameters, also of those that no group holds.
    everything = [tensor for tensor in module.parameters() if tensor.requires_grad]
    try:
        gradients = torch.autograd.grad(loss, everything, create_graph=True, allow_unused=True)
        # On several processes the gradient and its product with the Hessian are means over their batches.
        inner = [(gradient * processes.mean(gradient.detach())).sum() for gradient in gradients if gradient is not None]
        products = torch.autograd.grad(
            torch.stack(inner).sum(), list(ours.values()), allow_unused=True, retain_graph=True
        )
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(f"the model has no second derivative ({reason}); leave grasp out of the saliency") from None
    return {name: processes.mean(product) for name, product in zip(ours, products, strict=True) if product is not None}


def check_finite(scores: Tensor, layout: Layout, step: int) -> None:
    """See that scores are numbers.

    Raises:
        UsageError: they are not; says which parameter is to blame.
    """
    if bool(torch.isfinite(scores).all()):
        return
    for entry in layout.occupied:
        for what, tensor in (("its gradient", local_gradient(entry.parameter)), ("the weight itself", entry.tensor)):
            if tensor is not None and not bool(torch.isfinite(tensor).all()):
                raise UsageError(
                    f"step {step}: {entry.name!r} cannot be scored, {what} is not finite; lower the learning rate or "
                    "clip gradients, and skip steps whose loss is not finite"
                )
    raise UsageError(f"step {step}: the saliency gave scores that are not finite; see the criterion")


def as_scores(scores: Tensor) -> Scores:
    """Scores on the host, float64."""
    found: Scores = scores.detach().to("cpu", torch.float64).numpy()
    return found
