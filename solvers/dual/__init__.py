"""The parts of the Lagrangian solver: prices, bounds, and choices made from them."""
