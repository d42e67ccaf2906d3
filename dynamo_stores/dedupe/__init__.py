"""Deduplication: jobs that run once, and idempotent requests."""
