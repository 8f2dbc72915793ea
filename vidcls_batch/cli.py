"""The command `vidcls`."""

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from vidcls_batch.config import config_json_schema, load_config
from vidcls_batch.errors import (
    CheckpointError,
    ClusterError,
    ConfigError,
    IncompleteRunError,
    ManifestError,
    PreflightError,
    RunMismatchError,
    StorageError,
    VerificationError,
    VidclsError,
)

if TYPE_CHECKING:
    from vidcls_batch.json_progress import JsonProgress
    from vidcls_batch.progress import ConsoleProgress

# What a script can tell from the exit status; anything else that the tool raises on purpose is 1.
EXIT_CODES: dict[type[VidclsError], int] = {
    ConfigError: 2,
    ManifestError: 2,
    CheckpointError: 2,
    IncompleteRunError: 3,
    RunMismatchError: 4,
    VerificationError: 5,
    StorageError: 6,
    ClusterError: 7,
    PreflightError: 8,
}
EXIT_INTERRUPTED = 130

app = typer.Typer(
    help="Label video datasets at scale: manifest in, one Parquet row per clip out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
out = Console(highlight=False, soft_wrap=True)

ConfigArg = Annotated[Path, typer.Argument(help="The run's YAML config.", show_default=False)]
RunArg = Annotated[str, typer.Argument(help="A run folder: a path or any fsspec URI.", show_default=False)]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Override one key, e.g. --set members.0.precision=bf16. Repeatable.")
]
Format = Literal["pt2", "onnx"]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
LogFormatOption = Annotated[
    Literal["text", "json"],
    typer.Option("--log-format", envvar="VIDCLS_LOG_FORMAT", help="stderr for people, or one JSON object a line."),
]
EndpointOption = Annotated[
    str | None, typer.Option("--endpoint-url", help="S3 endpoint; default: AWS_ENDPOINT_URL or Amazon.")
]


