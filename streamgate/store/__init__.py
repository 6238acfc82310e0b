"""The output folder of a run: the contents of its files, writing them atomically, and reading them."""
