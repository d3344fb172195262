"""What runs the library: the command line, and the study of what SAM gains over its baselines.

Read `cli` (the commands); `recipes` (what is compared), `reproduce` (the runs), `statistics` (the
intervals), `report`.
"""
