"""Phi-3-vision as a step of a Ray Data pipeline: `ds.map_batches(Phi3Vision, ...)` (docs/cluster.md)."""

from .actor import Phi3Vision

__all__ = ["Phi3Vision"]
