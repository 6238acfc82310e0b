"""Output folders of runs: the formats of their files, and functions to write these atomically and to read them."""
