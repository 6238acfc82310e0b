"""Default values, in a separate module so that the command line can use them without loading the rest."""

DEFAULT_MODELS = "embedded"
"""The weights to use unless the user names others; the sets "embedded" and "open" are part of the package."""
