"""Clusters, names and screens vehicle images by their descriptors, as a Dagster pipeline."""

import os

from iv_pipeline.compiled import choose_cache

# idle OpenMP threads sleep instead of spinning: on a busy machine spinning ones slow k-means down tenfold
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
choose_cache()
