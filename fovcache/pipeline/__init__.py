"""Stages joined by bounded queues that keep their order and account for their own time.

`pipeline.py` runs stages overlapped, `serial.py` the same stages one at a time.
"""
