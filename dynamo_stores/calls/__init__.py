"""Calls of DynamoDB: the connection that all tables of the project share, and its policy."""
