"""Measuring a network: its losses, its builds and their times, what formats cost, and where samples are kept."""
