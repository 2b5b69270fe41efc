"""Pruners in other people's training loops: a callback each, over the same classes.

Import the one for the library at hand; none of these modules needs another library than its own.
"""
