"""What a command tells people, printed as it happens and kept as Markdown for a report."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from fovcache.console import Output

_WIDTH = 120


class Transcript:
    """Prints headings, text, commands and tables, and remembers them."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._blocks: list[str] = []

    def heading(self, text: str) -> None:
        """A step's title."""
        self._output.console().print(f"\n{text}", style="bold", markup=False)
        self._blocks.append(f"## {text}")

    def text(self, text: str) -> None:
        """A paragraph, which is wrapped between words."""
        for line in textwrap.wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False):
            self._output.line(line)
        self._blocks.append(text)

    def code(self, text: str, *, language: str = "sh") -> None:
        """A command or a line of Python that people can type as it stands."""
        self._output.line(f"{'$' if language == 'sh' else '>>>'} {text}")
        self._blocks.append(f"```{language}\n{text}\n```")

    def own(self, command: str) -> None:
        """The same on people's own data: a command to change before it is typed."""
        self._output.line(f"On your own clips: {command}")
        self._blocks.append(f"On your own clips:\n\n```sh\n{command}\n```")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A table; columns whose name starts with `>` are right-aligned."""
        self._output.table("", columns, rows)
        names = [column.removeprefix(">") for column in columns]
        rules = ["--:" if column.startswith(">") else ":--" for column in columns]
        cells = [names, rules, *([str(cell) for cell in row] for row in rows)]
        self._blocks.append("\n".join(f"| {' | '.join(row)} |" for row in cells))

    def markdown(self, title: str) -> str:
        """Everything so far, as a Markdown document."""
        return "\n\n".join([f"# {title}", *self._blocks]) + "\n"
