from dynamo_stores.exceptions import Ratelimited

__all__ = ["Ratelimited"]
