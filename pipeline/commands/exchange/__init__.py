"""Out of the table into other engines, and back: export, load, import."""
