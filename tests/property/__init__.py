"""Random systems of data movements, what can truly be removed from them, and what ozgraph finds.

* :mod:`property.systems`: what a system is, and what a removal does to it.
* :mod:`property.oracle`: every slot that lies in some removable set, by exhaustive search.
* :mod:`property.generators`: random systems, those of networks and wild ones.
* :mod:`property.solution`: the same system in :mod:`ozgraph.dims`.
* :mod:`property.campaign`: many systems, and the share that is found; ``python -m property.campaign --help``.
"""
