"""Short videos with the best seconds of each track or person, in which every frame is scored."""
