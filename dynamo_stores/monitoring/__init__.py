"""What happens in all processes, gathered and shown."""
