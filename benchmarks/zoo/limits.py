"""What does not prune, why, and what that holds back in the models that were measured.

Sentences are written here, figures come from the lines: every reason that a line records belongs to the first limit
that names its beginning, and what belongs to none is listed apart, so that no reason goes missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lines import Line


@dataclass(frozen=True)
class Limit:
    """One limit.

    Attributes:
        what: in the words of a person who meets it.
        helps: what that person can do.
        reasons: beginnings of the reasons that freezing gives.
        operators: count these reasons at operators that end so alone; empty for all.
        said: what a route says that ended without a pruned model, its outcome first, as a regular expression.
    """

    what: str
    why: str
    helps: str
    reasons: tuple[str, ...] = ()
    operators: tuple[str, ...] = ()
    said: str | None = None

    def holds(self, reason: str, operator: str) -> bool:
        """Whether a frozen row is this limit's."""
        return reason.startswith(self.reasons) and (not self.operators or operator.endswith(self.operators))


@dataclass(frozen=True)
class Held:
    """What one limit holds back on one route.

    Attributes:
        parameters: that stay for this reason; of models that were refused, all of them.
        models: how many models have such parameters.
        total: parameters of all models that took the route.
    """

    parameters: int
    models: int
    total: int


def held(limit: Limit, ours: Sequence[Line], route: str) -> Held:
    """Count over all models that took a route."""
    counts, total = [], 0
    for line in ours:
        row = line.get("routes", {}).get(route)
        if row is None:
            continue
        size = row.get("parameters") or line.get("parameters", 0)
        total += size
        if _refusal(row) is limit:
            counts.append(size)
        else:
            frozen = row.get("frozen", ())
            counts.append(sum(count for reason, at, count, _ in frozen if belongs(reason, at) is limit))
    return Held(sum(counts), sum(count > 0 for count in counts), total)


def unnamed(ours: Sequence[Line], routes: Iterable[str]) -> list[tuple[str, str, int, int]]:
    """Reasons that belong to no limit: reason, operator, parameters and models, the most parameters first."""
    found: dict[tuple[str, str], list[int]] = {}
    for line in ours:
        for route in routes:
            for reason, operator, count, _ in line.get("routes", {}).get(route, {}).get("frozen", ()):
                if count and belongs(reason, operator) is None:
                    found.setdefault((reason, operator), []).append(count)
    rows = [(reason, operator, sum(counts), len(counts)) for (reason, operator), counts in found.items()]
    return sorted(rows, key=lambda row: (-row[2], row[0], row[1]))


def belongs(reason: str, operator: str) -> Limit | None:
    """The limit that a frozen row belongs to: the first that names it."""
    return next((limit for limit in LIMITS if limit.reasons and limit.holds(reason, operator)), None)


def _refusal(row: Line) -> Limit | None:
    """The limit that kept a whole model from being pruned."""
    said = f"{row['outcome']}: {row.get('error') or row.get('said') or ''}"
    return next((limit for limit in LIMITS if limit.said is not None and re.search(limit.said, said)), None)


