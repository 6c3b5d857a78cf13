"""What is asked of the trail: the questions are .sql files, the answers typed rows.

Blocking; reads only. A connection comes from the caller.
"""
