"""Devices: one file per kind of device that runs networks and says how long that took.

The file name is the device's name in tables and on the command line.  A new device is one new file with an
``open_device(address, threads)`` that returns a :class:`~planner.devices.base.Device`.
"""

from planner.devices.base import (
    Device,
    Footprint,
    Program,
    available,
    close,
    notes,
    open_device,
    programs,
    sample_round,
)

__all__ = [
    "Device",
    "Footprint",
    "Program",
    "available",
    "close",
    "notes",
    "open_device",
    "programs",
    "sample_round",
]
