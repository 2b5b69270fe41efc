"""Sample sizes for dynamic axes: guessed from names and positions, or given by the user."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from ozgraph.errors import ModelError, UsageError
from ozgraph.suggestions import nearest

Sample = dict[str, tuple[int, ...]]

_BATCH = re.compile(r"batch|^b$|^n$|^bs$", re.IGNORECASE)
_PIXELS = re.compile(r"height|width|^h$|^w$|image|spatial|size", re.IGNORECASE)
_TOTAL = re.compile(r"(total|full|all)_?(seq|len|kv)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Signature:
    """The declared sizes of the inputs.

    Attributes:
        dims: input name -> one entry an axis: the static size, or the key of a dynamic size. Axes that share a
            ``dim_param`` share a key.
        static: every static size in the model that a sample size should not be mistaken for.
    """

    dims: dict[str, tuple[int | str, ...]]
    static: frozenset[int]

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the dynamic sizes, in order of appearance."""
        return tuple(dict.fromkeys(dim for dims in self.dims.values() for dim in dims if isinstance(dim, str)))

    def bind(self, sizes: Mapping[str, int]) -> Sample:
        """Input sizes with every key replaced by its size."""
        return {
            name: tuple(sizes[dim] if isinstance(dim, str) else dim for dim in dims) for name, dims in self.dims.items()
        }


def signature(model: ir.Model, shapes: Mapping[str, Sequence[int]]) -> Signature:
    """The signature of ``model``; inputs without a shape are left out, unless ``shapes`` gives their rank."""
    dims: dict[str, tuple[int | str, ...]] = {}
    static: set[int] = set()
    for value in model.graph.inputs:
        if not isinstance(value.type, ir.TensorType) or value.name is None:
            continue
        if value.shape is None:
            if value.name in shapes:
                dims[value.name] = tuple(f"{value.name}[{axis}]" for axis in range(len(shapes[value.name])))
            continue
        entry: list[int | str] = []
        for axis, dim in enumerate(value.shape):
            if not isinstance(dim, int):
                entry.append(str(dim.value) if dim.value else f"{value.name}[{axis}]")
            elif dim <= 0:
                entry.append(f"{value.name}[{axis}]")  # old exporters write -1 or 0 for a size that varies
            else:
                entry.append(dim)
                static.add(dim)
        dims[value.name] = tuple(entry)
    for value in model.graph.initializers.values():
        if value.const_value is not None:
            static.update(int(extent) for extent in value.const_value.shape.numpy())
    return Signature(dims, frozenset(static))


