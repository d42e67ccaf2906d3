"""What AWS needs beside the code: tables, alarms, dashboards and backups, from the settings."""
