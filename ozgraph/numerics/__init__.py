"""Runs model files and compares what they compute: made inputs, sessions, agreement and latency.

Import from the modules: ``inputs``, ``sessions``, ``precision``, ``measure``, ``upstream``, ``compare`` and ``bench``.
Nothing here knows how a model was pruned.
"""
