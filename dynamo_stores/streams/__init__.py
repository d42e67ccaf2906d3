"""Reading the stream of a table: records in order, at least once, shared by several workers."""

from .handlers import Handler, RecordFailed, each_record, lambda_handler
from .records import StreamRecord

__all__ = ["Handler", "RecordFailed", "StreamRecord", "each_record", "lambda_handler"]
