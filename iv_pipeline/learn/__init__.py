"""The numerics; imports no Dagster and can be used from a notebook."""
