"""The ``medfilip`` command: one subcommand a job, settings as ``key=value``, one clear sentence for every error."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperCommand

from medfilip._version import __version__
from pipelines.endpoint_commands import audit, diagnose, keys
from pipelines.guard import guarded
from pipelines.job import JOBS, Job
from pipelines.knowledge_commands import knowledge
from pipelines.model_commands import convert_weights, export_model
from pipelines.protocol_commands import named_protocol, quoted, show_protocols
from pipelines.reproduce_command import reproduce

if TYPE_CHECKING:
    from medfilip.core.settings import Settings

app = typer.Typer(
    name="medfilip",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help=(
        "From raw radiology reports and chest X-rays to a served zero-shot diagnosis model.\n\n"
        "The way of the data: [b]ingest → extract → inject → pretrain → evaluate → serve[/b]. "
        "[b]medfilip demo[/b] walks it once on synthetic studies; [b]medfilip JOB --help[/b] lists a job's settings. "
        "A job that is started again resumes where it was killed, and does nothing if it had finished."
    ),
)

Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", show_default=False, help="Settings.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="YAML file with settings.", show_default=False)]
PrintConfig = Annotated[bool, typer.Option("--print-config", help="Print the settings as YAML and exit.")]
NewRun = Annotated[bool, typer.Option("--new-run", help="Start a new run even if one is unfinished or finished.")]
_SETTING = re.compile(r"[a-z_.]+=")
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


_EVALUATIONS = {
    "zero-shot": "evaluate",
    "extraction": "evaluate_extraction",
    "protocol": "evaluate_protocol",
    "ablation": "ablation",
}
"""What `medfilip evaluate` can measure: the word behind it, and its job."""
_TYPED = "medfilip.typed"


class JobCommand(TyperCommand):
    """A subcommand whose help ends with its settings; they are loaded only when help is asked for."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Keep the words that were typed: help may be asked for behind one of them."""
        ctx.meta[_TYPED] = tuple(args)
        return super().parse_args(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the usual help, then key, default and meaning of every setting."""
        from pipelines.console import settings_table

        super().format_help(ctx, formatter)
        name, console = (self.name or "").replace("-", "_"), Console()
        if name != "evaluate":
            console.print(settings_table(_settings_of(name), name))
            return
        for word in [word for word in ctx.meta.get(_TYPED, ()) if word in _EVALUATIONS] or _EVALUATIONS:
            console.print(f"\n[bold]evaluate {word}[/]")
            console.print(settings_table(_settings_of(_EVALUATIONS[word]), _EVALUATIONS[word]))


def _settings_of(command: str) -> type[Settings]:
    if command in JOBS:
        return JOBS[command].load().SETTINGS
    from serve.settings import ServeSettings

    return ServeSettings


def _job_command(job: Job) -> Callable[..., None]:
    def command(
        overrides: Overrides = None,
        config: ConfigFile = None,
        print_config: PrintConfig = False,
        new_run: NewRun = False,
        debug: Debug = False,
    ) -> None:
        run_job(job.name, overrides or [], config=config, print_config=print_config, new_run=new_run, debug=debug)

    command.__doc__ = job.summary
    return command


def extract(
    overrides: Overrides = None,
    config: ConfigFile = None,
    print_config: PrintConfig = False,
    new_run: NewRun = False,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Say what it would take (a short probe included), and stop.")
    ] = False,
    retry_rejected: Annotated[
        bool, typer.Option("--retry-rejected", help="Read again only the sentences whose engine failed.")
    ] = False,
    include_quarantined: Annotated[
        bool,
        typer.Option("--include-quarantined", help="With --retry-rejected: those too that killed an engine twice."),
    ] = False,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Let engine=openai send sentences to openai.base_url.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Extract findings from reports: with rules, vLLM, an OpenAI-compatible endpoint, or rules and a model together."""
    flags = {
        "estimate": estimate,
        "retry_rejected": retry_rejected,
        "include_quarantined": include_quarantined,
        "allow_remote": allow_remote,
    }
    given = [*(overrides or []), *(f"{name}=true" for name, on in flags.items() if on)]
    run_job("extract", given, config=config, print_config=print_config, new_run=new_run, debug=debug)


def inject(
    overrides: Overrides = None,
    config: ConfigFile = None,
    print_config: PrintConfig = False,
    new_run: NewRun = False,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Let llm.engine=openai send names of findings to openai.base_url.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Write training pairs from findings, with visual-attribute knowledge."""
    given = [*(overrides or []), *(["allow_remote=true"] if allow_remote else [])]
    run_job("inject", given, config=config, print_config=print_config, new_run=new_run, debug=debug)


def finetune(
    overrides: Overrides = None,
    config: ConfigFile = None,
    print_config: PrintConfig = False,
    new_run: NewRun = False,
    data: Annotated[str | None, typer.Option(help="With protocol=NAME: the folder of the data set.")] = None,
    checkpoint: Annotated[str | None, typer.Option(help="The checkpoint, as checkpoint=….")] = None,
    debug: Debug = False,
) -> None:
    """Measure the transfer of a checkpoint: probe, full fine-tuning, segmentation, at 1, 10, 100 % of labels."""
    given = [*(overrides or []), *_places(data=data, checkpoint=checkpoint)]
    run_job("finetune", given, config=config, print_config=print_config, new_run=new_run, debug=debug)


def _places(**given: str | None) -> list[str]:
    """Return places that were given as options as settings."""
    return [f"{key}={quoted(place)}" for key, place in given.items() if place is not None]


_WITH_FLAGS: dict[str, Callable[..., None]] = {"extract": extract, "inject": inject, "finetune": finetune}

for _job in JOBS.values():
    if _job.name != "evaluate":
        # A job on a cluster is started by its own name; people find an evaluation behind 'evaluate'.
        hidden = _job.name in _EVALUATIONS.values()
        typed = _job.name.replace("_", "-")
        started = _WITH_FLAGS.get(_job.name) or _job_command(_job)
        if not hidden and typed != _job.name:
            app.command(typed, cls=JobCommand)(started)
            hidden = True
        app.command(_job.name, cls=JobCommand, hidden=hidden)(started)


app.add_typer(knowledge, name="knowledge")
app.add_typer(keys, name="keys")
app.add_typer(audit, name="audit")
app.command("export-model")(export_model)
app.command("convert-weights")(convert_weights)
app.command("reproduce")(reproduce)
app.command("diagnose")(diagnose)


@app.command(cls=JobCommand)
def evaluate(
    overrides: Overrides = None,
    config: ConfigFile = None,
    print_config: PrintConfig = False,
    new_run: NewRun = False,
    errors: Annotated[bool, typer.Option("--errors", help="With 'extraction': write errors.html too.")] = False,
    data: Annotated[str | None, typer.Option(help="With 'protocol': the folder of the data set.")] = None,
    checkpoint: Annotated[str | None, typer.Option(help="The checkpoint, as checkpoint=….")] = None,
    protocols: Annotated[bool, typer.Option("--list", help="With 'protocol': show those that there are.")] = False,
    debug: Debug = False,
) -> None:
    """Measure with intervals: 'evaluate zero-shot KEY=VALUE…' a model, or 'extraction', 'ablation', 'protocol NAME'.

    'evaluate extraction' measures findings, 'evaluate ablation' what each part of the method is worth, and
    'evaluate protocol NAME --data FOLDER --checkpoint RUN' a model on a public data set with locked splits.
    """
    given = list(overrides or [])
    word = given.pop(0) if given and given[0] in _EVALUATIONS else "zero-shot"
    if word == "protocol":
        if protocols or not given:
            guarded(show_protocols, debug=debug)
            return
        given = named_protocol(given)
    given += _places(data=data, checkpoint=checkpoint)
    given += ["errors=true"] if errors else []
    name = _EVALUATIONS[word]
    run_job(name, given, config=config, print_config=print_config, new_run=new_run, debug=debug)


@app.command()
def demo(
    root: Annotated[Path, typer.Option(help="Folder for everything the demo writes.")] = Path("demo"),
    debug: Debug = False,
) -> None:
    """Walk the whole way on 200 synthetic studies: phantoms to an answering endpoint, in minutes, on a laptop."""
    from pipelines.demo import run_demo

    guarded(lambda: run_demo(root), debug=debug)


@app.command("make-default-model")
def make_default_model(
    root: Annotated[Path, typer.Option(help="Folder for the runs.")] = Path("default-model"),
    out: Annotated[Path | None, typer.Option(help="Where to write it; by default into the package.")] = None,
    debug: Debug = False,
) -> None:
    """Train the small synthetic checkpoint of the package again; an hour or so on two cores."""
    from pipelines.default_model import make_default_model as make

    guarded(lambda: Console(highlight=False).print(f"written   {make(root, out)}"), debug=debug)


@app.command("make-extractor-mini")
def make_extractor_mini(
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", show_default=False, help="Settings.")
    ] = None,
    root: Annotated[Path, typer.Option(help="Folder for training set and states.")] = Path("extractor-mini"),
    out: Annotated[Path | None, typer.Option(help="Where to write it; by default into the package.")] = None,
    debug: Debug = False,
) -> None:
    """Train the small extractor of the package again; minutes on a GPU, many hours without one."""

    def make() -> None:
        from medfilip.core.settings import load_settings
        from pipelines.extractor_mini import ExtractorMiniSettings
        from pipelines.extractor_mini import make_extractor_mini as make_it

        own = ExtractorMiniSettings().model_dump(mode="json")
        settings = load_settings(ExtractorMiniSettings, "extractor_mini", base=own, overrides=overrides or ())
        Console(highlight=False).print(f"written   {make_it(root, out, settings)}")

    guarded(make, debug=debug)


@app.command(cls=JobCommand)
def serve(
    checkpoint: Annotated[
        str | None,
        typer.Argument(
            help="Checkpoint folder, run of a pretrain job, or folder of runs; by default the small synthetic "
            "checkpoint of the package.",
            show_default=False,
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", show_default=False, help="Settings.")
    ] = None,
    config: ConfigFile = None,
    print_config: PrintConfig = False,
    debug: Debug = False,
) -> None:
    """Serve a checkpoint on this machine until interrupted: POST /v1/diagnose, and a page at /."""
    from serve.local import serve_until_interrupted

    given = list(overrides or [])
    if checkpoint is not None and _SETTING.match(checkpoint):
        given.insert(0, checkpoint)
        checkpoint = None
    guarded(lambda: serve_until_interrupted(checkpoint, given, config=config, print_config=print_config), debug=debug)


@app.command()
def export(
    findings: Annotated[str, typer.Argument(help="Run of an extract job.")],
    out: Annotated[Path, typer.Argument(help="Parquet file to write.")],
    profile: Annotated[
        str | None, typer.Option(help="Coding habits to apply: openi. Without it, what the reports say.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Write a run's resolved findings as one Parquet file of predictions, as scorers of Open-I read them."""
    from pipelines.export import export_predictions

    guarded(lambda: export_predictions(findings, out, profile), debug=debug)


@app.command()
def review(
    findings: Annotated[str, typer.Argument(help="Run of an extract job with engine=auto.")],
    gold: Annotated[Path, typer.Option(help="File that decisions are added to; it quotes reports.")] = Path(
        "review.gold.jsonl"
    ),
    reviewer: Annotated[str, typer.Option(help="Your name in it.", show_default=False)] = "",
    limit: Annotated[int | None, typer.Option(min=1, help="Sentences to look at.", show_default=False)] = None,
    debug: Debug = False,
) -> None:
    """Decide sentences that rules and model read differently, most worth a minute first; they become gold."""
    from pipelines.review import review as look

    guarded(lambda: look(findings, gold, reviewer=reviewer, limit=limit), debug=debug)


@app.command()
def submit(
    job: Annotated[str, typer.Argument(help=f"One of: {', '.join(JOBS)}.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", show_default=False, help="Settings of the job.")
    ] = None,
    address: Annotated[
        str, typer.Option(help="Ray dashboard, for example http://head:8265.")
    ] = "http://127.0.0.1:8265",
    config: ConfigFile = None,
    new_run: NewRun = False,
    debug: Debug = False,
) -> None:
    """Run a job on a Ray cluster: ship this package, follow the log, return the job's exit code."""
    from pipelines.submit import submit_job

    guarded(
        lambda: sys.exit(submit_job(job, overrides or [], address=address, config=config, new_run=new_run)), debug=debug
    )


@app.command()
def version() -> None:
    """Print the version."""
    Console().print(__version__)


def run_job(
    name: str,
    overrides: list[str],
    *,
    config: Path | None = None,
    print_config: bool = False,
    new_run: bool = False,
    debug: bool = False,
) -> None:
    """Load a job's settings, run it and print its outcome."""

    def work() -> None:
        from medfilip.core.settings import load_settings, to_yaml
        from pipelines.console import print_outcome

        module = JOBS[name].load()
        settings = load_settings(module.SETTINGS, name, file=config, overrides=overrides)
        if print_config:
            sys.stdout.write(to_yaml(settings))
            return
        outcome = module.run(settings, new_run=new_run)
        if outcome is None:
            return
        print_outcome(name, outcome)
        if hasattr(module, "show"):
            module.show(outcome)

    guarded(work, debug=debug)


def main() -> None:
    """Entry point of the ``medfilip`` command."""
    app()


if __name__ == "__main__":
    main()
