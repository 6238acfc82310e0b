"""Default values, in a separate module so that the command line can use them without loading the rest."""

DEFAULT_MODELS = "embedded"
"""The weights in use: "embedded" and "open" (in the package) or "standard" (fetched by `streamgate models pull`)."""
