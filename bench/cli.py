"""The command `fovbench`: measure, experiment, report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fovcache.console import Output, progress_bar, run_command, set_up_logging
from fovcache.options import (
    MAX_MEGAPIXELS,
    AllowFileUrls,
    ComputeDtype,
    Decoder,
    DecodeTimeout,
    Device,
    Downloads,
    FetchTimeout,
    Fit,
    Fps,
    Frames,
    IsolateDecode,
    Json,
    Layers,
    MaxFileMib,
    MaxHours,
    MaxMegapixels,
    PoolOfEach,
    PosteriorOfEach,
    Retries,
    ScratchGb,
    Size,
    Sources,
    StoreDtype,
    Verbose,
    WeightsOfEach,
    Workers,
    build_options,
    encoders_of,
    fetch_options,
)

from .profile_table import print_profile

if TYPE_CHECKING:
    from .profiler.result import Profile

app = typer.Typer(
    help="Measure and experiment with frozen features.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.command()
def demo(
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Where it puts everything; an earlier run's folder is taken up again.")
    ] = Path("fovcache-demo"),
    json: Json = None,
) -> None:
    """Show the whole way from images to a probe, on digits that come with scikit-learn."""
    from .demo import run_demo

    set_up_logging(verbose=False)
    output = Output(json)
    with progress_bar() as show:
        result = run_demo(out, output, show)
    output.json(result)
    output.line(str(result["report"]))


@app.command()
def profile(
    sources: Sources,
    encoder: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|PATH.py:FACTORY",
            help="A frozen encoder; repeat for several. What follows then holds for all, or as NAME=VALUE for one.",
        ),
    ] = None,
    vae: Annotated[
        str | None, typer.Option(metavar="NAME", help="A frozen VAE, whose time gets a row of its own.")
    ] = None,
    model: Annotated[
        str, typer.Option(metavar="linear|PATH.py:FACTORY", help="What trains on what the encoders give.")
    ] = "linear",
    weights: WeightsOfEach = None,
    layers: Layers = None,
    pool: PoolOfEach = None,
    posterior: PosteriorOfEach = None,
    size: Size = None,
    fit: Fit = None,
    frames: Frames = None,
    fps: Fps = None,
    decoder: Decoder = "pyav",
    compute_dtype: ComputeDtype = "fp32",
    store_dtype: StoreDtype = "bf16",
    device: Device = "auto",
    samples: Annotated[int, typer.Option(metavar="N", help="Samples that are measured in each run, at least 20.")] = 64,
    warmup: Annotated[int, typer.Option(metavar="N", help="Batches that are dropped before, at least.")] = 2,
    batch_size: Annotated[int, typer.Option(metavar="N", help="Samples a training step.")] = 8,
    workers: Workers = None,
    fetch_workers: Annotated[
        int | None, typer.Option(metavar="N", help="Threads that fetch; --downloads for URLs, else 4.")
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Measure the predictions that can be run here.")] = False,
    trace: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also trace a few steps, for Perfetto or TensorBoard.")
    ] = None,
    flame: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also sample stacks: .svg a flame graph, .json for speedscope.")
    ] = None,
    report: Annotated[Path | None, typer.Option(metavar="DIR", help="Also write the report there.")] = None,
    timeout: Annotated[float, typer.Option(metavar="S", help="A stage that takes longer on one item hangs.")] = 300,
    isolate_decode: IsolateDecode = False,
    decode_timeout: DecodeTimeout = 300,
    max_megapixels: MaxMegapixels = MAX_MEGAPIXELS,
    max_hours: MaxHours = 24,
    downloads: Downloads = 8,
    retries: Retries = 4,
    fetch_timeout: FetchTimeout = 30,
    max_file_mib: MaxFileMib = 4096,
    scratch_gb: ScratchGb = 10,
    allow_file_urls: AllowFileUrls = False,
    json: Json = None,
    verbose: Verbose = False,
) -> None:
    """Say where the time of training on frozen encoders goes, and what would make it less."""
    encoders = encoders_of({**locals(), "encoder": [*(encoder or ()), *([vae] if vae else ())]})
    set_up_logging(verbose=verbose)
    output = Output(json)
    from .profiler.frozen import ProfileRequest
    from .profiler.run import Extras, run_profile

    options = build_options(
        device=device,
        batch_size=batch_size,
        num_workers=workers,
        isolate_decode=isolate_decode,
        decode_timeout_s=decode_timeout,
        max_megapixels=max_megapixels,
        max_hours=max_hours,
        fetch=fetch_options(downloads, retries, fetch_timeout, max_file_mib, scratch_gb),
        allow_file_urls=allow_file_urls,
    )
    request = ProfileRequest(
        sources=tuple(sources),
        encoders=encoders,
        vaes=frozenset([vae] if vae else []),
        model=model,
        num_samples=samples,
        warmup_batches=warmup,
        timeout_s=timeout,
        fetch_workers=fetch_workers,
        options=options,
    )
    extras = Extras(verify=verify, trace=trace, flame=flame)
    with progress_bar() as show:
        result = run_profile(request, extras, on_progress=show)
    print_profile(output, result)
    output.json(result.document())
    if report is not None:
        _write_report(result, report, output)
    raise typer.Exit(result.exit_status)


@app.command()
def report(
    profile: Annotated[Path, typer.Argument(metavar="PROFILE.json", help="What `fovbench profile --json` wrote.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the page and its figures go.")] = Path(
        "fovbench-report"
    ),
) -> None:
    """Make one HTML file and PNGs of a profile."""
    from .profiler.result import read_profile

    set_up_logging(verbose=False)
    _write_report(read_profile(profile), out, Output(None))


def _write_report(profile: Profile, folder: Path, output: Output) -> None:
    from fovcache.errors import environment_failure
    from fovcache.reports.profile_report import write_report

    try:
        files = write_report(profile, folder)
    except OSError as error:
        raise environment_failure(error, f"write the report into {folder}") from error
    output.line(str(files.html))


def main() -> None:
    """The entry point of `fovbench`."""
    run_command(app)


if __name__ == "__main__":
    main()
