"""The command `fovcache`: build and keep a cache."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .build_table import print_build, print_derived
from .console import Output, human_bytes, human_seconds, progress_bar, run_command, set_up_logging
from .options import (
    MAX_MEGAPIXELS,
    AllowFileUrls,
    BatchSize,
    CacheDir,
    ComputeDtype,
    Decoder,
    DecodeTimeout,
    Derive,
    Device,
    Downloads,
    Encoder,
    EncoderNames,
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
    Pool,
    PoolOfEach,
    Posterior,
    PosteriorOfEach,
    Rehash,
    Retries,
    RetryFailed,
    ScratchGb,
    ShardMib,
    Size,
    Sources,
    StoreDtype,
    Verbose,
    Weights,
    WeightsOfEach,
    Workers,
    build_options,
    encoder_request,
    encoders_of,
    fetch_options,
    open_cache_at,
    open_damaged_at,
)
from .verify_table import print_verify

app = typer.Typer(
    help="Build and keep a content-addressed cache of frozen features.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.command()
def build(
    sources: Sources,
    cache: CacheDir,
    encoder: EncoderNames,
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
    dataset: Annotated[
        str | None, typer.Option(metavar="NAME", help="The dataset's name; the source's by default.")
    ] = None,
    batch_size: BatchSize = None,
    workers: Workers = None,
    shard_mib: ShardMib = 64,
    retry_failed: RetryFailed = False,
    rehash: Rehash = False,
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
    derive: Derive = None,
    json: Json = None,
    verbose: Verbose = False,
) -> None:
    """Compute what the cache lacks of an encoder's layers over the sources."""
    from .builder.run import run_build
    from .derived.after_build import derive_built
    from .derived.representation import resolve_representation

    encoders = encoders_of(locals())
    representations = [resolve_representation(name) for name in dict.fromkeys(derive or ())]
    set_up_logging(verbose=verbose)
    output = Output(json)
    options = build_options(
        dataset=dataset,
        device=device,
        batch_size=batch_size,
        num_workers=workers,
        shard_mib=shard_mib,
        retry_failed=retry_failed,
        rehash=rehash,
        isolate_decode=isolate_decode,
        decode_timeout_s=decode_timeout,
        max_megapixels=max_megapixels,
        max_hours=max_hours,
        fetch=fetch_options(downloads, retries, fetch_timeout, max_file_mib, scratch_gb),
        allow_file_urls=allow_file_urls,
    )
    with progress_bar() as show:
        storage = open_cache_at(cache, create=True).storage
        report = run_build(storage, sources, encoders, options, show)
        derived = derive_built(storage, report, representations, device=device, on_progress=show)
    print_build(output, report)
    print_derived(output, derived)
    output.json({**report.document(), "derived": [each.document() for each in derived]})
    raise typer.Exit(max(report.exit_status, *(int(each.failed > 0) for each in derived), 0))


@app.command()
def ls(cache: CacheDir, json: Json = None) -> None:
    """List datasets and the features that they have."""
    from .maintain.catalog import Catalog
    from .maintain.listing import list_cache

    set_up_logging(verbose=False)
    output = Output(json)
    listed = list_cache(Catalog(open_cache_at(cache).storage))
    fields = ("encoder", "layer", "pool", "representation", "dtype", "row_shape", "rows")
    rows = [
        (dataset["name"], *("" if feature[field] is None else feature[field] for field in fields), dataset["samples"])
        for dataset in listed
        for feature in dataset["features"]
    ]
    if rows:
        columns = ("dataset", "encoder", "layer", "pool", "representation", "dtype", "row shape", ">rows", ">samples")
        output.table("", columns, rows)
    for dataset in listed:
        if not dataset["features"]:
            output.line(f"dataset {dataset['name']}: {dataset['samples']} samples, no features")
    if not listed:
        output.line("the cache has no dataset yet; `fovcache build` makes one")
    output.json(listed)


