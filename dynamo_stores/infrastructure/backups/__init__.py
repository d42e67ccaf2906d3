"""Backup of a table to files, restore from them, and comparison of items."""
