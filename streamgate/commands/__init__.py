"""What the commands do, behind the parsing of `cli`."""
