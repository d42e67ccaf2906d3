"""Rate limits: stores, algorithms, decorators, middleware and throttle classes."""
