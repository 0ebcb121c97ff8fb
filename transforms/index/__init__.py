"""From the table to the index."""
