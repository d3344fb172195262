"""With this folder on PYTHONPATH there is no Numba."""

raise ImportError("Numba is hidden")
