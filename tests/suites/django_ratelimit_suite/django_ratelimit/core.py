from dynamo_stores.client_address import get_ip as _get_ip
from dynamo_stores.conf.rates import parse_rates
from dynamo_stores.decorators import get_usage, is_ratelimited

__all__ = ["_get_ip", "_split_rate", "get_usage", "is_ratelimited"]


def _split_rate(rate):
    return parse_rates(rate)[0]
