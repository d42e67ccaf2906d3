"""Rate limits: stores, algorithms, views."""
