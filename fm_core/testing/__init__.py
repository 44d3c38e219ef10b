"""Closed forms against which plugins are proven."""

from fm_core.testing.mixture import GaussianMixture

__all__ = ["GaussianMixture"]
