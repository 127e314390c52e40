"""A virtual plant, and servers that show it at the very addresses of an agent's config."""
