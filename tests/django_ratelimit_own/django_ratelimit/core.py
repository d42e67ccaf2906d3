from dynamo_stores.decorators import get_usage, is_ratelimited
from dynamo_stores.limiting import get_ip as _get_ip
from dynamo_stores.rates import parse_rates

__all__ = ["_get_ip", "_split_rate", "get_usage", "is_ratelimited"]


def _split_rate(rate):
    return parse_rates(rate)[0]
