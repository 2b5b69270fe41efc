"""What a person sees: reports drawn on a terminal. Programs read :func:`ozgraph.results.as_json` instead."""
