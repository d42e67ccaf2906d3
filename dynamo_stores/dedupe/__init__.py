"""Jobs and requests that are done once."""
