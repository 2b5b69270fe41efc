"""Real networks through both frontends and out by every backend."""
