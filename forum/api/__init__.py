"""The forum as JSON over HTTP."""
