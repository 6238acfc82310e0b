"""`streamgate serve`, which watches cameras for months."""
