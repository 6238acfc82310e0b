"""Output folders of runs: the formats of their files, and functions to read these files and write them atomically."""
