"""Fixtures of this folder's tests."""

from people_folder import out  # noqa: F401
