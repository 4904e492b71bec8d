"""Tests of the SDK: `python3 -m unittest discover -s sdk/python/tests -t sdk/python` with `sdk/python/src` on the path."""
