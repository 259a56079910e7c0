"""Kernels of bytes, and how the bytes of a quantised network are followed from operator to operator."""
