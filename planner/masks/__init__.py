"""Channels that are removed from whole classes of tensors: which there are, and what is left of the layers."""
