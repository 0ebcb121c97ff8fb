"""Out of the table into other engines, and mappings and endpoints back in: one small file a system."""