LIMITS = (
    Limit(
        "inputs and outputs of the model",
        "their shapes are promised to the caller: the channels of the last layer",
        "`--allow-io`",
        ("it is an input of the model", "it is an output of the model"),
    ),
    Limit(
        "a part of a tensor that is written in place, in ONNX",
        "the exporter makes ScatterND of it, whose indexes are looked up: the channels written to",
        "prune the module: `ozgraph.capture` follows the write",
        ("positions along it are looked up", "it holds the coordinates"),
        ("ScatterND", "ScatterElements"),
    ),
    Limit(
        "rows of a table that the data chooses: a vocabulary, positions, labels",
        "which rows are read is not known before running; the columns prune",
        "none: a model that never reads some rows can be saved without them",
        ("positions along it are looked up at run time",),
    ),
    Limit(
        "a maximum or minimum over channels of numbers that may be negative",
        "among negative numbers, the zero of a removed channel would have been the largest; in a residual network "
        "this holds the channels of the whole stage",
        "ReLU, a sigmoid or another operator whose result is never negative, ahead of it",
        (
            "a maximum over it", "a minimum over it", "a maximum or minimum over it",
            "a maximum, a product or a minimum over it",
        ),
    ),
    Limit(
        "a softmax, a log-sum-exp, a product, a distance or an argmax along channels",
        "a removed slot still counts, exp(0) is 1: routers, bins of a box regression",
        "none; it is what the operator means",
        (
            "a softmax over it", "a product or a sum of exponentials over it", "a distance over it",
            "an argmax over it", "a loss ",
        ),
    ),
    Limit(
        "positions: windows, places in an image, time",
        "what lies at a position depends on its neighbours, so that no position could go without moving the others",
        "none",
        (
            "the operator looks along it", "a window moves along it", "a window runs across", "a pooling window",
            "time runs along it", "windows overlap along it", "it becomes pixels", "it is made of pixels",
            "it transforms along time", "it is the only one read", "the operator's rule says nothing of this axis",
        ),
    ),
    Limit(
        "order: cumulative sums, sorting, flips, rolls",
        "every slot behind a removed one would change",
        "none",
        (
            "the order of its slots matters", "the order along it", "a running ", "sorting along it",
            "a difference along it", "positions are counted along it", "the triangle depends on positions",
            "a top-k along it", "positions along it are written one by one",
        ),
    ),
    Limit(
        "sizes that vary or that the model computes",
        "what is computed with a size at run time would change its meaning; so would channels or heads that are "
        "flattened into one axis with a size that varies",
        "fixed sizes, or shapes that the exporter can fold",
        (
            "its size varies at run time", "its size is computed at run time", "its elements stand for positions",
            "a size is read as a number", "it makes coordinates out of sizes", "a size that it computes at run time",
            "the shape of an operand is not known before running",
        ),
    ),
    Limit(
        "integers that are computed with: sizes, indexes, coordinates",
        "they hold no weights, although they are stored as numbers",
        "none",
        ("it holds sizes or indexes", "it holds the coordinates", "it holds the corners"),
    ),
    Limit(
        "axes of size one",
        "a size of one has no slot that could go: single outputs, scales, thresholds",
        "none",
        ("it has no slots of its own",),
    ),
    Limit(
        "groups of channels that do not line up",
        "where a shuffle, or a reshape, lies between grouped layers whose groups and channels share no factor, no "
        "channel could go without moving others into another group",
        "a number of channels that is a multiple of groups times groups",
        (
            "its positions are arranged in two ways that do not line up", "its numbers of heads do not divide",
            "the number of groups is an argument",
        ),
    ),
    Limit(
        "tensors that are stacked or taken apart",
        "a position along such an axis is a tensor of its own, often the only one of its kind: a pair of coordinates, "
        "the real and the imaginary part",
        "none; the other axes prune",
        ("every position along it is a tensor of its own", "every position along it becomes a tensor of its own"),
    ),
    Limit(
        "slots that go together or not at all",
        "one that goes takes all others along, or would leave an axis empty",
        "none",
        ("all of its slots go together", "an axis would be left without positions"),
    ),
    Limit(
        "tables that several uses read in part",
        "a rotary table or a mask stays whole, and every use takes its part: nothing is computed with the rest",
        "none",
        ("it stays whole",),
    ),
    Limit(
        "experts that data chooses (MoE as an operator, boolean indexing, `nonzero`)",
        "how many tokens an expert sees is not known: the experts, and what they share with others",
        "export with every expert on every token",
        ("which expert a token meets", "how many elements it"),
    ),
    Limit(
        "what follows non-maximum suppression",
        "how many boxes are left depends on the data: layers behind it; the network up to its heads prunes",
        "prune the part before it, as detectors are in the zoo",
        ("which boxes it returns",),
    ),
    Limit(
        "decision trees and other estimators of `ai.onnx.ml`",
        "features are read by number, leaves hold no weights that multiply: models made of them alone pass through "
        "unchanged; perceptrons of scikit-learn prune",
        "none",
        (
            "a tree reads features", "its weights are attributes", "a norm over it sees every slot",
            "features of several operands", "it turns numbers or words", "it reads or makes dictionaries",
        ),
    ),
    Limit(
        "group norm inside a group, layer norm",
        "the statistics count the removed channels; nothing with `--rescale`, which writes the norm out",
        "`--rescale`",
        ("a norm over it", "a mean over it", "the statistics run over it", "a variance over it"),
    ),
    Limit(
        "half precision: norms, means, folded constants",
        "factors would be rounded: families that a norm or a mean runs over",
        "prune in float32, then convert",
        ("a mean or norm over it cannot be rescaled exactly",),
    ),
    Limit(
        "weights of a few bits",
        "numbers that share a scale, and blocks whose zero points share a byte, go together: rows prune one by one, "
        "columns by the block",
        "smaller blocks, eight bits or weights without zero points, or prune before quantising",
        (
            "a block of it shares a scale", "its weights are packed", "zero points of neighbouring blocks",
            "its last block is cut short", "its numbers belong to blocks",
        ),
    ),
    Limit(
        "a sum over constants that no weight makes",
        "slots that the model adds up do not come from weights that could be zero",
        "none",
        ("a sum over it still sees", "a zeroed slot would not be finite there"),
    ),
    Limit(
        "gates and directions of recurrent layers",
        "their number is fixed by the operator; hidden units prune through all of them",
        "none",
        ("the gates stand in a fixed order", "directions stand in", "layers and directions stand in"),
    ),
    Limit(
        "operators that ozgraph does not know",
        "nothing is guessed: what they touch stays",
        "[add an operator](extend.md#add-an-operator)",
        ("the operator is not known",),
    ),
    Limit(
        "names that PyTorch's exporter writes twice",
        "a buffer named as one of its temporary tensors (`index`, ...) gives a file that is no ONNX model: it is "
        "refused, and says which name",
        "rename the buffer, or export with `optimize=True`",
        said=r"^failed: ModelError: .* computes .*, the name of ",
    ),
    Limit(
        "a part of a module named `code` or `graph` at its top",
        "`torch.export` cannot run its own program of such a module; it is not pruned through torch.fx",
        "rename the part, or wrap the module in another",
        said=r"references nonexistent attribute .* of (code|graph)\b",
    ),
    Limit(
        "Python that torch.export does not follow",
        "there is no graph; the zoo lists such models with PyTorch's own words",
        "capture the part around it",
        said=r"^not captured: ",
    ),
)  # fmt: skip
