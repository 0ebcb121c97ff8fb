"""Sources that are no files: databases and indexes, through their own clients."""
