"""The published table: its log, its parts, its versions and its health."""
