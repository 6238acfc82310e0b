"""`streamgate serve`: cameras for months."""
