"""Default values, in a separate module so that the command line can use them without loading the rest."""

DEFAULT_MODELS = "embedded"
"""The weights to use if the user gives none; "embedded" and "open" weights are part of the package."""
