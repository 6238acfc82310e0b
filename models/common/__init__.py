"""Shared by the training recipes: reading pictures, aligning faces, degrading them.."""
