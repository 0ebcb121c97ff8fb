"""What a row of the table is, and how part files are written and read."""
