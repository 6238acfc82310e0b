"""The folder that a run writes: what stands in its files, how they are written whole, and how they are read again."""
