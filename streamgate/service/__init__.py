"""The service `streamgate serve`, which watches cameras and is built to run for months."""
