"""What a deployment needs beside the tables, made from the models and settings."""
