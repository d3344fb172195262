"""The systems that are compared. Each is imported by a process of its own.

A system's module has `versions()` and `prepare(case)`, which returns None for a case it has no
answer to, or two functions: one to time, and one whose arrays must equal the other systems'.
"""
