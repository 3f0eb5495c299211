"""Tables, figures and the HTML report; imports nothing but results' dataclasses."""

if __name__ != "fovcache.reports":
    raise ImportError(f"import fovcache.reports, not {__name__}: this folder is a part of fovcache")

from .profile_report import ReportFiles, write_report

__all__ = ["ReportFiles", "write_report"]
