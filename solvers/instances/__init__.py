"""Instances: made up by a seed, read from files, written for other tools."""
