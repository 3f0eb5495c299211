"""Representations' ablations, heads, and controlled training; imports nothing but the core."""

if __name__ != "fovcache.probes":
    raise ImportError(f"import fovcache.probes, not {__name__}: this folder is a part of fovcache")
