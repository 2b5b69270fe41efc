"""What is known of the values of a model: at one binding of its sizes, and of how they vary."""

from __future__ import annotations

from dataclasses import dataclass, field

from ozgraph.graph import Array, Integers

Dim = int | str | None
Flags = tuple[bool, ...]


@dataclass(slots=True)
class Inferred:
    """What is known of every value of the model and of the bodies that are followed, by name.

    Attributes:
        dtypes: ONNX element types; missing for sequences, optionals and unknown types.
        shapes: sizes; a name or None where a size is not known. Missing when the rank is unknown.
        elements: contents of the tensors of shape arithmetic; constants among them.
        floats: contents of what scalar constants alone make in floating point. That is no shape arithmetic, but what is
            made of it may be: a pad is half of something, rounded.
    """

    dtypes: dict[str, int] = field(default_factory=dict)
    shapes: dict[str, tuple[Dim, ...]] = field(default_factory=dict)
    elements: dict[str, Array] = field(default_factory=dict)
    floats: dict[str, Array] = field(default_factory=dict)

    def static_shape(self, name: str) -> tuple[int, ...] | None:
        """Sizes of ``name`` if all are known."""
        shape = self.shapes.get(name)
        if shape is None:
            return None
        sizes = [extent for extent in shape if isinstance(extent, int)]
        return tuple(sizes) if len(sizes) == len(shape) else None

    def complete(self, name: str) -> bool:
        """Whether every size of ``name`` is a number."""
        return self.static_shape(name) is not None


@dataclass(slots=True)
class Variability:
    """Flags of every value whose rank is known, and the elements of shape arithmetic, by value name."""

    axes: dict[str, Flags] = field(default_factory=dict)
    integers: dict[str, Integers] = field(default_factory=dict)

    def varies(self, name: str) -> bool:
        """Whether anything that is known of ``name``'s size or elements varies."""
        return any(self.axes.get(name, ())) or (name in self.integers and not self.integers[name].static)
