"""How the pipeline's stages grow: deliveries of any size, and what each stage takes of time and memory.

Run from the repository: ``python -m benchmarks.run --rows 52000``, then ``python -m benchmarks.report``.
"""
