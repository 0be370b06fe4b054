"""Clustering algorithms, a module each, behind one small protocol."""
