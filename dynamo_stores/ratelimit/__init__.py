"""
Rate limits: stores, algorithms, decorators, middleware and throttle classes.

The modules ``core``, ``decorators``, ``exceptions``, ``middleware`` and ``mixins`` have the names
of django-ratelimit's.
"""

# The methods of a limit: all of them, and those that change something.
ALL = (None,)
UNSAFE = ["DELETE", "PATCH", "POST", "PUT"]
