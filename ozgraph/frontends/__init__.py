"""Model in: every frontend turns a format into a :class:`ozgraph.graph.Graph`."""
