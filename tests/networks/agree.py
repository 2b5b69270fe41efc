"""One network, judged: both frontends find the same, and whatever goes out computes what the zeroed original does.

Half of all free slots is chosen at random. The original with their groups at zero is the measure for the pruned
``GraphModule`` and the module shrunken in place, in float64, and for the ONNX file, in onnxruntime.
"""

# Libraries that networks come from are untyped.
# mypy: ignore-errors

from __future__ import annotations

import contextlib
import copy
import io
import logging
import re
import tempfile
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from torch.utils import _pytree as pytree

import ozgraph
from models.halving import NOTHING, HalfOfEveryFamily
from models.partition import difference, names_of, partition
from models.zoo import Made
from ozgraph import api
from ozgraph.api import PruneResult
from ozgraph.backends.torch import to_module, zeroed
from ozgraph.backends.torch_inplace import Before
from ozgraph.errors import UsageError
from ozgraph.inplace import carry_out
from ozgraph.numerics.torch_compare import Reference
from ozgraph.passes.eliminate import Eliminate
from ozgraph.passes.prove_dead import ProveDead, zeroing
from ozgraph.passes.select import Select
from ozgraph.passes.state import State
from ozgraph.passes.summary import prune_report

OPSET = 21
"""The first in which GroupNormalization has one scale a channel; before, the exporter writes other operators."""

EXACT = 1e-12
"""What modules may differ by in float64."""

_ATTEMPTS = 6


@dataclass(frozen=True)
class Frontends:
    """What the two frontends find.

    Attributes:
        groups: free slots with all their places in weights, as found through ONNX.
        operators: the types that are in the ONNX graph.
        difference: what only one of them finds; empty where they agree.
    """

    groups: int
    operators: frozenset[str]
    difference: str


@dataclass(frozen=True)
class Backends:
    """How far what goes out is from the zeroed original, in spreads of its output.

    Attributes:
        free, removed: slots.
        module: error of the pruned GraphModule, float64.
        shrunk: error of the module shrunken in place, float64; None where its Python cannot follow.
        shrunk_by: the slots that it lost; fewer where a part of it cannot follow.
        refused: why it, or that part, cannot.
        onnx: error of the file in onnxruntime against PyTorch.
        gap: the same of the unpruned file.
        fitting: of the weights that the file and the GraphModule have by the same name, how many have the same shape,
            and how many there are.
    """

    free: int
    removed: int
    module: float
    shrunk: float | None
    shrunk_by: int
    refused: str
    onnx: float
    gap: float
    fitting: tuple[int, int]

    @property
    def failures(self) -> list[str]:
        """What is not as it should be."""
        found = []
        if not self.removed:
            found.append("nothing was removed")
        if not self.module <= EXACT:
            found.append(f"the GraphModule differs by {self.module:.2g}")
        if self.shrunk is not None and not self.shrunk <= EXACT:
            found.append(f"the shrunken module differs by {self.shrunk:.2g}")
        if not self.onnx <= max(1e-5, 3 * self.gap):
            found.append(f"the file differs by {self.onnx:.2g}, unpruned by {self.gap:.2g}")
        if not self.fitting[0]:
            found.append("no weight of the file has the shape that the GraphModule has")
        return found

    def as_json(self) -> dict[str, Any]:
        """For a log."""
        return asdict(self)


