"""Dimensions as types: what an axis is made of, and the unification that finds out.

A :class:`Dim` is an ordered set of slots. An :class:`Atom` has slots that may go one by one; :class:`Sum` is a
concatenation, :class:`Prod` a row-major product, :class:`Take` a gather by constant indexes. :data:`ONE` is the axis of
size one: a position that nothing can remove.

Position ``p`` of an axis *needs* a set of slots, one of each atom that it runs through, and survives when all of them
do. Slots have global ids, so an axis is a matrix of ids (:meth:`Dims.ids`), and everything that follows, from the
certificate to the rewrite, is arithmetic on such matrices.
"""

from ozgraph.dims.ids import NOTHING, Mask, components
from ozgraph.dims.solver import Dims, Reason
from ozgraph.dims.terms import ONE, Atom, Dim, Ids, Prod, Sum, Take, children, prod_of, resolve, same, sum_of

__all__ = [
    "NOTHING",
    "ONE",
    "Atom",
    "Dim",
    "Dims",
    "Ids",
    "Mask",
    "Prod",
    "Reason",
    "Sum",
    "Take",
    "children",
    "components",
    "prod_of",
    "resolve",
    "same",
    "sum_of",
]