@app.command()
def info(
    cache: CacheDir,
    dataset: Annotated[str | None, typer.Argument(help="A dataset's name or digest; the whole cache without.")] = None,
    json: Json = None,
) -> None:
    """Tell where a cache's or a dataset's features come from: recipes, numerics, sizes, failures."""
    from .maintain.catalog import Catalog
    from .maintain.listing import cache_info, dataset_info

    set_up_logging(verbose=False)
    output = Output(json)
    catalog = Catalog(open_cache_at(cache).storage)
    document = dataset_info(catalog, dataset) if dataset else cache_info(catalog)
    for name, value in document.items():
        if isinstance(value, list):
            output.line(f"{name}:")
            for item in value:
                output.line(f"  {item}")
        else:
            output.line(f"{name}: {value}")
    output.json(document)


@app.command()
def verify(
    cache: CacheDir,
    recompute: Annotated[int, typer.Option(metavar="N", min=0, help="Also encode N samples of each recipe again.")] = 0,
    device: Device = "auto",
    json: Json = None,
) -> None:
    """Compare every byte of the cache with its digest."""
    from dataclasses import replace

    from .maintain.verify import verify as run_verify

    set_up_logging(verbose=False)
    output = Output(json)
    storage = open_damaged_at(cache)
    with progress_bar() as show:
        report = run_verify(storage, show)
        if recompute and not report.damaged:
            from .maintain.recompute import recompute_some

            report = replace(report, recomputed=recompute_some(storage, recompute, device=device))
    print_verify(output, report)
    output.json(report.document())
    raise typer.Exit(report.exit_status)


@app.command()
def repair(cache: CacheDir, device: Device = "auto", json: Json = None) -> None:
    """Bring back what verify finds damaged, and nothing else."""
    from .maintain.repair import repair as run_repair

    set_up_logging(verbose=False)
    output = Output(json)
    storage = open_damaged_at(cache)
    with progress_bar() as show:
        report = run_repair(storage, device=device, on_progress=show)
    output.line(
        f"{len(report.damaged)} damaged, {len(report.repaired)} repaired, {report.recomputed} samples encoded again"
    )
    if report.unrepaired:
        for item in report.unrepaired:
            output.line(f"{item.file}: {item.problem.removeprefix(f'{item.file} is damaged: ')}")
    output.json(report.document())
    raise typer.Exit(report.exit_status)


@app.command()
def explain(
    sources: Sources,
    cache: CacheDir,
    encoder: Encoder,
    weights: Weights = None,
    layers: Layers = None,
    pool: Pool = None,
    posterior: Posterior = None,
    size: Size = None,
    fit: Fit = None,
    frames: Frames = None,
    fps: Fps = None,
    decoder: Decoder = "pyav",
    compute_dtype: ComputeDtype = "fp32",
    store_dtype: StoreDtype = "bf16",
    workers: Workers = None,
    retry_failed: RetryFailed = False,
    rehash: Rehash = False,
    json: Json = None,
) -> None:
    """Say why each sample hits or misses: the first field that differs."""
    from .maintain.explain import explain as run_explain

    request = encoder_request(locals())
    set_up_logging(verbose=False)
    output = Output(json)
    options = build_options(num_workers=workers, retry_failed=retry_failed, rehash=rehash)
    report = run_explain(open_cache_at(cache).storage, sources, request, options)
    output.line(f"{report.samples} samples: {report.hits} hit, {report.misses} miss, {report.failed} failed before")
    rows = [(count, v.state, v.field, v.reason, v.uri) for count, v in report.groups() if v.state != "hit"]
    if rows:
        output.table("", (">samples", "state", "field", "reason", "for example"), rows)
    output.json(report.document())


