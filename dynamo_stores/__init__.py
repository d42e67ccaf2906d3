"""Django's cache, and one careful, fast way of calling DynamoDB, in one DynamoDB table."""

__version__ = "0.1.0"
