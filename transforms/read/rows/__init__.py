"""From files of rows to JSON objects: a module for each format."""
