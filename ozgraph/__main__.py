"""``python -m ozgraph``: the command line without the installed script."""

from ozgraph.cli import main

main()
