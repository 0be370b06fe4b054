"""Clusters, names and screens vehicle images by their descriptors, as a Dagster pipeline."""
