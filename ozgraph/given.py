"""What callers of the Python functions give, in the one form that the pipeline takes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ozgraph.errors import UsageError


def globs_of(given: str | Iterable[str]) -> tuple[str, ...]:
    """Globs; a text alone is one glob, not its letters.

    >>> globs_of("head.*"), globs_of(["a", "b"])
    (('head.*',), ('a', 'b'))
    """
    return (given,) if isinstance(given, str) else tuple(given)


def path_of(given: str | os.PathLike[str] | None) -> Path | None:
    """A file's path.

    Raises:
        UsageError: it is something else, such as the arrays themselves.
    """
    if given is None:
        return None
    if not isinstance(given, (str, os.PathLike)):
        raise UsageError(f"a {type(given).__name__} is no path; save arrays with numpy.savez, and give the .npz file")
    return Path(given)


def sizes_of(shapes: Mapping[str, Sequence[int]] | None) -> dict[str, tuple[int, ...]] | None:
    """Sizes of inputs by name; None where there are none.

    Raises:
        UsageError: they are not of that form.
    """
    if not shapes:
        return None
    example = "shapes are sizes by the name of an input, such as {'image': (1, 3, 224, 224)}"
    if not isinstance(shapes, Mapping):
        raise UsageError(f"{example}; got {shapes!r}")
    for name, sizes in shapes.items():
        if isinstance(sizes, str) or not all(hasattr(size, "__index__") for size in sizes):
            raise UsageError(f"{example}; got {sizes!r} for {name!r}")
    return {name: tuple(sizes) for name, sizes in shapes.items()}
