"""Segment files: their bytes (format), their life (lifecycle, pool), writing and reading them."""
