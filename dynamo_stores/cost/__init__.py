"""What tables cost in a month: estimates from measured use, CloudWatch or assumptions."""

from .prices import Prices, read_prices
from .report import CostReport, cost_report

__all__ = ["CostReport", "Prices", "cost_report", "read_prices"]
