"""`streamgate serve`: watches cameras for months."""
