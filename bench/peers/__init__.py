"""Side-by-side measurements against other ways to do the same work: `python -m fovcache.bench.peers.reading`."""

if __name__ != "fovcache.bench.peers":
    raise ImportError(f"import fovcache.bench.peers, not {__name__}: this folder is a part of fovcache")
