"""What must exist at AWS, read from the models and the settings."""
