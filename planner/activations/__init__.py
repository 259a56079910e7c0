"""Tensors between layers as bytes: where their grids lie, and what stands where unlike formats meet."""
