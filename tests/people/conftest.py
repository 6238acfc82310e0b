"""Fixtures of this folder's tests."""

from support.people_folder import out  # noqa: F401
