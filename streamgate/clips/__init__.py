"""The best seconds of each track or person as short videos of which every frame passes the gate."""
