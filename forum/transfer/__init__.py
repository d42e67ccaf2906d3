"""Forums in JSON files: read, written to the tables, exported, and made up for load."""
