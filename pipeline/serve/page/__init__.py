"""The page: what it asks (`/api`), and in `files/` what the browser gets. It has no build step."""