def through_onnx(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> onnx.ModelProto:
    """The module as torch's exporter writes it, unoptimised, so that names stay."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module, args, kwargs=kwargs, dynamo=True, optimize=False, verbose=False, opset_version=OPSET
            )
    finally:
        logging.disable(logging.NOTSET)
        torch.backends.mha.set_fastpath_enabled(fast)
    assert program is not None
    return program.model_proto


def frontends(made: Made) -> Frontends:
    """Compare the partitions of all weights' slots, name by name."""
    module, args, kwargs = made
    names = names_of(module)
    ours = ozgraph.analyze(ozgraph.capture(module, args, kwargs))
    theirs = ozgraph.analyze(through_onnx(module, args, kwargs)).state
    assert not ours.state.unknown, ours.state.unknown
    wanted = partition(theirs, names)
    operators = frozenset(op.type for op in theirs.graph.ops)
    return Frontends(len(wanted), operators, difference(partition(ours.state, names), wanted))


def backends(made: Made) -> Backends:
    """Remove half of all free slots by every way out.

    Raises:
        ozgraph.OzgraphError: one of the ways does not work, other than a module's Python that holds sizes.
    """
    module, args, kwargs = made
    wide = copy.deepcopy(module).double()
    inputs = pytree.tree_map_only(torch.Tensor, _double, (args, kwargs))
    graph = ozgraph.capture(wide, *inputs)
    state = _halved(graph)
    small = to_module(graph, state.plan, modes=False)
    report = Reference(wide, inputs, zeroed(graph, zeroing(state))).compare(small)
    assert report.failure is None, report.failure
    shrunk, refused, fewer = _shrunk(graph, state)
    zeros = copy.deepcopy(module)
    narrow = {name: tensor.to(zeros.state_dict()[name]) for name, tensor in zeroed(graph, zeroing(state)).items()}
    state_dict = zeros.state_dict()  # an update keeps the versions that some modules ask for
    state_dict.update(narrow)
    zeros.load_state_dict(state_dict)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "small.onnx")
        exported = ozgraph.export(zeros, args, path, kwargs=kwargs, opset_version=OPSET)
        dims = {
            tensor.name: list(tensor.dims) for tensor in onnx.load(path, load_external_data=False).graph.initializer
        }
    said = re.search(r"PyTorch and onnxruntime differ by (\S+), unpruned by (\S+)", exported.notes[-1])
    assert said is not None, exported.notes
    shared = [list(tensor.shape) == dims[name] for name, tensor in small.named_parameters() if name in dims]
    return Backends(
        free=sum(int(state.dims.free_slots(family.atom).sum()) for family in state.families),
        removed=_slots(state),
        module=report.max_relative_error,
        shrunk=shrunk,
        shrunk_by=fewer,
        refused=refused,
        onnx=float(said[1]),
        gap=float(said[2]),
        fitting=(sum(shared), len(shared)),
    )


def _double(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def _halved(graph: ozgraph.Graph, *, everything: bool = True, exclude: tuple[str, ...] = ()) -> State:
    state = api.analyze(graph).state
    half = HalfOfEveryFamily(everything=everything)
    for step in (Select(target=NOTHING, exclude=exclude), half, ProveDead(), Eliminate()):
        step.run(state)
    return state


def _shrunk(graph: ozgraph.Graph, whole: State) -> tuple[float | None, str, int]:
    """The error of the module after it was shrunken in place, which is undone: in all families first, then in fewer.

    Where a part of the module holds sizes, families of that part, in all layers, are left out, as a person would.
    """
    module, inputs = graph.origin.module, (graph.origin.args, dict(graph.origin.kwargs))
    refused, exclude, state = "", list[str](), whole
    for attempt in range(_ATTEMPTS):
        before = Before(module)
        wanted = Reference(module, inputs, zeroed(graph, zeroing(state)))
        small = to_module(graph, state.plan, modes=False)
        state.verification = wanted.compare(small)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that a config does not follow
                carry_out(PruneResult(prune_report(state, None), small, state))
            report = wanted.compare(module)
            assert report.failure is None, report.failure
            return report.max_relative_error, refused, _slots(state)
        except UsageError as error:
            refused = refused or str(error).split("; it is as it was")[0]
            holder = re.search(r": '(\S+)' holds sizes", str(error))
            if holder is not None:
                exclude.append(re.sub(r"\d+", "*", holder[1]) + ".*")
            elif attempt:
                break
            state = _halved(graph, everything=False, exclude=tuple(exclude))
        finally:
            before.restore()
    return None, refused, 0


def _slots(state: State) -> int:
    return sum(int(state.removed.mask(family.atom).sum()) for family in state.families)
