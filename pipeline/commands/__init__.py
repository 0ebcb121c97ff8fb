"""What one types: a module for each command or family of commands."""
