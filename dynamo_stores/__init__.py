"""Stores on DynamoDB: Django's cache, rate limits, deduplication, and resilient calls."""

__version__ = "0.1.0"
