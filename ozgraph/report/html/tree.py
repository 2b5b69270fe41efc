"""The scopes of a model as a tree that can be drawn: no level with more children than fit on a screen."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

WIDEST = 64
"""Children of one scope; longer runs are parted into pieces, in the order of the model."""


@dataclass(slots=True)
class Node:
    """A scope: what it is called beside its siblings, its whole path, and operators (numbers) and scopes in order."""

    label: str
    path: str
    children: list[Node | int] = field(default_factory=list)

    def operators(self) -> Iterator[int]:
        """Every operator below."""
        stack: list[Node | int] = [self]
        while stack:
            here = stack.pop()
            if isinstance(here, int):
                yield here
            else:
                stack.extend(reversed(here.children))


@dataclass(frozen=True, slots=True)
class Tree:
    """Scopes in a list, a parent before its children.

    Attributes:
        scopes: (number of the parent, label, path); the root comes first and is its own parent.
        of_operator: operator -> scope.
        labels: operator -> what it is called in its scope; empty where only its type says what it is.
    """

    scopes: tuple[tuple[int, str, str], ...]
    of_operator: tuple[int, ...]
    labels: tuple[str, ...]


def tree_of(scopes: Sequence[tuple[str, ...]], reads: Sequence[Collection[int]] = ()) -> Tree:
    """The tree of operators with these scopes, in the order of the model.

    Args:
        reads: for every operator, those whose results it reads.
    """
    root = Node("", "")
    nodes: dict[tuple[str, ...], Node] = {(): root}
    for number, scope in enumerate(scopes):
        for depth in range(1, len(scope) + 1):
            if scope[:depth] not in nodes:
                around = nodes[scope[: depth - 1]]
                made = nodes[scope[:depth]] = Node(_label(around.label, scope[depth - 1]), ".".join(scope[:depth]))
                around.children.append(made)
        nodes[scope].children.append(number)
    labels = [""] * len(scopes)
    # Deepest first, so that what is around a scope sees what has become of it.
    for scope in sorted(nodes, key=len, reverse=True):
        _settle(nodes[scope], labels, reads)
    return _flat(root, len(scopes), labels)


def _label(around: str, name: str) -> str:
    """A number says nothing without what it numbers."""
    return f"{around}.{name}" if around and name[:1].isdigit() else name


def _settle(node: Node, labels: list[str], reads: Sequence[Collection[int]]) -> None:
    """Take up scopes around a single operator or a single scope, and part what is too wide."""
    children: list[Node | int] = []
    for child in node.children:
        if isinstance(child, Node) and (loose := _loose(child, reads)):
            for op in loose:
                labels[op] = f"{child.label}.{labels[op]}" if labels[op] else child.label
            children.extend(loose)
            continue
        while isinstance(child, Node) and len(child.children) == 1:
            only = child.children[0]
            if isinstance(only, int):
                labels[only] = f"{child.label}.{labels[only]}" if labels[only] else child.label
            else:
                joined = only.label if only.label.startswith(child.label) else f"{child.label}.{only.label}"
                only = Node(joined, only.path, only.children)
            child = only
        children.append(child)
    # Operators that were taken out of a scope go back to their place in the order of the model.
    children.sort(key=lambda child: child if isinstance(child, int) else next(child.operators()))
    while len(children) > WIDEST:
        # As few pieces as will do, of the same length.
        count = -(-len(children) // WIDEST)
        size = -(-len(children) // count)
        children = [_piece(node, children[start : start + size]) for start in range(0, len(children), size)]
    node.children = children


def _loose(node: Node, reads: Sequence[Collection[int]]) -> list[int]:
    """The operators of a module that is used in several places: none of them reads another."""
    only = [child for child in node.children if isinstance(child, int)]
    if len(only) < max(2, len(node.children)) or not reads:
        return []
    own = set(only)
    return [] if any(own.intersection(reads[op]) for op in only) else only


def _piece(around: Node, children: list[Node | int]) -> Node:
    first, last = children[0], children[-1]
    if isinstance(first, Node) and isinstance(last, Node):
        label = f"{first.label.partition(' to ')[0]} to {last.label.rpartition(' to ')[2]}"
    else:
        # Numbers as people count.
        low = first + 1 if isinstance(first, int) else min(first.operators()) + 1
        high = last + 1 if isinstance(last, int) else max(last.operators()) + 1
        label = f"operators {low} to {high}"
    return Node(label, f"{around.path} {label}".strip(), children)


def _flat(root: Node, count: int, labels: Sequence[str]) -> Tree:
    scopes: list[tuple[int, str, str]] = []
    of_operator = [0] * count
    pending: list[tuple[Node, int]] = [(root, 0)]
    while pending:
        node, parent = pending.pop()
        number = len(scopes)
        scopes.append((parent, node.label, node.path))
        for child in node.children:
            if isinstance(child, int):
                of_operator[child] = number
        pending.extend((child, number) for child in reversed(node.children) if isinstance(child, Node))
    return Tree(tuple(scopes), tuple(of_operator), tuple(labels))
