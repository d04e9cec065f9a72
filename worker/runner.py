"""Runs one stage that was claimed."""

from __future__ import annotations


class Work:
    """What a kind is given to run a stage."""
