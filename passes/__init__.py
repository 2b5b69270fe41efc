"""The pipeline: one pass a file, in the order in which they run (import name ``ozgraph.passes``).

normalize, infer_dims, freeze, group, cost, hold_finite, select, prove_dead, eliminate, verify.
"""