@app.command(epilog="Example: vidcls manifest 's3://bucket/clips/**/*.mp4' -o clips.parquet")
def manifest(
    prefix: Annotated[str, typer.Argument(help="A folder or glob of videos.", show_default=False)],
    output: Annotated[str, typer.Option("-o", "--output", help="Where to write: .parquet, .csv or .jsonl.")],
    endpoint_url: EndpointOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the videos below PREFIX into a manifest file."""
    from vidcls_batch.dataset.listing import write_manifest

    with _failures_told(as_json):
        count = write_manifest(prefix, output, options=_options(endpoint_url))
        _tell({"videos": count, "manifest": output}, f"{count:,} videos listed in {output}", as_json)


@app.command(epilog="Example: vidcls plan configs/demo.yaml --prices configs/prices/example.yaml")
def plan(
    config: ConfigArg,
    overrides: SetOption = None,
    check: Annotated[
        bool, typer.Option("--check", help="For CI: write nothing into the run folder; exit 8 on what would hurt it.")
    ] = False,
    sample: Annotated[int, typer.Option(help="Clips to probe; 0 only plans.", min=0)] = 24,
    seconds: Annotated[float, typer.Option(help="Time for probing and timing the members.", min=1)] = 60.0,
    seed: Annotated[int, typer.Option(help="Chooses the sample.")] = 0,
    max_failures: Annotated[float, typer.Option(help="Share of failing clips that is borne.", min=0, max=1)] = 0.2,
    prices: Annotated[Path | None, typer.Option(help="A price table, see configs/prices/.")] = None,
    log_format: LogFormatOption = "text",
    as_json: JsonOption = False,
) -> None:
    """Check all a run needs, cut its manifest into units, probe a sample and say what the run will take."""
    from vidcls_batch.preflight.command import plan_and_probe
    from vidcls_batch.preflight.preflight import PreflightSettings

    settings = PreflightSettings(num_clips=sample, seconds=seconds, seed=seed, most_failures=max_failures)
    log = _log(log_format)
    with _failures_told(as_json, log=log), log as progress:
        loaded = load_config(config, overrides=overrides or ())
        log.about(loaded.run.path)
        report = plan_and_probe(
            loaded,
            settings=settings,
            prices=prices,
            leave_no_trace=check,
            progress=progress,
        )
        _tell(report.as_json(), str(report), as_json)
        if check:
            report.require_fit()


@app.command(epilog="Example: vidcls run configs/demo.yaml --set run=s3://bucket/runs/demo")
def run(
    config: ConfigArg,
    overrides: SetOption = None,
    log_format: LogFormatOption = "text",
    as_json: JsonOption = False,
) -> None:
    """Label every clip that has no row yet, then verify the table. The same command again resumes."""
    from vidcls_batch.labeling_run import run_labeling

    log = _log(log_format)
    with _failures_told(as_json, resume=f"vidcls run {config}", log=log), log as progress:
        loaded = load_config(config, overrides=overrides or ())
        log.about(loaded.run.path)
        outcome = run_labeling(loaded, progress=progress)
        _tell(asdict(outcome), str(outcome), as_json)


@app.command(epilog="Example: vidcls submit configs/kinetics400_ensemble.yaml --address http://head:8265")
def submit(
    config: ConfigArg,
    address: Annotated[str, typer.Option("--address", help="The cluster's job server, http://HEAD:8265.")],
    overrides: SetOption = None,
    environment: Annotated[
        list[str] | None, typer.Option("--env", help="NAME=VALUE for the job; no credentials. Repeatable.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="Show the job's output until it ends.")] = True,
    stop: Annotated[bool, typer.Option("--stop", help="Stop the job of this run instead.")] = False,
    log_format: LogFormatOption = "text",
    as_json: JsonOption = False,
) -> None:
    """Run CONFIG on a Ray cluster and exit as the run does. The same again resumes, or follows a running job."""
    from vidcls_batch.submission import stop_run, submit_run

    pairs = [pair.partition("=") for pair in environment or ()]
    log = _log(log_format)
    with _failures_told(as_json, resume=f"vidcls submit {config} --address {address}", log=log), log:
        if wrong := next((name for name, equals, _ in pairs if not name or not equals), None):
            raise ConfigError(f"--env {wrong!r} is not NAME=VALUE")
        loaded = load_config(config, overrides=overrides or ())
        log.about(loaded.run.path)
        if stop:
            outcome = stop_run(loaded, address=address)
        else:
            outcome = submit_run(
                loaded,
                address=address,
                environment={name: value for name, _, value in pairs},
                follow=follow,
                log_format=log_format,
                say=log.say,
                write=partial(typer.echo, nl=False, err=True),
            )
        _tell(asdict(outcome), str(outcome), as_json)
        if outcome.exit_code:
            raise typer.Exit(outcome.exit_code)


@app.command(epilog="Example: vidcls status runs/k400 --json")
def status(run_folder: RunArg, endpoint_url: EndpointOption = None, as_json: JsonOption = False) -> None:
    """How far a run is: clips by status, units committed, finished or not."""
    from vidcls_batch.dataset.status import run_status
    from vidcls_batch.storage import open_store

    with _failures_told(as_json):
        summary = run_status(open_store(run_folder, options=_options(endpoint_url)))
        _tell(asdict(summary), str(summary), as_json)


@app.command(epilog="Example: vidcls events runs/k400 --kind block_retried,quarantined")
def events(
    run_folder: RunArg,
    kinds: Annotated[str | None, typer.Option("--kind", help="Only these, comma-separated.")] = None,
    endpoint_url: EndpointOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines instead of text.")] = False,
) -> None:
    """What happened in a run beside its rows: starts, commits, retries, kills, quarantines, lost nodes."""
    from vidcls_batch.dataset.events import event_line, read_events
    from vidcls_batch.storage import open_store

    wanted = None if kinds is None else {k.strip() for k in kinds.split(",")}
    with _failures_told(as_json):
        for event in read_events(open_store(run_folder, options=_options(endpoint_url))):
            if wanted is None or event.get("event") in wanted:
                typer.echo(json.dumps(event, ensure_ascii=False) if as_json else event_line(event))


@app.command(epilog="Example: vidcls verify s3://bucket/runs/k400")
def verify(run_folder: RunArg, endpoint_url: EndpointOption = None, as_json: JsonOption = False) -> None:
    """Prove that the table holds exactly one row for each planned clip; exits 5 when it does not."""
    from vidcls_batch.dataset.plan import require_plan
    from vidcls_batch.dataset.verify import verify_run
    from vidcls_batch.storage import open_store

    with _failures_told(as_json):
        store = open_store(run_folder, options=_options(endpoint_url))
        verification = verify_run(store, require_plan(store))
        _tell(asdict(verification) | {"ok": verification.ok}, str(verification), as_json)
        if not verification.ok:
            raise typer.Exit(EXIT_CODES[VerificationError])


@app.command(epilog="Example: vidcls retry runs/k400 --status fetch_error,timeout")
def retry(
    run_folder: RunArg,
    statuses: Annotated[str, typer.Option("--status", help="Which failures to try again, comma-separated.")],
    overrides: SetOption = None,
    endpoint_url: EndpointOption = None,
    log_format: LogFormatOption = "text",
    as_json: JsonOption = False,
) -> None:
    """Label the failed clips of a finished run again; their units are rewritten whole, other rows stay as they are."""
    from vidcls_batch.retry import retry_failed

    log = _log(log_format)
    log.about(run_folder)
    with _failures_told(as_json, resume=f"vidcls retry {run_folder} --status {statuses}", log=log), log as progress:
        outcome = retry_failed(
            run_folder,
            statuses=tuple(s.strip() for s in statuses.split(",") if s.strip()),
            options=_options(endpoint_url),
            overrides=overrides or (),
            progress=progress,
        )
        _tell(asdict(outcome), str(outcome), as_json)


@app.command(epilog="Example: vidcls relabel runs/k400 --config new_labels.yaml --out runs/k400-new")
def relabel(
    run_folder: RunArg,
    config: Annotated[Path, typer.Option("--config", help="What the labels shall be made by.")],
    out_folder: Annotated[str, typer.Option("--out", help="The run folder of the new labels.")],
    overrides: SetOption = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Threads; default: one per CPU.")] = None,
    endpoint_url: EndpointOption = None,
    log_format: LogFormatOption = "text",
    as_json: JsonOption = False,
) -> None:
    """Label a finished run's clips again from its stored evidence: new labels, prompts, weights or rule; no video."""
    from vidcls_batch.relabel import relabel_run

    log = _log(log_format)
    log.about(out_folder)
    resume = f"vidcls relabel {run_folder} --config {config} --out {out_folder}"
    with _failures_told(as_json, resume=resume, log=log), log as progress:
        outcome = relabel_run(
            run_folder,
            config=load_config(config, overrides=[*(overrides or ()), f"run.path={out_folder}"]),
            options=_options(endpoint_url),
            progress=progress,
            num_workers=workers,
        )
        _tell(asdict(outcome), str(outcome), as_json)


@app.command(epilog="Example: vidcls calibrate runs/k400 --truth truth.csv --out calibration.json --plot rel.png")
def calibrate(
    run_folder: RunArg,
    truth: Annotated[Path, typer.Option("--truth", help="CSV or Parquet with clip_id and the true label.")],
    out_file: Annotated[Path, typer.Option("--out", help="The calibration file to write.")],
    method: Annotated[str, typer.Option("--method", help="temperature, vector or isotonic.")] = "temperature",
    few_shot: Annotated[
        bool, typer.Option("--few-shot", help="More ways for zero-shot members; the best wins.")
    ] = False,
    stacking: Annotated[bool, typer.Option("--stacking", help="Learn weights per member and label.")] = False,
    folds: Annotated[int, typer.Option("--folds", help="Parts the labeled clips are held out in.")] = 5,
    column: Annotated[str, typer.Option("--column", help="The truth file's column of labels.")] = "label",
    plot: Annotated[Path | None, typer.Option("--plot", help="Write reliability diagrams as a PNG.")] = None,
    endpoint_url: EndpointOption = None,
    as_json: JsonOption = False,
) -> None:
    """Learn from clips with known labels what a run's scores are worth; for ensemble.calibration."""
    from vidcls_batch.calibrate import calibrate_run

    with _failures_told(as_json):
        report = calibrate_run(
            run_folder,
            truth_path=str(truth),
            out=str(out_file),
            options=_options(endpoint_url),
            method=method,
            few_shot=few_shot,
            stacking=stacking,
            folds=folds,
            column=column,
            plot=None if plot is None else str(plot),
        )
        _tell(asdict(report), str(report), as_json)


@app.command("map", epilog="Example: vidcls map config.yaml --member videomae --out mapping.yaml")
def propose_map(
    config: ConfigArg,
    member: Annotated[str, typer.Option("--member", help="Whose labels are to be mapped to the label set.")],
    out_file: Annotated[Path, typer.Option("--out", help="The mapping to write, for you to review.")],
    encoder: Annotated[
        str | None, typer.Option("--encoder", help="Zero-shot member whose text encoder compares; default: the first.")
    ] = None,
    unmapped_below: Annotated[
        float, typer.Option("--unmapped-below", help="Cosine below which nothing is proposed.")
    ] = 0.0,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Propose which of the run's labels a member's labels stand for; nothing uses it before it is reviewed."""
    from vidcls_batch.propose_mapping import propose_mapping

    with _failures_told(as_json):
        proposal = propose_mapping(
            load_config(config, overrides=overrides or ()),
            member=member,
            encoder=encoder,
            unmapped_below=unmapped_below,
            out=out_file,
        )
        _tell(asdict(proposal), str(proposal), as_json)


@app.command(epilog="Example: vidcls peek clip.mp4 --config configs/demo.yaml --sheet frames.png")
def peek(
    video: Annotated[str, typer.Argument(help="One video: a path or any fsspec URI.", show_default=False)],
    config: Annotated[Path, typer.Option("--config", help="The run's YAML config; its run and manifest are not used.")],
    start_s: Annotated[float | None, typer.Option("--start-s", help="Where the clip starts, seconds.")] = None,
    end_s: Annotated[float | None, typer.Option("--end-s", help="Where the clip ends, seconds.")] = None,
    sheet: Annotated[Path | None, typer.Option("--sheet", help="Write the frames the models saw as a PNG.")] = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Label one clip in this process, without Ray, and show what each member says of it."""
    from vidcls_batch.peek import peek_at

    with _failures_told(as_json):
        seen = peek_at(
            video, config=load_config(config, overrides=overrides or ()), start_s=start_s, end_s=end_s, sheet=sheet
        )
        _tell(seen.as_json(), str(seen), as_json)
        if not seen.ok:
            raise typer.Exit(1)


@app.command(epilog="Example: vidcls export runs/vmae/final --family videomae --to onnx -o vmae.onnx")
def export(
    checkpoint: Annotated[str, typer.Argument(help="As in a config: hub id, folder, file or URI.", show_default=False)],
    family: Annotated[str, typer.Option("--family", help="The checkpoint's family, see `vidcls models`.")],
    to: Annotated[Format, typer.Option("--to", help="pt2 (torch.export) or onnx.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write.")],
    labels: Annotated[
        str | None,
        typer.Option("--labels", help="A label set's name or file: of the head, or what a zero-shot member scores."),
    ] = None,
    prompts: Annotated[str | None, typer.Option("--prompts", help="A prompt set's name or file.")] = None,
    revision: Annotated[str | None, typer.Option("--revision", help="Hub revision.")] = None,
    frames: Annotated[int | None, typer.Option("--frames", help="For families that take any number of them.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a member as one file that scores without its family's code; refused when its logits differ."""
    from vidcls_batch.models.export import ExportSource, export_checkpoint

    source = ExportSource(
        checkpoint=checkpoint, family=family, labels=labels, prompts=prompts, revision=revision, num_frames=frames
    )
    with _failures_told(as_json):
        report = export_checkpoint(source, output, to=to)
        _tell(asdict(report), str(report), as_json)


@app.command(epilog="Example: vidcls models --json")
def models(as_json: JsonOption = False) -> None:
    """List the model families a config can name."""
    from vidcls_batch.models.registry import list_families

    families = list_families()
    if as_json:
        _tell([asdict(f) for f in families], "", as_json)
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("family", "model", "M params", "GFLOPs/view", "sampling", "views", "K400 top-1", "licence", "needs"):
        table.add_column(column, no_wrap=True)
    for family in families:
        device = "-" if "cpu" in family.devices else "a CUDA device"
        needs = device if family.available else f"pip install 'vidcls-batch[{family.extra}]'"
        for model in family.models:
            table.add_row(
                family.family,
                model.name,
                f"{model.parameters_m:g}",
                _or_dash(model.gflops_per_view),
                family.sampling,
                model.views,
                _or_dash(model.k400_top1),
                family.licence or "-",
                needs,
            )
        if not family.models:  # nobody published weights: exported files, networks trained here
            table.add_row(family.family, "your own", "-", "-", family.sampling, "-", "-", "-", needs)
    # Names cut off to fit a narrow terminal help nobody: let it wrap or scroll.
    Console(width=max(out.width, 180), highlight=False).print(table)
    out.print("Accuracies are the authors' own; --json names their sources.")


@app.command(epilog="Example: vidcls config-schema > vidcls.schema.json")
def config_schema() -> None:
    """Print the JSON Schema of config files, for editors that complete and check YAML."""
    typer.echo(json.dumps(config_json_schema(), indent=2))


@contextmanager
def _failures_told(
    as_json: bool, *, resume: str | None = None, log: "ConsoleProgress | JsonProgress | None" = None
) -> Iterator[None]:
    """Turn what the tool raises on purpose into a message and an exit status; a bug keeps its traceback."""
    # A preempted machine's SIGTERM ends a run as cleanly as Ctrl-C.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    except VidclsError as error:
        code = next((c for kind, c in EXIT_CODES.items() if isinstance(error, kind)), 1)
        if as_json:
            typer.echo(json.dumps({"error": type(error).__name__, "message": str(error), "exit_code": code}))
        (log or _log("text")).failed(error, exit_code=code)
        raise typer.Exit(code) from error
    except KeyboardInterrupt:
        (log or _log("text")).interrupted(resume=resume, exit_code=EXIT_INTERRUPTED)
        raise typer.Exit(EXIT_INTERRUPTED) from None


def _log(log_format: str) -> "ConsoleProgress | JsonProgress":
    """Where a command tells how it goes."""
    if log_format == "json":
        from vidcls_batch.json_progress import JsonProgress

        return JsonProgress()
    from vidcls_batch.progress import ConsoleProgress

    return ConsoleProgress()


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _tell(facts: Any, text: str, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(facts, indent=2, default=str))
    else:
        out.print(text, markup=False)


def _options(endpoint_url: str | None) -> Any:
    from vidcls_batch.config import RunConfig
    from vidcls_batch.storage import storage_options

    return storage_options(RunConfig(path="-", endpoint_url=endpoint_url))


def _or_dash(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"
