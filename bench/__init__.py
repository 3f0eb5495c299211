"""The profiler, comparisons and the demo behind `fovbench`."""

if __name__ != "fovcache.bench":
    raise ImportError(f"import fovcache.bench, not {__name__}: this folder is a part of fovcache")
