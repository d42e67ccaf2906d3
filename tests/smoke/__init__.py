"""The stores on a DynamoDB with nothing between: ``make smoke``, also on an account at AWS."""
