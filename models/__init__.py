"""Encoders, VAEs and the models that are trained; imports nothing but the core."""

if __name__ != "fovcache.models":
    raise ImportError(f"import fovcache.models, not {__name__}: this folder is a part of fovcache")
