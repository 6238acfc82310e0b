"""Support for Ray clusters: `streamgate run --ray`, and `KeptFaces` for Ray Data pipelines."""

from streamgate.ray.data import KeptFaces

__all__ = ["KeptFaces"]
