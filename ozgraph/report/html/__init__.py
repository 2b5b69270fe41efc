"""The page that `ozgraph analyze --html` writes."""
