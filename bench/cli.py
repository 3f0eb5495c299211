"""The command `fovbench`: measure, experiment, report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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

from . import quality_options, train_command
from .ablation_table import print_suite
from .profile_table import print_profile
from .quality_table import measure_quality, print_quality
from .report_command import write_folder_report, write_profile_report

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
    """Show the whole way, profile → build → ablate → report, on clips of digits that come with scikit-learn."""
    from .demo.run import run_demo

    set_up_logging(verbose=False)
    output = Output(json)
    with progress_bar() as show:
        result = run_demo(out, output, show, lambda folder: write_folder_report(folder, folder, None, output).html)
    output.json(result)
    output.line(str(result["report"]))
    raise typer.Exit(result["status"])


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
        str,
        typer.Option(
            metavar="linear|CONFIG.toml|PATH.py:FACTORY",
            help="What trains on what the encoders give: a linear head, `fovbench train`'s model, or one's own.",
        ),
    ] = "linear",
    cached: Annotated[
        bool, typer.Option("--cached", help="Profile training on a cache of what the encoders give, built for it.")
    ] = False,
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
        is_cached=cached,
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
        write_profile_report(result, report, output)
    raise typer.Exit(result.exit_status)


@app.command()
def ablate(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG.toml", help="What is run; docs/ablations.md has every key.")
    ],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Where results go; an earlier run's folder is gone on with.")
    ],
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:N or mps; else what CONFIG says.")] = None,
    isolate: Annotated[
        bool, typer.Option(help="Run trials in a process of their own: one that crashes costs itself and no more.")
    ] = True,
    timeout: Annotated[
        float | None,
        typer.Option(metavar="S", help="End a trial, or a bank of trained heads, that takes longer; by default none."),
    ] = None,
    json: Json = None,
    verbose: Verbose = False,
) -> None:
    """Say how well a head reads the labels out of representations of cached layers."""
    set_up_logging(verbose=verbose)
    output = Output(json)
    from fovcache.builder.request import pick_device
    from fovcache.probes.config import read_config, with_device
    from fovcache.probes.suite import run_suite

    from .profiler.environment import environment

    chosen = with_device(read_config(config), device)
    with progress_bar() as show:
        result = run_suite(
            chosen,
            out,
            show,
            environment=environment(pick_device(chosen.device)),
            isolate=isolate,
            timeout_s=timeout,
        )
    print_suite(output, result)
    output.json(result.document())
    raise typer.Exit(result.exit_status)


@app.command()
def quality(
    cache: quality_options.CacheArgument,
    dataset: quality_options.Dataset = None,
    split: quality_options.Split = None,
    encoder: quality_options.EncoderOfFeatures = None,
    weights: quality_options.WeightsOfFeatures = None,
    pool: quality_options.PoolOfFeatures = None,
    store_dtype: quality_options.DtypeOfFeatures = None,
    recipe: quality_options.Recipe = None,
    layers: Layers = None,
    tokens: quality_options.Tokens = False,
    max_samples: quality_options.MaxSamples = 10_000,
    seed: quality_options.DrawSeed = 0,
    out: quality_options.Out = None,
    device: Device = "auto",
    json: Json = None,
    verbose: Verbose = False,
) -> None:
    """Say how cached features are spread: ranks, isotropy, collapse, how alike layers are; beside random weights."""
    options = dict(locals())
    set_up_logging(verbose=verbose)
    output = Output(json)
    with progress_bar() as show:
        result = measure_quality(cache, out, options, show)
    print_quality(output, result)
    output.json(result.document())


@app.command()
def train(
    config: train_command.Config,
    out: train_command.Out,
    resume: train_command.Resume = False,
    plan: train_command.PlanOnly = False,
    arm: train_command.Arms = None,
    seed: train_command.Seeds = None,
    task: train_command.Tasks = None,
    jobs: train_command.Jobs = 1,
    device: train_command.RunDevice = None,
    json: Json = None,
    verbose: Verbose = False,
) -> None:
    """Train a model and its arms on cached features, and judge the arms."""
    options = dict(locals())
    set_up_logging(verbose=verbose)
    raise typer.Exit(train_command.train(options))


@app.command()
def report(
    results: Annotated[
        Path,
        typer.Argument(
            metavar="DIR|PROFILE.json",
            help="A folder of what `fovbench profile --json`, `fovcache build --json`, `fovbench quality`, "
            "`fovbench ablate` and `fovbench train` wrote; or a profile.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where the page and its figures go; by default into DIR, or fovbench-report of a profile.",
        ),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The cache that is shown; by default what results name.")
    ] = None,
    confusion: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REPRESENTATION:EXPERIMENT",
            help="Also draw the confusion of this cell of an ablation; may be repeated.",
        ),
    ] = None,
    json: Json = None,
) -> None:
    """Make one HTML file, PNGs and Markdown of results: time, cache, ablation, training; or of a profile alone."""
    set_up_logging(verbose=False)
    output = Output(json)
    if results.is_dir():
        files = write_folder_report(results, out or results, cache, output, tuple(confusion or ()))
        pngs = [str(png) for png in files.pngs]
        output.json({"html": str(files.html), "markdown": str(files.markdown), "figures": pngs})
        output.line(str(files.html))
        return
    from .profiler.result import read_profile

    write_profile_report(read_profile(results), out or Path("fovbench-report"), output)


@app.command()
def compare(
    base: Annotated[Path, typer.Argument(metavar="BASE.json", help="What `make bench OUT=BASE.json` wrote before.")],
    head: Annotated[Path, typer.Argument(metavar="HEAD.json", help="The same after the change, on the same machine.")],
    json: Json = None,
) -> None:
    """Compare benchmarks of two versions; exit status 1 for a slowdown that is significant and large."""
    set_up_logging(verbose=False)
    output = Output(json)
    from .regression.comparison import compare as compare_runs
    from .regression.runs import read_runs
    from .regression.table import print_comparison

    comparison = compare_runs(read_runs(base), read_runs(head))
    print_comparison(output, comparison)
    output.json(comparison.document())
    raise typer.Exit(comparison.exit_status)


@app.command()
def check(
    ref: Annotated[str, typer.Argument(metavar="REF", help="A branch, tag or revision: what is compared with.")],
    select: Annotated[str | None, typer.Option(metavar="EXPRESSION", help="Of the benchmarks, as pytest's -k.")] = None,
    suite: Annotated[
        Path, typer.Option(metavar="PATH", help="A file or folder of benchmarks; the working tree's are run for both.")
    ] = Path("tests/benchmarks"),
    processes: Annotated[int, typer.Option(metavar="N", help="A side, at least 10.")] = 10,
    confirming: Annotated[int, typer.Option(metavar="N", help="A side, for what looks slower then; at least 10.")] = 20,
    json: Json = None,
) -> None:
    """Say whether the working tree is slower than REF: both are measured now, in turns."""
    set_up_logging(verbose=False)
    output = Output(json)
    from .regression.check import CheckRequest, run_check
    from .regression.table import print_check

    request = CheckRequest(ref=ref, suite=suite, select=select, processes=processes, confirming=confirming)
    with progress_bar() as show:
        result = run_check(Path.cwd(), request, show)
    print_check(output, result)
    output.json(result.document())
    raise typer.Exit(result.exit_status)


def main() -> None:
    """The entry point of `fovbench`."""
    run_command(app)


if __name__ == "__main__":
    main()