def given(declared: Signature, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """The sizes that the user's ``shapes`` give to the dynamic keys.

    Raises:
        UsageError: an unknown input, a rank or static size that does not match, or two sizes for one name.
    """
    sizes: dict[str, int] = {}
    for name, shape in shapes.items():
        dims = declared.dims.get(name)
        if dims is None:
            near = nearest(name, declared.dims)
            meant = "" if near is None else f"did you mean {near!r}? "
            raise UsageError(f"no input is named {name!r}; {meant}the inputs are {_listing(declared)}")
        wanted = "x".join(str(extent) for extent in shape) or "a scalar"
        if len(shape) != len(dims):
            raise UsageError(f"input {name!r} has {len(dims)} axes, not {len(shape)} ({wanted}): {_listing(declared)}")
        for axis, (dim, extent) in enumerate(zip(dims, shape, strict=True)):
            if extent < 1:
                raise UsageError(f"input {name!r} is given the size {extent} in {wanted}; sizes start at 1")
            if isinstance(dim, int):
                if dim != extent:
                    raise UsageError(
                        f"axis {axis} of input {name!r} is always {dim}, not {extent}; the inputs are "
                        f"{_listing(declared)}"
                    )
            elif sizes.setdefault(dim, int(extent)) != extent:
                raise UsageError(f"size {dim!r} is given as {sizes[dim]} and as {extent}; give it one size")
    return sizes


def _listing(declared: Signature) -> str:
    return (
        ", ".join(f"{name}={'x'.join(str(dim) for dim in dims)}" for name, dims in declared.dims.items())
        or "none with a shape"
    )


def _class_of(declared: Signature) -> dict[str, str]:
    """Key -> ``batch``, ``pixels`` or ``length``."""
    classes: dict[str, str] = {}
    for dims in declared.dims.values():
        for axis, dim in enumerate(dims):
            if not isinstance(dim, str) or dim in classes:
                continue
            if _BATCH.search(dim) or (axis == 0 and len(dims) > 1 and not re.search(r"seq|len", dim)):
                classes[dim] = "batch"
            elif (axis >= _first_of_image(dims) and not re.search(r"seq|len|past", dim)) or _PIXELS.search(dim):
                classes[dim] = "pixels"
            else:
                classes[dim] = "length"
    return classes


def _first_of_image(dims: Sequence[int | str]) -> int:
    """The first axis that an image of this shape has pixels along: its channels come before those, or last."""
    if len(dims) < 4:
        return len(dims)
    return 1 if isinstance(dims[-1], int) and not isinstance(dims[1], int) and not isinstance(dims[2], int) else 2


# Batch, pixels and length of each attempt; a list spreads over keys of the class, a single size is shared by all.
_ATTEMPTS: tuple[tuple[Sequence[int], Sequence[int], Sequence[int]], ...] = (
    ((2,), (64,), (9, 11, 13, 14, 15)),
    ((2,), (64,), (9,)),
    ((2,), (224,), (16,)),
    ((2,), (256,), (32,)),
    ((2,), (96, 128), (8, 16, 24)),
    ((2,), (32,), (64,)),
    ((2,), (512,), (128,)),
    ((1,), (224,), (16,)),
    ((1,), (64,), (1,)),
    ((4,), (128,), (4,)),
    ((2,), (299,), (2,)),
)


def guesses(declared: Signature, fixed: Mapping[str, int], used: Mapping[str, frozenset[int]]) -> Iterator[Sample]:
    """Bindings to try, the likeliest first.

    Args:
        declared: the inputs.
        fixed: sizes that the user gave.
        used: key -> sizes of earlier bindings, which are avoided: a size that never changes would look static.
    """
    classes = _class_of(declared)
    order = {"batch": 0, "pixels": 1, "length": 2}
    seen: set[tuple[int, ...]] = set()
    for attempt in _ATTEMPTS:
        sizes: dict[str, int] = {}
        counters = [0, 0, 0]
        for key in declared.keys:
            kind = order[classes[key]]
            choices = attempt[kind]
            size = choices[counters[kind] % len(choices)]
            counters[kind] += 1
            sizes[key] = fixed[key] if key in fixed else _free(size, used.get(key, frozenset()), declared.static)
        _add_sums(sizes, declared, fixed)
        combination = tuple(sizes.values())
        if combination not in seen and all(sizes[key] not in used.get(key, ()) for key in sizes):
            seen.add(combination)
            yield declared.bind(sizes)


def _free(size: int, used: frozenset[int], static: frozenset[int]) -> int:
    """The next size that is not used, and, where it is small, that no static axis has."""
    if size >= 16:  # strides divide it: keep to multiples
        step = size if size < 128 else 32
        return next(candidate for candidate in range(size, 1 << 20, step) if candidate not in used)
    avoided = used if size == 1 else used | {extent for extent in static if extent < 64}
    return next(candidate for candidate in range(size, 1 << 20) if candidate not in avoided)


def _add_sums(sizes: dict[str, int], declared: Signature, fixed: Mapping[str, int]) -> None:
    """Sizes that are sums of others: ``past_sequence_length + sequence_length``, or a total by name."""
    for key in declared.keys:
        if key in fixed:
            continue
        terms = [term.strip() for term in key.split("+")]
        if len(terms) > 1 and all(term in sizes or term.isdigit() for term in terms):
            sizes[key] = sum(int(term) if term.isdigit() else sizes[term] for term in terms)
        elif _TOTAL.search(key):
            past = [size for other, size in sizes.items() if "past" in other and "+" not in other]
            current = [
                size
                for other, size in sizes.items()
                if re.search(r"seq|len", other)
                and "past" not in other
                and other != key
                and not _TOTAL.search(other)
                and "+" not in other
            ]
            if past and current:
                sizes[key] = past[0] + current[0]


def no_guess(declared: Signature, where: str, problem: str) -> ModelError:
    """The error for a dynamic model that no guess fits."""
    return ModelError(
        f"{where}: no sample sizes were found for its dynamic axes ({problem}); give them, for example --shape "
        + " ".join(
            f"{name}={'x'.join(str(dim) if isinstance(dim, int) else '2' for dim in dims)}"
            for name, dims in declared.dims.items()
            if any(isinstance(dim, str) for dim in dims)
        )
    )
