"""What holds where nobody says otherwise, apart so that the command line can name it without loading the rest."""

DEFAULT_MODELS = "embedded"
"""The weights in use: "embedded" (in the package) or "standard" (fetched by `streamgate models pull`)."""
