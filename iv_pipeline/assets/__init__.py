"""Dagster assets, one module per stage; each names its inputs, calls one function and says what to show."""
