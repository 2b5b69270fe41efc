"""Groups as plain data: what a training runtime reads, with neither a graph nor torch in it."""

from ozgraph.groups.binding import named_tensors
from ozgraph.groups.family import CONSUMER, PRODUCER, SLICE, FamilyGroups, Occurrence
from ozgraph.groups.groups import Cost, Groups, Tensor
from ozgraph.groups.pattern import ABSENT, Pattern, patterns_of
from ozgraph.groups.polynomial import Count, Polynomial, total
from ozgraph.groups.without import Places, cut, places_of

__all__ = [
    "ABSENT",
    "CONSUMER",
    "PRODUCER",
    "SLICE",
    "Cost",
    "Count",
    "FamilyGroups",
    "Groups",
    "Occurrence",
    "Pattern",
    "Places",
    "Polynomial",
    "Tensor",
    "cut",
    "named_tensors",
    "patterns_of",
    "places_of",
    "total",
]
