"""Make clips on which a second look is known to help, and clips on which it cannot.

    python -m fovcache.bench.made_cues FOLDER [--train 20000] [--validation 1000] [--seed 0]

writes FOLDER/cue and FOLDER/global, tar shards of tiny lossless videos with their frames' labels as captions, and
beside them encoder.py, the frozen encoder, and cue.toml, what `fovbench train` reads.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from fovcache.console import human_bytes, human_seconds, progress_bar
from fovcache.errors import FovcacheError

from .clips import TASKS
from .files import write_cues


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="new, or of an earlier run")
    parser.add_argument("--train", type=int, default=20_000, metavar="N", help="clips of each task; default 20000")
    parser.add_argument("--validation", type=int, default=1_000, metavar="N", help="and so many; default 1000")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn; default 0")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the files; the exit status."""
    options = parse(arguments)
    started = time.perf_counter()
    try:
        with progress_bar() as show:
            write_cues(
                options.folder,
                num_train=options.train,
                num_validation=options.validation,
                seed=options.seed,
                on_progress=show,
            )
    except FovcacheError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_status
    size = human_bytes(sum(path.stat().st_size for path in options.folder.rglob("*.tar")))
    took = human_seconds(time.perf_counter() - started)
    sys.stdout.write(
        f"{options.train + options.validation} clips of each task ({', '.join(TASKS)}), {size}, in {took}: "
        f"{options.folder}\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
