"""How many examples hypothesis tries."""

import os

from hypothesis import settings

_FACTOR = 20 if os.environ.get("HYPOTHESIS_PROFILE") == "thorough" else 1


def examples(num: int, **options: int) -> settings:
    """So many, or 20 times as many with HYPOTHESIS_PROFILE=thorough, as for tests that do not say."""
    return settings(max_examples=num * _FACTOR, **options)
