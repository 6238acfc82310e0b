"""`streamgate label`: the report served on this machine, with more faces of each track, and the labels written."""
