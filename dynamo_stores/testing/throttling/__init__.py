"""A relay before a local engine that throttles as DynamoDB does."""
