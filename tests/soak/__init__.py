"""A soak: processes and threads, faults, lag and kills at random, checked by models."""