@app.command()
def estimate(
    sources: Sources,
    encoder: Encoder,
    cache: Annotated[str | None, typer.Option("--cache", metavar="DIR", help="A cache, to count what it has.")] = None,
    weights: Weights = None,
    layers: Layers = None,
    pool: Pool = None,
    posterior: Posterior = None,
    size: Size = None,
    fit: Fit = None,
    frames: Frames = None,
    fps: Fps = None,
    decoder: Decoder = "pyav",
    compute_dtype: ComputeDtype = "fp32",
    store_dtype: StoreDtype = "bf16",
    device: Device = "auto",
    batch_size: BatchSize = None,
    workers: Workers = None,
    shard_mib: ShardMib = 64,
    json: Json = None,
) -> None:
    """Say how many bytes and how much time a build would take."""
    from .maintain.estimate import estimate as run_estimate

    request = encoder_request(locals())
    set_up_logging(verbose=False)
    output = Output(json)
    options = build_options(device=device, batch_size=batch_size, num_workers=workers, shard_mib=shard_mib)
    exists = cache is not None and Path(cache).exists()
    result = run_estimate(
        sources, request, options, open_cache_at(cache).storage if cache is not None and exists else None
    )
    output.line(
        f"{result.to_compute} of {result.samples} samples to compute: {human_bytes(result.total_bytes)} in "
        f"{result.num_shards} shards ({human_bytes(result.row_bytes)} a sample), {human_bytes(result.free_bytes)} free"
    )
    output.line(
        f"about {human_seconds(result.seconds)}: decoding {result.decode_s * 1e3:.2f} ms a sample and thread, encoding "
        f"{result.encode_s * 1e3:.2f} ms a sample, measured on {result.measured_on} samples"
    )
    if result.total_bytes > result.free_bytes:
        output.line("warning: that does not fit on the disk")
    output.json(result.document())


@app.command()
def gc(
    cache: CacheDir,
    grace_hours: Annotated[float, typer.Option(min=0, help="Keep garbage that is younger.")] = 24,
    drop: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Give up this dataset first; repeat.")] = None,
    only_newest: Annotated[bool, typer.Option("--only-newest", help="Give up older versions of datasets.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    json: Json = None,
) -> None:
    """Remove what no dataset leads to."""
    from .maintain.gc import collect_garbage

    set_up_logging(verbose=False)
    output = Output(json)
    report = collect_garbage(
        open_cache_at(cache).storage,
        grace_s=grace_hours * 3600,
        drop=tuple(drop or ()),
        only_newest=only_newest,
        dry_run=dry_run,
    )
    verb = "would be removed" if dry_run else "removed"
    output.line(
        f"{len(report.removed)} files {verb}, {human_bytes(report.freed_bytes)}; {report.kept_young} kept, still young"
    )
    output.json(report.document())


@app.command()
def export(
    cache: CacheDir,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Ends in .h5 or .safetensors.")],
    dataset: Annotated[str | None, typer.Option(metavar="NAME")] = None,
    layer: Annotated[str | None, typer.Option()] = None,
    encoder: Annotated[str | None, typer.Option(metavar="NAME|PATH.py:FACTORY")] = None,
    split: Annotated[str | None, typer.Option()] = None,
    pool: Pool = None,
    store_dtype: Annotated[str | None, typer.Option(metavar="bf16|fp16|fp32")] = None,
    recipe: Annotated[str | None, typer.Option(metavar="DIGEST", help="The beginning of a recipe's digest.")] = None,
    representation: Annotated[str | None, typer.Option(metavar="NAME", help="What was derived of the layer.")] = None,
    weights: Annotated[str | None, typer.Option(metavar="DIR|HUB_ID|random:SEED", help="As its build had.")] = None,
    json: Json = None,
) -> None:
    """Write one feature of a dataset to a file, with its labels and where it came from."""
    from .maintain.export import export as run_export

    set_up_logging(verbose=False)
    output = Output(json)
    opened = open_cache_at(cache)
    names = ("layer", "encoder", "dataset", "split", "pool", "store_dtype", "recipe", "representation", "weights")
    asked = locals()
    features = opened.features(**{name: asked[name] for name in names})
    report = run_export(opened.storage, features, out)
    widened = f", widened from {report.stored_dtype}" if report.was_widened else ""
    output.line(f"{report.path}: x {report.shape} {report.dtype}{widened}, {human_bytes(report.size_bytes)}")
    output.json(report.document())


def main() -> None:
    """The entry point of `fovcache`."""
    run_command(app)


if __name__ == "__main__":
    main()
