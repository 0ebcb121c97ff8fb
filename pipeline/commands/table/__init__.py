"""The commands that look after the table."""
