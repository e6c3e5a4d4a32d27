"""The slow side of the benchmarks: the published way, rendered plainly. `python -m eval.reference` predicts with it.

It shares no code with solution/, only the files that both read, so that what both answer alike is right in both.
"""
