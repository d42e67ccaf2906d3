"""What lives once per process; threads for async callers; work written once for both."""
