"""Tables, figures and the HTML report; imports nothing but results' dataclasses."""

if __name__ != "fovcache.reports":
    raise ImportError(f"import fovcache.reports, not {__name__}: this folder is a part of fovcache")

from .files import ReportFiles
from .profile_report import write_report
from .results import Build, Results
from .results_report import write_results

__all__ = ["Build", "ReportFiles", "Results", "write_report", "write_results"]
