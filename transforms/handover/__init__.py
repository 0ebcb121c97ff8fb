"""What workers leave in files for the launcher."""
