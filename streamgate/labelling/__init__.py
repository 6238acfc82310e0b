"""`streamgate label`: serves the report locally, with additional faces of each track, and stores the user's labels."""
