"""Training on zero-invariant groups: everything that needs torch lives here.

The runtime decides *what* becomes zero; the compiler removes whatever it can prove dead. The runtime knows groups, as
strided patterns over parameters, and never the graph they came from. Install it with ``pip install "ozgraph[torch]"``.
"""
