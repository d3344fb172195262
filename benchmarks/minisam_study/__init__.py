"""The study behind `minisam reproduce`: what SAM gains over its baselines, and how sure that is.

Read `recipes` (what is compared), `reproduce` (the runs), `statistics` (the intervals), `report`.
"""
