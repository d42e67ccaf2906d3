"""Reports of all processes, and the status made of them."""
