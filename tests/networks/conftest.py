"""Real networks and faces for this folder's tests."""

from support.real_weights import hq_faces, lfw, networks  # noqa: F401
