"""Proving by listing: the parts of the solver `solvers.core`."""
