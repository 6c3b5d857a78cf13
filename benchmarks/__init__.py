"""What `make bench` runs: ours, the competitors and the limit, side by side in the same run.

Each benchmark is one file whose docstring says what is measured and what is not.
"""
