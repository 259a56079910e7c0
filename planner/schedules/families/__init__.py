"""Families of kernels on float32, one a file: what each computes, its schedule, and what is lowered to it."""
