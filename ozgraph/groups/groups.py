"""Everything that a training runtime needs to know of a model, with no graph in it."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ozgraph.errors import OzgraphError, UsageError
from ozgraph.groups.binding import holder, named_tensors
from ozgraph.groups.family import FamilyGroups
from ozgraph.groups.polynomial import Count, Kept, Polynomial
from ozgraph.suggestions import hint

_VERSION = 1

_SHOWN = 60
"""Families that a notebook shows."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A parameter or buffer that families occupy.

    Attributes:
        shape: sizes of its axes.
        trainable: whether it is a parameter; buffers follow when slots go, and are not trained.
        aliases: further names of the same tensor.
    """

    shape: tuple[int, ...]
    trainable: bool = True
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cost:
    """Parameters and multiply-accumulates as polynomials in counts of kept slots.

    Attributes:
        counts: what the numbers in the polynomials stand for.
        parameters, macs: the polynomials; MACs are of ``samples`` samples.
    """

    counts: tuple[Count, ...]
    parameters: Polynomial
    macs: Polynomial
    samples: int = 1

    def of(self, kept: Kept) -> tuple[int, int]:
        """(parameters, MACs of one sample) when these slots of every family are kept."""
        sizes = [count.of(kept) for count in self.counts]
        return self.parameters.of(sizes), self.macs.of(sizes) // self.samples


@dataclass(frozen=True)
class Groups:
    """The groups of a model: picklable, printable, the same from run to run.

    Attributes:
        model: what the model is called.
        families: in the order of the model.
        tensors: parameters and buffers that families occupy, by name.
        cost: what a selection leaves.
    """

    model: str
    families: tuple[FamilyGroups, ...]
    tensors: Mapping[str, Tensor]
    cost: Cost
    module: Any = field(default=None, repr=False, compare=False)

    def __iter__(self) -> Iterator[FamilyGroups]:
        return iter(self.families)

    def __len__(self) -> int:
        return len(self.families)

    def __getitem__(self, which: str | int) -> FamilyGroups:
        """A family by id, by the name of its dim, or by position.

        Raises:
            UsageError: no family is called that.
        """
        if isinstance(which, int):
            return self.families[which]
        for family in self.families:
            if which in (family.id, family.dim):
                return family
        raise UsageError(f"no family is called {which!r}; {hint(which, [family.id for family in self.families])}")

    @property
    def full(self) -> list[npt.NDArray[np.bool_]]:
        """All slots kept."""
        return [np.ones(family.size, dtype=bool) for family in self.families]

    @cached_property
    def parameters(self) -> int:
        """Elements of all weights."""
        return self.cost.of(self.full)[0]

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates of one sample."""
        return self.cost.of(self.full)[1]

    @cached_property
    def fingerprint(self) -> str:
        """Names the groups: equal for equal ones, whatever process found them."""
        return hashlib.sha256(json.dumps(self.as_json(), sort_keys=True).encode()).hexdigest()[:16]

    # -- modules ---------------------------------------------------------------------------------------------------

    def bind(self, module: Any) -> Groups:
        """The same groups for the tensors of ``module``, which has torch's ``named_parameters`` and ``named_buffers``.

        It may hold the model that they are of: data-parallel, compiled, with adapters, or inside a trainer's module.

        Raises:
            UsageError: a tensor is not there, or has another shape, or there are several such models.
        """
        inner = holder(module, {name: tensor.shape for name, tensor in self.tensors.items()})
        there = named_tensors(inner)
        for name, tensor in self.tensors.items():
            found = there[name]
            if tuple(found.shape) != tensor.shape:
                raise UsageError(
                    f"these groups are of another model: {name!r} has the shape {list(found.shape)}, not "
                    f"{list(tensor.shape)}; find its own with ozgraph.find_groups(module, args)"
                )
        return Groups(self.model, self.families, self.tensors, self.cost, inner)

    def __getstate__(self) -> dict[str, Any]:
        # A module is not part of what groups are; bind again where they are read.
        return {"data": self.as_json()}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(vars(Groups.from_json(state["data"])))

    # -- files -----------------------------------------------------------------------------------------------------

    def as_json(self) -> dict[str, Any]:
        """Plain data; see :meth:`from_json`."""
        return {
            "version": _VERSION,
            "model": self.model,
            "families": [family.as_json() for family in self.families],
            "tensors": {
                name: {"shape": list(tensor.shape), "trainable": tensor.trainable, "aliases": list(tensor.aliases)}
                for name, tensor in self.tensors.items()
            },
            "cost": {
                "counts": [
                    [count.family, None if count.weights is None else list(count.weights)] for count in self.cost.counts
                ],
                "parameters": self.cost.parameters.as_json(),
                "macs": self.cost.macs.as_json(),
                "samples": self.cost.samples,
            },
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Groups:
        """What :meth:`as_json` wrote.

        Raises:
            UsageError: it is something else.
        """
        if data.get("version") != _VERSION:
            raise UsageError(f"groups of version {data.get('version')!r}; this ozgraph reads version {_VERSION}")
        try:
            counts = tuple(
                Count(int(family), None if weights is None else tuple(int(weight) for weight in weights))
                for family, weights in data["cost"]["counts"]
            )
            cost = Cost(
                counts,
                Polynomial.from_json(data["cost"]["parameters"]),
                Polynomial.from_json(data["cost"]["macs"]),
                int(data["cost"]["samples"]),
            )
            tensors = {
                str(name): Tensor(tuple(int(e) for e in row["shape"]), bool(row["trainable"]), tuple(row["aliases"]))
                for name, row in data["tensors"].items()
            }
            return cls(str(data["model"]), tuple(map(FamilyGroups.from_json, data["families"])), tensors, cost)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(f"not the groups of a model ({error!r}); write them with Groups.save") from None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write them as JSON; nothing is left half-written.

        Raises:
            OzgraphError: the file cannot be written.
        """
        where = os.fspath(path)
        folder = os.path.dirname(os.path.abspath(where))
        try:
            handle, made = tempfile.mkstemp(dir=folder, prefix=os.path.basename(where))
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    json.dump(self.as_json(), file)
                os.replace(made, where)
            except BaseException:
                with suppress(OSError):
                    os.unlink(made)
                raise
        except OSError as error:
            raise OzgraphError(f"{where}: cannot be written ({error.strerror}); give another path") from None

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Groups:
        """Read what :meth:`save` wrote; :meth:`bind` them to a module to train with them.

        Raises:
            UsageError: the file is not there or is something else.
        """
        where = os.fspath(path)
        try:
            with open(where, encoding="utf-8") as file:
                data = json.load(file)
        except OSError as error:
            raise UsageError(
                f"{where}: cannot be read ({error.strerror}); give the file that Groups.save wrote"
            ) from None
        except ValueError:
            raise UsageError(f"{where}: not JSON; give the file that Groups.save wrote") from None
        if not isinstance(data, dict):
            raise UsageError(f"{where}: not the groups of a model; give the file that Groups.save wrote")
        return cls.from_json(data)

    # -- people ----------------------------------------------------------------------------------------------------

    def __str__(self) -> str:
        active = [family for family in self.families if family.active]
        lines = [
            f"{self.model}: {len(self.families)} families ({len(active)} active), "
            f"{sum(int(family.free.sum()) for family in active):,} groups, {self.parameters:,} parameters, "
            f"{self.macs:,} MACs"
        ]
        width = max((len(family.dim) for family in self.families), default=0)
        for family in self.families:
            tensors = len({occurrence.tensor for occurrence in family.occurrences})
            note = "" if family.active else f"  ({family.inactive or 'inactive'})"
            lines.append(
                f"  {family.id:<5} {family.dim:<{width}}  {family.size:>6} slots  {family.exactness:<9} "
                f"{tensors} tensors{note}"
            )
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from ozgraph.markup import element, join, table

        active = [family for family in self.families if family.active]
        count = sum(int(family.free.sum()) for family in active)
        rows = [
            (
                family.id,
                family.dim,
                f"{family.size:,}",
                family.exactness,
                len({occurrence.tensor for occurrence in family.occurrences}),
                "" if family.active else family.inactive or "inactive",
            )
            for family in self.families[:_SHOWN]
        ]
        return join(
            [
                element("p", element("b", self.model), f" · {len(self.families):,} families, {count:,} groups"),
                table(["family", "dim", "slots", "how", "tensors", ""], rows, numbers=[2, 4]),
                element("p", f"{self.parameters:,} parameters, {self.macs:,} MACs"),
            ]
        )


def without_module(groups: Groups) -> Groups:
    """The same groups, bound to nothing."""
    return Groups(groups.model, groups.families, groups.tensors, groups.cost)


def kept_counts(groups: Groups, kept: Sequence[npt.NDArray[np.bool_]]) -> dict[str, int]:
    """Family id -> number of kept slots."""
    return {family.id: int(mask.sum()) for family, mask in zip(groups.families, kept, strict=True)}
