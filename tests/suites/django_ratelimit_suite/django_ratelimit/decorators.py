from dynamo_stores.decorators import ratelimit

__all__ = ["ratelimit"]
