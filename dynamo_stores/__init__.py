"""Django's cache, rate limits, locks and jobs that run once, in one DynamoDB table."""

__version__ = "0.1.0"
