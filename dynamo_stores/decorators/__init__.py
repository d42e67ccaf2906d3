"""What is put on functions and views."""

from .cached import cached

__all__ = ["cached"]
