"""Documents with their vectors for Elasticsearch: their forms, their index, bodies, and loading them."""
