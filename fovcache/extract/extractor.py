"""What the core asks of an extractor, whatever it reads: frames, weight matrices, captions or text.

An `InputSpec` turns a sample's bytes into the extractor's input; an `Extractor` says what it is (for the
recipe) before anything is loaded, and opens a `Session` that computes named layers. The build, the keys and
the store know nothing else, so a new kind of input is a new `InputSpec` and nothing more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from ..errors import EncoderError, SampleError, nearest
from ..keys.digest import Document

if TYPE_CHECKING:
    import torch

    from ..decode.sampling import Window
    from ..decode.video_file import VideoSource

ENTRY_POINT_GROUP = "fovcache.extractors"

Item: TypeAlias = Any
"""One sample's input as its InputSpec reads it: for frames a uint8 array [frames, height, width, 3]."""


class InputSpec(Protocol):
    """How the bytes of one sample become an extractor's input."""

    @property
    def kind(self) -> str:
        """`frames`, `matrices`, …; of `caption` it is a sample's caption that is read, and not its bytes."""

    @property
    def typical_rows(self) -> int:
        """About how many rows of a batch one sample makes: a default batch holds fewer samples of many."""

    def document(self) -> Document:
        """Everything here that decides the activations, for the recipe."""

    def software(self) -> Document:
        """What decodes, by name and version: a permanent failure is tried again when this changes."""

    def suffixes(self) -> frozenset[str]:
        """File name endings, lower case and with the dot, of samples of this kind."""

    def read(self, data: bytes, name: str) -> Item:
        """One sample's input. Raises SampleError for bytes that cannot be read as what they claim to be."""

    def rows_of(self, item: Item) -> int | None:
        """How many rows of the collated batch are the item's, which then keep an axis of their own; None for one row
        without one."""

    def shape(self, item: Item) -> tuple[int, ...]:
        """Samples of equal shape can share a batch."""

    # It may also have `fixed_shape: tuple[int, ...] | None`, the shape of every item where it is known before any is
    # read.

    def placeholder(self, shape: tuple[int, ...]) -> Item:
        """An item of a given shape that stands in a batch for a sample that failed."""

    def collate(self, items: Sequence[Item]) -> torch.Tensor:
        """Items of equal shape as one batch in host memory, `[rows of all items, …]`, as small as it can be copied."""

    def prepare(self, batch: torch.Tensor) -> torch.Tensor:
        """What `Session.encode` takes, of a collated batch: on the device that the batch is on, with as many rows."""


@runtime_checkable
class WindowedInputSpec(InputSpec, Protocol):
    """An input that is read from its file, which may be long, several windows of its time in one pass."""

    def read_windows(self, source: VideoSource, windows: Sequence[Window]) -> Sequence[Item | SampleError]:
        """One item for each window, or why it cannot be had. Raises SampleError where the whole file is at fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLayout:
    """Where a sequence output `[batch, tokens, channels]` has its class and register tokens."""

    has_class_token: bool = False
    """Whether token 0 is a class token."""
    num_prefix_tokens: int = 0
    """Class and register tokens together, all before the patches."""

    def __post_init__(self) -> None:
        if self.num_prefix_tokens < int(self.has_class_token):
            raise EncoderError(
                f"num_prefix_tokens is {self.num_prefix_tokens}, but the class token alone makes it at least 1"
            )


class Session(Protocol):
    """An extractor loaded on a device, ready to compute some of its layers."""

    def encode(self, batch: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """`{layer: [rows, …]}` of one collated and prepared batch, on the device, unpooled."""


class Extractor(Protocol):
    """A frozen function from one kind of input to named layers."""

    @property
    def name(self) -> str:
        """The name users select it by: an entry point's, or `FILE.py:FACTORY` without its folder."""

    @property
    def input(self) -> InputSpec:
        """What it is fed by default; a build may override the geometry."""

    @property
    def tokens(self) -> TokenLayout:
        """The layout of its sequence outputs."""

    # An extractor may also have `default_pool: str`, where `cls` or else `mean` is not what people want of it; and, if
    # it gives a distribution, `posterior: Document` for the recipe and `with_posterior(text) -> Extractor`; and, if it
    # gives whole numbers, `store_dtype = "int32"`, which then is all that its rows are computed and stored in.

    def identity(self) -> Document:
        """What it is: source or architecture, weights. Runs no forward pass. Raises FingerprintError."""

    def layers(self) -> tuple[str, ...]:
        """Every layer that can be asked for, in canonical names."""

    def default_layers(self) -> tuple[str, ...]:
        """What is computed when no layer is named."""

    def session(self, layers: Sequence[str], device: torch.device, compute_dtype: str) -> Session:
        """Load the extractor and make it compute `layers`, stopping after the deepest of them."""


def resolve_extractor(encoder: str, weights: str | None = None) -> Extractor:
    """The extractor named `encoder`: `PATH.py:FACTORY`, or the name of an installed entry point.

    Raises EncoderError with the nearest names when there is none.
    """
    if ".py:" in encoder or encoder.endswith(".py"):
        from .user_module import UserModule

        return UserModule.load(encoder, weights)
    known = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    if encoder not in known:
        raise EncoderError(
            f"there is no encoder named {encoder!r}{nearest(encoder, sorted(known))}; "
            "for one of your own give PATH.py:FACTORY"
        )
    extractor: Extractor = known[encoder].load()(weights)
    return extractor
