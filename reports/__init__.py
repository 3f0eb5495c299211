"""Where tables, figures and the HTML report will live; imports nothing but results' dataclasses."""

if __name__ != "fovcache.reports":
    raise ImportError(f"import fovcache.reports, not {__name__}: this folder is a part of fovcache")
