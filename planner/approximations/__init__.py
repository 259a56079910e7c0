"""The approximations a layer can be run by: one module each, found by its file's name.

A module has

- ``KIND``: ``"structure"`` if it changes which operators run, ``"storage"`` if it changes how their weights
  are stored. Every structure composes with every storage: ``lowrank@0.5+int8w``. ``"schedule"`` if the kernel alone
  is another one, for values that are the same but for rounding: such a choice is named ``exact+winograd``;
- ``CHOICES``: the names of all choices it can offer, the module's name first in each;
- ``ON_REQUEST = True`` if it is left out of the default, where each more doubles what there is to measure;
- ``INTEGER = True`` if it is a form of storage that kernels of bytes read, so that integer arithmetic composes with it;
- ``offer(view)``: which of them apply to a layer, or why none does;
- ``apply(context, choice)``: the nodes and constants that stand for the layer's anchor from then on.

What they share is in `planner.approximations.base`.
"""

from __future__ import annotations

from planner.approximations.base import Approximation, Context, LayerView, Offer, Replacement

__all__ = ["Approximation", "Context", "LayerView", "Offer", "Replacement"]
