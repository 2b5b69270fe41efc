"""Model out: every backend carries out a :class:`ozgraph.plan.Plan` in one format."""
