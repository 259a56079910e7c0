"""Weights in fewer bytes: how they are rounded, written into ONNX, and read from there on the way to a kernel."""
