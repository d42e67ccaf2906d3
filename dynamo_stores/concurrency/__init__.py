"""Objects per process, threads for async callers, single flight, bounded memory."""
