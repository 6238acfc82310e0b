"""Values to put into sinks."""

from support.sink_values import make  # noqa: F401
