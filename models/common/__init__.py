"""Code that the training recipes share, for example to read pictures, and to align and degrade faces."""
