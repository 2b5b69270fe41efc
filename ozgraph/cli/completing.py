"""What a shell may offer for an argument: names in the model that stands on the command line already.

Nothing here fails, and nothing takes long: a key was pressed, and no message would be read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ozgraph.graph import Graph

Completer = Callable[[click.Context, click.Parameter, str], list[str]]

_LARGEST = 64 << 20
"""Bytes of a model file (64 MiB) that is read for the sake of a completion."""

_OFFERED = 300
_LONGEST = 200

_PLAIN = re.compile(r"[\w./+@-]+(=[0-9x]*)?", re.ASCII)
"""What every shell takes for one word as it stands, and no glob reads otherwise."""


def offered(names: Iterable[str], incomplete: str) -> list[str]:
    r"""The names that start like this and that a shell can take as they stand.

    >>> offered(["conv1", "conv2", "fc", "conv\x1b[31m", "conv $(rm)", "conv" * 99], "conv")
    ['conv1', 'conv2']
    """
    found = [name for name in names if name.startswith(incomplete) and len(name) <= _LONGEST and _PLAIN.fullmatch(name)]
    return list(dict.fromkeys(found))[:_OFFERED]


def _graph(context: click.Context) -> Graph | None:
    """The model of the command line, where it is there and small."""
    from ozgraph import api
    from ozgraph.errors import OzgraphError

    # Where the option at the end still lacks its argument, click leaves the words before it unread.
    words = [context.params.get("model"), context.params.get("first"), *context.args]
    path = next((word for word in words if isinstance(word, str)), None)
    try:
        if path is None or Path(path).suffix == ".pt2" or Path(path).stat().st_size > _LARGEST:
            return None
        return api.load(path)
    except (OzgraphError, OSError):
        return None


def families(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Families of the model, and the weights and nodes that they are made of."""
    from ozgraph import api
    from ozgraph.errors import OzgraphError

    graph = _graph(context)
    if graph is None:
        return []
    try:
        found = api.analyze(graph).families
    except OzgraphError:
        return []
    return offered((name for family in found for name in family.names), incomplete)


def inputs(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Inputs of the model with the sizes that they are analysed at."""
    graph = _graph(context)
    if graph is None:
        return []
    shapes = (f"{value.name}={'x'.join(map(str, value.shape or ()))}" for value in graph.inputs)
    return offered(shapes, incomplete)


def signature(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Inputs and outputs of the model."""
    graph = _graph(context)
    return [] if graph is None else offered((value.name for value in (*graph.inputs, *graph.outputs)), incomplete)


def pipeline(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Passes of the pipeline."""
    from ozgraph.pipelines import PIPELINE

    return offered((step.name for step in PIPELINE), incomplete)


def installed(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Passes that other packages bring along."""
    from importlib.metadata import entry_points

    return offered(sorted(entry.name for entry in entry_points(group="ozgraph.passes")), incomplete)


COMPLETERS: dict[str, Completer] = {
    "families": families,
    "inputs": inputs,
    "signature": signature,
    "pipeline": pipeline,
    "installed": installed,
}
"""What the metadata key ``complete`` of a field names."""
