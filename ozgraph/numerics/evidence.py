"""The original model under observation: which of its outputs vary, and which tensors upstream answer for the rest."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, pairwise
from pathlib import Path

from ozgraph.errors import ModelError, OutOfMemoryError, OzgraphError, UsageError, VerificationError
from ozgraph.graph import Array, Graph, Value
from ozgraph.numerics.measure import Liveliness, liveliness
from ozgraph.numerics.runners import Engine, Feeds, Tensors, root, run_all
from ozgraph.numerics.upstream import Origins, comparable, layers, origins, stand_ins

# What the candidates that are exposed together may occupy, over all runs.
_EXPOSED_BYTES = 1 << 28
# How far upstream of a noisy output sharper tensors are looked for.
_SHARPENING_HOPS = 4
# At how many distances a further step of the search for evidence looks.
_SECTIONS = 16
# Outputs of these are integers, or saturate.
_SATURATING = frozenset({"Cast", "Clip", "HardSigmoid", "Hardmax", "LogSoftmax", "Sigmoid", "Softmax", "Where"})
# What these return may hardly vary, and then by leaps, where their operand is all rounding: that one says more.
_SQUASHING = frozenset({"Erf", "HardSigmoid", "Hardmax", "Sigmoid", "Softmax", "Tanh"})
# What these return leaps though it is floating.
_LEAPING = frozenset({"Ceil", "Floor", "Hardmax", "Mod", "Round", "Sign"})
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
        expected: tensors that stood in when an earlier version of the model was compared; looked at before others.
        quanta: tensor -> its quantum, of a model that quantises its data.
        loose: outputs that it does not reproduce once its weights are rounded otherwise.
    """

    path: Path
    graph: Graph
    engine: Engine
    plain: Engine | None
    ceiling: float
    sharp: float
    names: Collection[str]
    runs: list[Feeds]
    expected: Collection[str] = ()
    quanta: Mapping[str, float] | None = None
    loose: Collection[str] = ()
    _measured: dict[str, Liveliness] = field(default_factory=dict)
    _unusable: set[str] = field(default_factory=set)

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """Names of the model's own outputs."""
        return tuple(value.name for value in self.graph.outputs)

    @cached_property
    def chooses(self) -> bool:
        """Whether it turns what the inputs and the weights make of each other into whole numbers, which leap."""
        return any(
            value.dtype is not None
            and (not value.is_float or (value.producer is not None and value.producer.type in _LEAPING))
            and self._reached(value)
            for value in self.graph.values.values()
        )

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
            if self.plain is None or isinstance(failures[0][1], OutOfMemoryError):
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

    def noise(self, runs: Sequence[Feeds]) -> dict[str, float]:
        """The noise floors of the outputs on other inputs; of those that run, with and without optimisations."""
        if self.plain is None:
            return {}
        pairs = [
            (first, second)
            for first, second in zip(
                *(run_all(engine, self.path, (), runs) for engine in (self.engine, self.plain)), strict=True
            )
            if not isinstance(first, OzgraphError) and not isinstance(second, OzgraphError)
        ]
        floors = {}
        for name in self.outputs:
            both = [(first[name], second[name]) for first, second in pairs if name in first and name in second]
            if both:
                alive = liveliness([first for first, _ in both], both)
                floors[name] = alive.noise if alive.moving else 0.0
        return floors

    def observe(self, expose: Sequence[str]) -> Observation:
        """Run everything with extra outputs.

        Raises:
            OzgraphError: the model does not load or run with these exposed.
        """
        return self._measure(expose, _all_ran(run_all(self.engine, self.path, expose, self.runs)))

    def narrowed(self, seen: Observation, expose: Sequence[str]) -> Observation:
        """A fresh observation of the outputs and ``expose``, out of what was seen already if that is enough."""
        missing = [name for name in expose if name not in seen.arrays]
        if missing:
            results = _all_ran(run_all(self.engine, self.path, expose, self.runs))
            arrays = {**seen.arrays, **{name: [result.get(name) for result in results] for name in missing}}
            seen = Observation(arrays, {**seen.liveliness, **{name: self._measured[name] for name in missing}})
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

        above = layers(output, farthest)

        def still(value: Value) -> bool:
            return value.name in self.expected and stands_in(value)

        _, far = self._bracket(output, above, still)
        if far < len(above):
            return stand_ins(output, still, far)[0]
        near, far = self._bracket(output, above, stands_in)
        while probes := self._probes(above, near, far):
            self._expose([value for distance in probes for value in self._unmeasured(above, distance)])
            near, far = self._bracket(output, above, stands_in)
        return stand_ins(output, stands_in, far)[0]

    def _bracket(
        self, output: Value, above: Sequence[Sequence[Value]], stands_in: Callable[[Value], bool]
    ) -> tuple[int, int]:
        """Two distances: measured up to the first, some path has nothing that stands in; up to the second all do.

        The second is the last one where no distance is known to do.
        """
        low, high = 0, len(above)
        while high - low > 1:
            middle = (low + high) // 2
            if stand_ins(output, stands_in, middle)[1]:
                low = middle
            else:
                high = middle
        return next((distance for distance in range(low, 0, -1) if self._settled(above[distance - 1])), 0), high

    def _settled(self, layer: Sequence[Value]) -> bool:
        """Whether all that could answer at a distance was measured; what cannot be looked at settles nothing."""
        usable = [value for value in layer if self._may_stand_in(value)]
        return bool(usable) and not self._blind(layer) and all(value.name in self._measured for value in usable)

    def _probes(self, above: Sequence[Sequence[Value]], near: int, far: int) -> list[int]:
        """Distances to measure between two, so that a few rounds find the nearest that will do.

        While the far one is only the end of the graph they double from the near one on; then they are even. Of each
        section, the distance with the fewest tensors that cannot be compared, then with the fewest bytes.
        """
        last = far + 1 if far == len(above) else far
        open_ = [distance for distance in range(near + 1, last) if self._unmeasured(above, distance)]
        if len(open_) <= _SECTIONS:
            return open_
        if far == len(above):
            ends = [2**power for power in range(len(open_).bit_length() + 1)]
        else:
            ends = [len(open_) * section // _SECTIONS for section in range(1, _SECTIONS + 1)]
        sections = (open_[first:last] for first, last in pairwise([0, *ends]))
        return [
            min(section, key=lambda distance: self._expense(above[distance - 1])) for section in sections if section
        ]

    def _expense(self, layer: Sequence[Value]) -> tuple[int, int]:
        return self._blind(layer), sum(_bytes(value) for value in layer if self._may_stand_in(value))

    def _blind(self, layer: Sequence[Value]) -> int:
        """How many values depend on inputs and weights and cannot be compared."""
        return sum(
            value.producer is not None and self._reached(value) and not self._is_usable(value) for value in layer
        )

    def _unmeasured(self, above: Sequence[Sequence[Value]], distance: int) -> list[Value]:
        layer = above[distance - 1]
        return [value for value in layer if self._may_stand_in(value) and value.name not in self._measured]

    def _likely(self) -> tuple[str, ...]:
        """Expected tensors, and those just before outputs that vary little: seen at once, they save other sessions."""
        candidates = [self.graph.values[name] for name in self.expected if name in self.graph.values]
        found: dict[str, None] = {}
        size = 0
        for output in self.graph.outputs:
            producer = output.producer
            if not self._reached(output) or (output.is_float and producer and producer.type not in _SATURATING):
                continue
            candidates += chain.from_iterable(layers(output, _SHARPENING_HOPS))
        for value in candidates:
            if self._may_stand_in(value) and value.name not in found:
                size += _bytes(value)
                if size * max(1, len(self.runs)) <= _EXPOSED_BYTES:
                    found[value.name] = None
        return tuple(found)

    def _reached(self, value: Value) -> bool:
        """Whether both the inputs and the weights reach a value."""
        return value in self._origins.driven and value in self._origins.weighted

    def _may_stand_in(self, value: Value) -> bool:
        producer = value.producer
        operand = producer.input(0) if producer is not None and producer.type in _SQUASHING else None
        return self._is_usable(value) and not (operand is not None and self._is_usable(operand))

    def _is_usable(self, value: Value) -> bool:
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
            self.reject([value.name for value in batch if value.name not in found])

    def _measure(self, expose: Sequence[str], results: Sequence[Tensors]) -> Observation:
        arrays: dict[str, list[Array | None]] = {
            key: [result.get(key) for result in results] for key in dict.fromkeys(key for one in results for key in one)
        }
        repeats = self._repeated(expose)
        found = {}
        for key, originals in arrays.items():
            pairs = [(a, b.get(key)) for a, b in zip(originals, repeats, strict=False) if a is not None]
            present = [array for array in originals if array is not None]
            quantum = (self.quanta or {}).get(key, 0.0)
            alive = liveliness(present, [(a, b) for a, b in pairs if b is not None], quantum)
            found[key] = replace(alive, reproducible=alive.reproducible and root(key, self.outputs) not in self.loose)
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
