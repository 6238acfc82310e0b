"""`streamgate label`: serves the report locally, with more faces of each track, and stores the labels."""
