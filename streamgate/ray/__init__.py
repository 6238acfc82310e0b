"""Work on a Ray cluster: `streamgate run --ray`, and `KeptFaces` for pipelines of Ray Data."""

from streamgate.ray.data import KeptFaces

__all__ = ["KeptFaces"]
