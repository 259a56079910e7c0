"""Questions about a problem beyond its best answer: conflicts, prices, fronts, and what is nearly as good."""
