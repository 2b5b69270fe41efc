"""What every pruner is: hooks on an optimizer's step, a layout of slots, sets of slots, and a state to save."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from ozgraph.errors import UsageError
from ozgraph.groups import FamilyGroups, Groups, named_tensors, places_of
from ozgraph.runtime.compaction import Compaction, Compacts, Cut
from ozgraph.runtime.directions import Directions, Gradients
from ozgraph.runtime.places import Layout, layout
from ozgraph.runtime.saliency import Criterion, Measure, as_saliency, squares
from ozgraph.runtime.scoring import as_scores, check_finite, hessian_gradient, options_by_name
from ozgraph.runtime.selection import Limits, Mask, Selection, chosen_families, macs_per_slot
from ozgraph.runtime.shards import Processes
from ozgraph.runtime.zeroing import Zeroing
from ozgraph.target import Target

_VERSION = 2


class Choices(TypedDict, total=False):
    """What every pruner can be told besides its schedule; see :class:`~ozgraph.runtime.hesso.HESSO`."""

    saliency: str | Criterion | Mapping[str | Criterion, float] | None
    include: Iterable[str]
    exclude: Iterable[str]
    families: Iterable[str] | None
    round_to: int
    min_kept: int | float
    process_group: Any
    compactor: Compacts | None
    follow: Iterable[Any]


class Pruner:
    """Attaches to any optimizer through its step hooks; subclasses say when slots go.

    The optimizer takes its own step, fused or not; then the slots in ``decaying`` are multiplied and those in ``gone``
    are filled with zero. Nothing is read back from the device except in steps that select.

    Attributes:
        step: optimizer steps taken since the pruner was attached.
        gone: [slots] held at zero.
        decaying: [slots] on their way there.
    """

    method = "pruner"

    def __init__(
        self,
        optimizer: Optimizer,
        groups: Groups,
        *,
        target: Target,
        saliency: str | Criterion | Mapping[str | Criterion, float] | None = None,
        include: Iterable[str] = (),
        exclude: Iterable[str] = (),
        families: Iterable[str] | None = None,
        round_to: int = 1,
        min_kept: int | float = 1,
        process_group: Any = None,
        compactor: Compacts | None = None,
        follow: Iterable[Any] = (),
    ) -> None:
        self.optimizer, self.groups, self.target = unwrapped(optimizer), groups, Target.checked(target)
        self.processes = Processes(process_group)
        self._agreed = False
        self._fingerprint = groups.fingerprint
        participating = chosen_families(groups, include=include, exclude=exclude, families=families)
        self.layout: Layout = layout(groups, participating)
        self.scored: Layout = self.scored_layout()
        self.selection = Selection(self.layout, target, Limits(round_to, min_kept))
        self.saliency = as_saliency(saliency)
        self.step = 0
        self.gone: Mask = np.zeros(self.layout.total, dtype=bool)
        self.decaying: Mask = np.zeros(self.layout.total, dtype=bool)
        self._zeroing = Zeroing(self.layout)
        self._before: dict[str, Tensor] | None = None
        self._hessian_gradient: dict[str, Tensor] | None = None
        self._costs: Tensor | None = None
        self._groups_of_options = options_by_name(self.optimizer, self.layout, self.scored)
        self._hooks: list[RemovableHandle] = []
        self._cut_away: Mask = np.zeros(self.layout.total, dtype=bool)
        self.compaction: Compaction | None = None
        if compactor is not None:
            if compactor.module is not groups.module:
                raise UsageError("the compactor is of another module than the groups; make both from the same one")
            if self.layout.factors:
                raise UsageError("low-rank factors cannot be cut with their weights; merge them, or give no compactor")
            if any(entry.owners for entry in self.layout.occupied):
                raise UsageError("sharded parameters cannot be cut; train copies of the model, or give no compactor")
            self.compaction = Compaction(compactor, self.optimizer)
            self._rehearse(self.compaction)
            self.compaction.follow(*follow)
        elif tuple(follow):
            raise UsageError("follow says what goes along when the module is cut: give a compactor with it")

    def attach(self) -> None:
        """Hook into the optimizer; constructors end with it, so that what could not be built leaves nothing behind."""
        # A step that torch.compile takes over calls hooks as they are: what they do depends on the step's number.
        plainly: Any = torch.compiler.disable
        self._hooks = [
            self.optimizer.register_step_pre_hook(plainly(self._on_before_step)),
            self.optimizer.register_step_post_hook(plainly(self._on_after_step)),
        ]

    # -- what subclasses say -----------------------------------------------------------------------------------------

    def selects(self, step: int) -> bool:
        """Whether a step needs scores: of the weights before it and the direction that it takes."""
        raise NotImplementedError

    def advance(self, step: int, scores: Tensor | None) -> float | None:
        """Choose slots where it is time to, and say what the decaying ones are multiplied by; None leaves them alone.

        Args:
            step: the step that the optimizer has just taken, from 0.
            scores: [slots] where :meth:`selects` asked for them.
        """
        raise NotImplementedError

    @property
    def phase(self) -> str:
        """Where the run is, in a word."""
        raise NotImplementedError

    def scored_layout(self) -> Layout:
        """The tensors that scores read: those that are zeroed, unless a method looks at more."""
        return self.layout

    def cuts_now(self) -> bool:
        """Whether to make the module smaller after a step, where groups are at zero: when the target is reached."""
        return self.finished

    # -- hooks -------------------------------------------------------------------------------------------------------

    def _on_before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if self.selects(self.step):
            with torch.no_grad():
                self._before = {
                    entry.name: entry.value().clone(memory_format=torch.preserve_format)
                    for entry in self.scored.occupied
                }

    def _on_after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        scores: Tensor | None = None
        with torch.no_grad():
            if self._before is not None:
                self._see_that_all_agree()
                scores = self.processes.mean(self.saliency(self._measure(self._before)))
                self._before = self._hessian_gradient = None
                check_finite(scores, self.layout, self.step)
            factor = self.advance(self.step, scores)
            if factor is not None:
                self._zeroing.decay(factor)
            self._zeroing.hold()
        self.step += 1
        if self.compaction is not None and (self.gone & ~self._cut_away).any() and self.cuts_now():
            self._compact(self.compaction)

    def _measure(self, before: Mapping[str, Tensor]) -> Measure:
        moved = [
            entry
            for entry in self.scored.occupied
            if entry.name in self._groups_of_options and entry.trained is not None and entry.trained.grad is not None
        ]
        directions = Directions(self.optimizer, self._groups_of_options, moved, before)
        gradients = Gradients(moved)
        if self._costs is None:
            costs = torch.from_numpy(macs_per_slot(self.layout))
            self._costs = costs.to(self.layout.device, torch.float32)
        return Measure(self.scored, before, directions, gradients, self._costs, self._hessian_gradient)

    def _see_that_all_agree(self) -> None:
        """Once: what a process that prunes something else would say is better said before scores are mixed."""
        if not self._agreed:
            families = ",".join(family.id for family in self.layout.families)
            said = f"{self.method}, groups {self._fingerprint}, families {families}, {self.target}, step {self.step}"
            self.processes.agree(said, self.layout.device)
            self._agreed = True

    def record_hessian_gradient(self, loss: Tensor) -> None:
        """What the criterion ``grasp`` needs of this batch, before ``loss.backward()``: H g, by a second derivative.

        Does nothing in steps that need no scores. The graph of ``loss`` stays for the ``backward`` that follows.

        Args:
            loss: of the batch that the next ``optimizer.step()`` is for; a scalar, not scaled.

        Raises:
            UsageError: an operator of the model has no second derivative.
        """
        if not self.selects(self.step):
            return
        self._hessian_gradient = hessian_gradient(loss, self.groups.module, self.layout, self.processes)

    # -- a smaller module --------------------------------------------------------------------------------------------

    @property
    def module(self) -> Any:
        """The module that is trained: from a cut into a GraphModule on, that one."""
        return self.groups.module

    def follow(self, *others: Any) -> None:
        """Let averages, wrappers and functions follow when the module is cut; see ``docs/training.md``.

        Raises:
            UsageError: it is nothing that can follow, or there is no compactor.
        """
        if self.compaction is None:
            raise UsageError("nothing is cut in this run; give the pruner a compactor, ozgraph.Compactor(module, args)")
        self.compaction.follow(*others)

    @torch.no_grad()
    def _rehearse(self, compaction: Compaction) -> None:
        """Find out before the run whether the module can be cut: wherever groups may go, half of them."""
        if self.selection.goal > 0:
            compaction.rehearse(self.groups, self.selection.kept(self.selection.half(as_scores(self._norms()))))

    def _compact(self, compaction: Compaction) -> None:
        """Take what is held at zero out of the module."""
        gone = places_of(self.groups, self.selection.kept(self.gone))
        if gone:
            compaction.take(self.groups, gone, self.step, self._rebind)
        self._cut_away = self.gone.copy()

    def _rebind(self, groups: Groups) -> None:
        """Go on with groups whose tensors have become smaller; slots keep their numbers."""
        self.groups = groups
        self.layout = layout(groups, [groups[family.id] for family in self.layout.families])
        self.selection.layout, self.scored = self.layout, self.scored_layout()
        self._zeroing = Zeroing(self.layout)
        self._groups_of_options = options_by_name(self.optimizer, self.layout, self.scored)
        self.set_gone(self.gone)
        self.set_decaying(self.decaying)

    # -- sets of slots -----------------------------------------------------------------------------------------------

    def _flags(self, mask: Mask) -> Tensor:
        return torch.from_numpy(mask).to(self.layout.device)

    def set_decaying(self, mask: Mask) -> None:
        """From now on these slots decay: [slots]."""
        self.decaying = mask
        self._zeroing.decay_only(mask)

    def set_gone(self, mask: Mask) -> None:
        """From now on these slots are held at zero: [slots]."""
        self.gone = mask
        self._zeroing.hold_only(mask)

    def commit(self) -> None:
        """Hold what was decaying."""
        if self.decaying.any():
            self.set_gone(self.gone | self.decaying)
            self.set_decaying(np.zeros_like(self.gone))

    def zero_(self, model: Any) -> None:
        """Zero the same groups in a copy of the model, such as a moving average of its weights.

        Args:
            model: a module with the same names, or tensors by name (with the ``module.`` of an averaged model or not).
        """
        tensors = dict(model) if isinstance(model, Mapping) else named_tensors(model)
        names = {entry.name for entry in self.layout.occupied}
        for prefix in ("", "module.", "_orig_mod."):
            renamed = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
            if names <= renamed.keys():
                for entry in self.layout.occupied if self._cut_away.any() else ():
                    if renamed[entry.name].shape != entry.parameter.shape:
                        raise UsageError(
                            f"{entry.name!r} of the copy has the shape {list(renamed[entry.name].shape)}, that of the "
                            f"module {list(entry.parameter.shape)}: let the copy follow cuts, pruner.follow(copy)"
                        )
                self._zeroing.zero_(renamed)
                return
        missing = sorted(names - tensors.keys())
        raise UsageError(f"not a copy of the same model: it lacks {', '.join(missing[:4])}")

    def remove(self) -> None:
        """Detach from the optimizer; what is zero is no longer held there."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    # -- what has happened -------------------------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Whether the target is reached and everything chosen is exactly zero."""
        return not self.decaying.any() and self.selection.amount(self.gone) >= self.selection.goal

    def slots(self, family: FamilyGroups | str) -> Mask:
        """Which slots of a family are held at zero: [slots of the family]."""
        wanted = self.groups[family] if isinstance(family, str) else family
        for other, span in self.layout.spans():
            if other.id == wanted.id:
                return self.gone[span].copy()
        return np.zeros(wanted.size, dtype=bool)

    @torch.no_grad()
    def metrics(self) -> dict[str, float]:
        """What to watch, as plain numbers for any logger; reads from the device.

        Norms of sharded parameters are those of the part that lies on this process.
        """
        parameters, macs = self.selection.left(self.gone)
        full_parameters, full_macs = self.groups.parameters, self.groups.macs
        redundant = self._flags(self.gone | self.decaying)
        norms = self._norms()
        found = {
            "step": float(self.step),
            "groups_zero": float(self.gone.sum()),
            "groups_decaying": float(self.decaying.sum()),
            "groups": float(self.layout.total),
            "target_share": self.selection.share,
            "reached_share": self.selection.amount(self.gone) / max(self.selection.whole, 1),
            "redundant_norm": float(torch.linalg.vector_norm(norms[redundant])),
            "important_norm": float(torch.linalg.vector_norm(norms[~redundant])),
            "parameters": float(parameters),
            "parameters_share": parameters / max(full_parameters, 1),
            "macs": float(macs),
            "macs_share": macs / max(full_macs, 1),
        }
        for family, span in self.layout.spans():
            found[f"sparsity/{family.dim}"] = float(self.gone[span].mean())
        if self.compaction is not None and self.compaction.cuts:
            found["cuts"], found["cut_error"] = float(len(self.compaction.cuts)), self.compaction.cuts[-1].error
        return found

    def _norms(self) -> Tensor:
        """Of every group as it is: [slots].

        Of sharded parameters only the part here: who logs on one process must not wait for the others.
        """
        return self.layout.sums(squares, self.layout.weights(together=False), together=False).sqrt()

    # -- saving ------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything that resuming needs besides the model and the optimizer: plain numbers and tensors."""
        return {
            "version": _VERSION,
            "method": self.method,
            "groups": self._fingerprint,
            "families": [family.id for family in self.layout.families],
            "step": self.step,
            "gone": torch.from_numpy(self.gone.copy()),
            "decaying": torch.from_numpy(self.decaying.copy()),
            "cut_away": torch.from_numpy(self._cut_away.copy()),
            "cuts": [] if self.compaction is None else [cut.state_dict() for cut in self.compaction.cuts],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` left off; load the model and the optimizer as well, after this.

        Where the state was saved after a cut the same cut is made here, so that the smaller tensors fit.

        Raises:
            UsageError: it is the state of another method, version or model.
        """
        if state.get("version") != _VERSION or state.get("method") != self.method:
            raise UsageError(
                f"the state of {state.get('method')!r} version {state.get('version')!r} cannot be loaded into "
                f"{self.method!r} version {_VERSION}"
            )
        if state["groups"] != self._fingerprint or state["families"] != [f.id for f in self.layout.families]:
            raise UsageError(
                "the state belongs to other groups; build the pruner on the same model, with the same include, exclude "
                "and families as in the run that was saved"
            )
        self._replay([Cut.from_state_dict(each) for each in state.get("cuts", ())])
        self.step = int(state["step"])
        self._cut_away = state.get("cut_away", torch.zeros(self.layout.total)).cpu().numpy().astype(bool)
        self.set_gone(state["gone"].cpu().numpy().astype(bool))
        self.set_decaying(state["decaying"].cpu().numpy().astype(bool))

    def _replay(self, cuts: list[Cut]) -> None:
        made = [] if self.compaction is None else self.compaction.cuts
        if len(made) > len(cuts):
            raise UsageError(
                "the module has been cut since this state was saved; build the module, the optimizer and the pruner "
                "anew and load it into those"
            )
        if len(made) < len(cuts):
            if self.compaction is None:
                raise UsageError("the state was saved after a cut: give the pruner the compactor that it had then")
            self.compaction.replay(lambda: self.groups, cuts[len(made) :], self._rebind)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(step {self.step}, {self.phase}, {int(self.gone.sum())} of {self.layout.total} "
            f"groups zero, {int(self.decaying.sum())} decaying)"
        )


def unwrapped(optimizer: Any) -> Optimizer:
    """The torch optimizer inside those of accelerate, Lightning and the like, whose steps reach its hooks.

    Raises:
        UsageError: it is no optimizer.
    """
    inner = optimizer
    while isinstance(getattr(inner, "optimizer", None), Optimizer):
        inner = inner.optimizer
    if not isinstance(inner, Optimizer):
        raise UsageError(f"a pruner needs a torch.optim.Optimizer, got {type(optimizer).__name__}")
    return inner
