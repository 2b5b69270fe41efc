"""One file that shows a model: styles, scripts, libraries and data in it, nothing fetched from anywhere."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from importlib.resources import files

from ozgraph.errors import UsageError
from ozgraph.markup import Markup, join, text
from ozgraph.passes.picture import Picture, Product
from ozgraph.report.html.document import Pruned, document, embedded
from ozgraph.report.html.tables import facts, tables
from ozgraph.report.html.tree import Tree, tree_of
from ozgraph.results import AnalysisReport

LIBRARIES = ("dagre", "d3")
"""Scripts of others, in ``ozgraph/report/vendor`` with their licences."""

SCRIPTS = ("dom", "model", "costs", "layout", "draw", "treemap", "panel", "slim", "search", "page")
"""Our own, in the order in which they are run."""

_OUTER = 3
"""Levels of scopes that the table of costs shows."""


def page(report: AnalysisReport, picture: Picture, pruned: Pruned | None = None) -> str:
    """The page of an analysed model.

    Args:
        pruned: a smaller form of it, to show beside.
    """
    tree = tree_of(picture.scopes, _reads(picture))
    parts = {
        "title": text(f"{report.model} · ozgraph"),
        "style": _asset("html", "style.css"),
        "model": text(report.model),
        "facts": facts(report),
        "tables": tables(report, _scope_costs(picture, tree), pruned),
        "data": embedded(document(report, picture, tree, pruned)),
        "scripts": join(
            [
                *(_script(_library(name)) for name in LIBRARIES),
                *(_script(_asset("html", f"{name}.js")) for name in SCRIPTS),
            ]
        ),
    }
    # Piece by piece: what a part holds is never looked into for further names.
    rest, made = _asset("html", "page.html"), []
    for name, part in parts.items():
        before, _, rest = rest.partition("{" + name + "}")
        made += [before, part]
    return "".join([*made, rest])


def write(path: str | os.PathLike[str], content: str) -> None:
    """Write a page, whole or not at all.

    Raises:
        UsageError: the file cannot be written.
    """
    where = os.fspath(path)
    try:
        if os.path.isdir(where):
            raise IsADirectoryError(21, "is a folder")
        handle, made = tempfile.mkstemp(dir=os.path.dirname(os.path.abspath(where)), prefix=".ozgraph-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as file:
                file.write(content)
            # A temporary file is its maker's alone; a page is like any other file.
            mask = os.umask(0)
            os.umask(mask)
            os.chmod(made, 0o666 & ~mask)
            os.replace(made, where)
        except BaseException:
            with suppress(OSError):
                os.unlink(made)
            raise
    except OSError as error:
        raise UsageError(f"{where}: cannot be written ({error.strerror}); give another path") from None


def _asset(folder: str, name: str) -> str:
    return files("ozgraph.report").joinpath(folder, name).read_text(encoding="utf-8")


def _library(name: str) -> str:
    """A library under its licence, without what points to files that are not here."""
    lines = _asset("vendor", f"{name}.min.js").replace("\x01", "\\x01").splitlines()
    code = "\n".join(line for line in lines if not line.startswith("//# sourceMappingURL"))
    licence = _asset("vendor", f"{name}.LICENSE").replace("*/", "* /")
    return f"/*! {name}\n{licence}*/\n{code}"


def _script(code: str) -> Markup:
    assert "</script" not in code and "<!--" not in code
    return Markup(f"<script>\n{code}\n</script>\n")


def _reads(picture: Picture) -> list[set[int]]:
    """For every operator, the numbers of those whose results it reads."""
    numbers = {op: number for number, op in enumerate(picture.ops)}
    return [
        {numbers[value.producer] for value in op.inputs if value is not None and value.producer is not None}
        for op in picture.ops
    ]


def _scope_costs(picture: Picture, tree: Tree) -> list[tuple[str, int, int, int]]:
    """(path, operators, parameters, MACs) of the outer scopes, in the order of the model."""
    count = len(tree.scopes)
    depths = [0] * count
    for number, (parent, _, _) in enumerate(tree.scopes):
        depths[number] = depths[parent] + 1 if number else 0
    operators, parameters, macs = [0] * count, [0] * count, [0] * count
    of_op = {op: number for number, op in enumerate(picture.ops)}

    def cost(product: Product) -> int:
        total = product.factor
        for axis in product.axes:
            total *= picture.axes[axis].size
        return total

    for scope in tree.of_operator:
        operators[scope] += 1
    for product in picture.parameters:
        uses = picture.values[product.owner].uses
        parameters[tree.of_operator[of_op[uses[0][0]]] if uses else 0] += cost(product)
    for product in picture.macs:
        macs[tree.of_operator[product.owner]] += cost(product)
    # A parent comes before its children: backwards, every scope is complete when it is added to the one around it.
    for number in range(count - 1, 0, -1):
        for totals in (operators, parameters, macs):
            totals[tree.scopes[number][0]] += totals[number]
    return [
        (path or "the model", operators[number], parameters[number], macs[number] // picture.samples)
        for number, (_, _, path) in enumerate(tree.scopes)
        if depths[number] <= _OUTER
    ]


__all__ = ["Pruned", "page", "write"]
