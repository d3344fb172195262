"""The systems being compared, each imported by its own process.

A system's module has `versions()` and `prepare(case)`, which returns None for a case it does not
have, or two functions: one to time, and one whose arrays must equal the other systems'.
"""
