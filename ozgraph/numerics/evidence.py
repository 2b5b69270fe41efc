"""The original model under observation: which of its outputs vary, and which tensors upstream answer for the rest."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ozgraph.errors import ModelError, OzgraphError, UsageError, VerificationError
from ozgraph.graph import Array, Graph, Value
from ozgraph.numerics.measure import Liveliness, liveliness
from ozgraph.numerics.runners import Engine, Feeds, Tensors, root, run_all
from ozgraph.numerics.upstream import Origins, candidates, comparable, origins, stand_ins

# What the candidates that are exposed together may occupy, over all runs.
_EXPOSED_BYTES = 1 << 28
# How far upstream of a noisy output sharper tensors are looked for.
_SHARPENING_HOPS = 4
# Outputs of these are integers, or saturate.
_SATURATING = frozenset({"Cast", "Clip", "HardSigmoid", "Hardmax", "LogSoftmax", "Sigmoid", "Softmax", "Where"})
_INFINITE = float("inf")


@dataclass(frozen=True, slots=True)
class Observation:
    """The original over all runs.

    Attributes:
        arrays: by tensor, one a run; None where a sequence was shorter in that run.
        liveliness: by tensor.
    """

    arrays: dict[str, list[Array | None]]
    liveliness: dict[str, Liveliness]


@dataclass
class Original:
    """The model that others are compared with.

    Attributes:
        engine: how it and the other model run.
        plain: how it runs without graph optimisations, for the noise floor; None where nothing is optimised.
        ceiling: the noise floor above which a tensor is no evidence.
        sharp: the noise floor above which less noisy tensors just before an output are compared as well.
        names: tensors that both files have; only these can stand in.
        runs: the inputs.
    """

    path: Path
    graph: Graph
    engine: Engine
    plain: Engine | None
    ceiling: float
    sharp: float
    names: Collection[str]
    runs: list[Feeds]
    _measured: dict[str, Liveliness] = field(default_factory=dict)
    _unusable: set[str] = field(default_factory=set)

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """Names of the model's own outputs."""
        return tuple(value.name for value in self.graph.outputs)

    @cached_property
    def _origins(self) -> Origins:
        return origins(self.graph)

    def start(self, required: int) -> Observation:
        """Run everything once and drop the inputs that the model does not take.

        Args:
            required: how many of the first runs must succeed, because the user gave them.

        Raises:
            UsageError: a required run, or every run, failed.
            ModelError: the model does not load, or lacks an operator in the reference evaluator.
        """
        expose = self._likely()
        try:
            results = run_all(self.engine, self.path, expose, self.runs)
        except ModelError:
            if not expose:
                raise
            expose = ()
            results = run_all(self.engine, self.path, expose, self.runs)
        failures = [(index, result) for index, result in enumerate(results) if isinstance(result, OzgraphError)]
        if failures and (failures[0][0] < required or len(failures) == len(results)):
            if self.plain is None:
                raise failures[0][1]
            raise UsageError(
                f"the original does not run on the {'given' if required else 'made'} inputs: {failures[0][1]}; "
                "give inputs that fit with --inputs file.npz"
            )
        succeeded = [(feeds, result) for feeds, result in zip(self.runs, results, strict=True) if _ran(result)]
        self.runs = [feeds for feeds, _ in succeeded]
        seen = self._measure(expose, [result for _, result in succeeded if not isinstance(result, OzgraphError)])
        self._measured.update({name: seen.liveliness[name] for name in expose})
        return seen

    def observe(self, expose: Sequence[str]) -> Observation:
        """Run everything with extra outputs.

        Raises:
            OzgraphError: the model does not load or run with these exposed.
        """
        return self._measure(expose, _all_ran(run_all(self.engine, self.path, expose, self.runs)))

    def narrowed(self, seen: Observation, expose: Sequence[str]) -> Observation:
        """A fresh observation of the outputs and ``expose``, out of what was seen already if that is enough."""
        if not set(expose) <= seen.arrays.keys():
            return self.observe(expose)
        wanted = {*self.outputs, *expose}
        keys = [key for key in seen.arrays if root(key, wanted) in wanted]
        return Observation({key: list(seen.arrays[key]) for key in keys}, {key: seen.liveliness[key] for key in keys})

    def counts(self, found: Liveliness) -> bool:
        """Whether agreement on a tensor is evidence."""
        return found.floor <= self.ceiling

    def reject(self, names: Collection[str]) -> None:
        """Never again offer these as stand-ins: the other model has them in another shape."""
        self._unusable |= set(names)

    def stand_ins(self, seen: Observation) -> tuple[str, ...]:
        """Names of the tensors that answer for the outputs that are no evidence themselves, in graph order.

        Raises:
            VerificationError: there is no evidence at all, or an output that the weights and the inputs reach has none.
        """
        floors: dict[str, float] = {}
        for key, found in seen.liveliness.items():
            if self.counts(found):
                name = root(key, self.outputs)
                floors[name] = max(found.floor, floors.get(name, 0.0))
        lively = floors.keys() & set(self.outputs)
        chosen: dict[Value, None] = {}
        for output in self.graph.outputs:
            if not self._reached(output):
                continue
            floor = floors.get(output.name, _INFINITE)
            if floor <= self.sharp:
                continue
            # A softmax may be several times as noisy as its logits: those are evidence as well.
            accepted = self._upstream(output, floor / 2, None if floor == _INFINITE else _SHARPENING_HOPS)
            if not accepted and floor == _INFINITE:
                raise VerificationError(
                    f"output {output.name!r} does not vary between {len(self.runs)} inputs, nor does any tensor before "
                    "it that could be compared, so agreement would prove nothing; give real inputs with "
                    "--inputs file.npz"
                )
            chosen.update(dict.fromkeys(accepted))
        if not lively and not chosen:
            raise VerificationError(
                f"none of the outputs varies between {len(self.runs)} inputs, so agreement would prove nothing; give "
                "real inputs with --inputs file.npz"
            )
        return tuple(value.name for value in chosen if value.name not in self.outputs)

    def _upstream(self, output: Value, floor: float, farthest: int | None) -> list[Value]:
        """The nearest tensors that count, with noise of at most ``floor``, within ``farthest`` operators."""

        def stands_in(value: Value) -> bool:
            found = self._measured.get(value.name)
            return found is not None and self._may_stand_in(value) and self.counts(found) and found.floor <= floor

        hops = 2
        while True:
            usable = [value for value in candidates(output, hops, self.names) if self._may_stand_in(value)]
            self._expose([value for value in usable if value.name not in self._measured])
            accepted, cut = stand_ins(output, stands_in, hops)
            if not cut or (farthest is not None and hops >= farthest):
                return accepted
            hops *= 2

    def _likely(self) -> tuple[str, ...]:
        """Tensors just before the outputs that are known to vary little: seen at once, they save another session."""
        found: dict[str, None] = {}
        size = 0
        for output in self.graph.outputs:
            producer = output.producer
            if not self._reached(output) or (output.is_float and producer and producer.type not in _SATURATING):
                continue
            for value in candidates(output, _SHARPENING_HOPS, self.names):
                size += _bytes(value)
                if self._may_stand_in(value) and size * max(1, len(self.runs)) <= _EXPOSED_BYTES:
                    found[value.name] = None
        return tuple(found)

    def _reached(self, value: Value) -> bool:
        """Whether both the inputs and the weights reach a value."""
        return value in self._origins.driven and value in self._origins.weighted

    def _may_stand_in(self, value: Value) -> bool:
        return comparable(value, self.names) and value.name not in self._unusable and self._reached(value)

    def _expose(self, values: Sequence[Value]) -> None:
        """Measure tensors, as many at a time as memory allows; what cannot be exposed is unusable."""
        pending = list(_batches(values, _EXPOSED_BYTES // max(1, len(self.runs))))
        while pending:
            batch = pending.pop()
            try:
                found = self.observe([value.name for value in batch]).liveliness
            except OzgraphError:
                if len(batch) == 1:
                    self.reject([batch[0].name])
                else:
                    pending += [batch[: len(batch) // 2], batch[len(batch) // 2 :]]
                continue
            self._measured.update({value.name: found[value.name] for value in batch if value.name in found})

    def _measure(self, expose: Sequence[str], results: Sequence[Tensors]) -> Observation:
        arrays: dict[str, list[Array | None]] = {
            key: [result.get(key) for result in results] for key in dict.fromkeys(key for one in results for key in one)
        }
        repeats = self._repeated(expose)
        found = {}
        for key, originals in arrays.items():
            pairs = [(a, b.get(key)) for a, b in zip(originals, repeats, strict=False) if a is not None]
            present = [array for array in originals if array is not None]
            found[key] = liveliness(present, [(a, b) for a, b in pairs if b is not None])
        return Observation(arrays, found)

    def _repeated(self, expose: Sequence[str]) -> list[Tensors]:
        """The runs once more, without graph optimisations; nothing where that does not work."""
        if self.plain is None:
            return []
        try:
            return _all_ran(run_all(self.plain, self.path, expose, self.runs))
        except OzgraphError:
            return []


def _ran(result: Tensors | OzgraphError) -> bool:
    return not isinstance(result, OzgraphError)


def _all_ran(results: Sequence[Tensors | OzgraphError]) -> list[Tensors]:
    ran = []
    for result in results:
        if isinstance(result, OzgraphError):
            raise result
        ran.append(result)
    return ran


def _bytes(value: Value) -> int:
    """Bytes at the sample sizes; a tensor whose shape nobody knows is taken for a small one."""
    return value.size * (value.dtype.itemsize if value.dtype is not None else 4)


def _batches(values: Sequence[Value], limit: int) -> Iterator[list[Value]]:
    batch: list[Value] = []
    total = 0
    for value in values:
        size = _bytes(value)
        if batch and total + size > limit:
            yield batch
            batch, total = [], 0
        batch.append(value)
        total += size
    if batch:
        yield batch
