"""Values to put into sinks."""

from sink_values import make  # noqa: F401
