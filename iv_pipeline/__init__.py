"""Clusters, names and screens vehicle images by their descriptors, as a Dagster pipeline."""

import os

# idle OpenMP threads sleep instead of spinning: on a busy machine spinning ones slow k-means down tenfold
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
