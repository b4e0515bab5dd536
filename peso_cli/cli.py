"""The command line: parse, compose, call one function. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peso_cli import __version__, processes
from peso_cli.errors import InputError, RunError

if TYPE_CHECKING:
    from peso_cli.config.compose import Composed

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Train and study LLM-based generative recommenders that keep learning, stage by stage.",
)
data_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Make stages of raw interactions, and look into them."
)
app.add_typer(data_app, name="data")
track_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Send what runs recorded for W&B.")
app.add_typer(track_app, name="track")

# Typer may carry a click of its own; its public exceptions lead to the right base class in either case.
_UsageError: Any = typer.BadParameter.__bases__[0]
_INTERRUPTED = 130
_INTERSPERSED = {"ignore_unknown_options": True}


def _complete(incomplete: str) -> list[str]:
    """Complete group choices (`method=p` to `method=peso`) and group names, from the names of the config files."""
    conf = Path(__file__).resolve().parent / "_conf"
    conf = conf if conf.is_dir() else conf.parents[1] / "conf"
    choices = [f"{path.parent.name}={path.stem}" for path in sorted(conf.glob("*/*.yaml"))]
    return [choice for choice in [*choices, "stage=", "seed=", "output="] if choice.startswith(incomplete)]


Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="OVERRIDES",
        help="Hydra overrides: stage=3 method=peso dataset.path=... (see them all: peso config)",
        autocompletion=_complete,
        show_default=False,
    ),
]
ConfigDir = Annotated[
    Path | None, typer.Option("--config-dir", help="A config folder of your own, searched before the built-in one.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]


@app.command(context_settings=_INTERSPERSED)
def train(
    overrides: Overrides = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Move damaged stages, and those made from them, aside; train them anew.")
    ] = False,
    config_dir: ConfigDir = None,
    json: Json = False,
) -> None:
    """Train a stage (stage=3, stage=1..3, stage=all); the stages before it come into being first."""
    from peso_cli.commands.train import train as run

    run(_compose(overrides, config_dir), json, repair)


@app.command(context_settings=_INTERSPERSED)
def evaluate(overrides: Overrides = None, config_dir: ConfigDir = None, json: Json = False) -> None:
    """Score a trained stage on any stage's users: evaluation.on=[1,2,3] evaluation.split=valid."""
    from peso_cli.commands.evaluate import evaluate as run

    run(_compose(overrides, config_dir), json)


@app.command(context_settings=_INTERSPERSED)
def sweep(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="OVERRIDES",
            help="Overrides, several values for a key: method=peso,single seed=1,2,3 launcher=joblib",
            autocompletion=_complete,
            show_default=False,
        ),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Show the runs and how they stand; carry out none.")] = False,
    config_dir: ConfigDir = None,
    json: Json = False,
) -> None:
    """Carry out every combination of settings; given again, only what is missing."""
    from peso_cli.commands.sweep import sweep as run

    run(overrides or [], config_dir, plan, json)


@app.command(context_settings=_INTERSPERSED)
def recommend(
    overrides: Overrides = None,
    user: Annotated[str | None, typer.Option(help="A user of the dataset.")] = None,
    history: Annotated[str | None, typer.Option(help="Item ids, oldest first, separated by commas.")] = None,
    k: Annotated[int, typer.Option("--k", min=1, help="How many items.")] = 10,
    why: Annotated[
        bool,
        typer.Option("--why", help="Also show what carried each: the 3 strongest items of the history; --why 5: 5."),
    ] = False,
    config_dir: ConfigDir = None,
    json: Json = False,
) -> None:
    """Show the best next items for a user of the dataset or for a history given by hand."""
    from peso_cli.commands.recommend import recommend as run

    words, strongest = _strongest(overrides or []) if why else (overrides, None)
    run(_compose(words, config_dir), user, history, k, json, strongest)


def _strongest(words: list[str]) -> tuple[list[str], int]:
    """Take the number of `--why 5` out of the words of a command; an option can't have a value or none."""
    numbers = [word for word in words if word.isdecimal()]
    if len(numbers) > 1 or numbers == ["0"]:
        raise InputError(f"--why {' '.join(numbers)}: give one number from 1 on, or none for 3")
    return [word for word in words if word not in numbers], int(numbers[0]) if numbers else 3


@app.command(context_settings=_INTERSPERSED)
def inspect(
    overrides: Overrides = None,
    directions: Annotated[int, typer.Option(min=1, help="How many directions of strongest data support.")] = 16,
    examples: Annotated[int, typer.Option(min=1, help="Most training examples on which support is taken.")] = 64,
    output: Annotated[Path | None, typer.Option(help="Folder for inspect.json and pictures.")] = None,
    config_dir: ConfigDir = None,
    json: Json = False,
) -> None:
    """Show how a trained stage's adapter moved, and what share of the data's demand it followed."""
    from peso_cli.commands.inspect import inspect as run

    run(_compose(overrides, config_dir), examples, directions, output, json)


@app.command()
def runs(
    output: Annotated[Path, typer.Option(help="The folder that holds the runs.")] = Path("outputs"), json: Json = False
) -> None:
    """List what has been trained, at what stage, with which figures."""
    from peso_cli.commands.runs import runs as run

    run(output, json)


def _complete_table(incomplete: str) -> list[str]:
    from peso_cli.commands.tables import table_names

    return [name for name in table_names() if name.startswith(incomplete)]


def _complete_plot(incomplete: str) -> list[str]:
    from peso_cli.commands.plot import plot_names

    return [name for name in plot_names() if name.startswith(incomplete)]


Filters = Annotated[
    list[str] | None,
    typer.Argument(help="What to show: dataset=amazon_games method=peso,single ...", show_default=False),
]
Output = Annotated[Path, typer.Option("--output", help="The folder that holds the runs.")]
Baseline = Annotated[str, typer.Option("--baseline", help="The method that others are compared with; empty for none.")]
Mix = Annotated[bool, typer.Option("--mix", help="Show runs together that can't be compared.")]
Chosen = Annotated[
    bool, typer.Option("--chosen", help="Of the strengths of a method, show the one chosen on validation users alone.")
]


@app.command()
def plot(
    name: Annotated[str, typer.Argument(help="stages, strength, groups, ...", autocompletion=_complete_plot)],
    filters: Filters = None,
    output: Output = Path("outputs"),
    to: Annotated[Path, typer.Option(help="The folder for the pictures.")] = Path("outputs/plots"),
    format: Annotated[list[str] | None, typer.Option(help="svg or png; both unless given.")] = None,
    baseline: Baseline = "single",
    mix: Mix = False,
    chosen: Chosen = False,
) -> None:
    """Draw finished runs: figures by stage, strength, user groups, forgetting, efficiency, training."""
    from peso_cli.commands.plot import plot as run

    run(name, output, filters or [], to, tuple(format or ("svg", "png")), baseline, mix, chosen)


@app.command()
def tables(
    name: Annotated[str, typer.Argument(help="main, groups, forgetting, ...", autocompletion=_complete_table)],
    filters: Filters = None,
    output: Output = Path("outputs"),
    format: Annotated[str, typer.Option(help="terminal, markdown, latex, csv or json.")] = "terminal",
    baseline: Baseline = "single",
    mix: Mix = False,
    chosen: Chosen = False,
    run_missing: Annotated[bool, typer.Option("--run-missing", help="First carry out what fills its gaps.")] = False,
    config_dir: ConfigDir = None,
) -> None:
    """Print a table of finished runs beside the published figures, and what fills its gaps."""
    from peso_cli.commands.tables import tables as run

    run(name, output, filters or [], format, baseline, mix, chosen, run_missing, config_dir)


def _complete_section(incomplete: str) -> list[str]:
    from peso_cli.commands.analyse import section_names

    return [name for name in section_names() if name.startswith(incomplete)]


@app.command()
def analyse(
    filters: Filters = None,
    output: Output = Path("outputs"),
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="A section, such as overlap or fairness; all unless given.", autocompletion=_complete_section
        ),
    ] = None,
    format: Annotated[str, typer.Option(help="terminal, markdown, latex, csv or json.")] = "terminal",
    baseline: Baseline = "single",
    mix: Mix = False,
    config_dir: ConfigDir = None,
) -> None:
    """Show where methods differ: by users, items and drift, in hits, calibration, coverage and fairness."""
    from peso_cli.commands.analyse import analyse as run

    run(output, filters or [], format, baseline, mix, only or [], config_dir)


@app.command()
def report(
    filters: Filters = None,
    output: Output = Path("outputs"),
    to: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("outputs/report.html"),
    baseline: Baseline = "single",
    mix: Mix = False,
    chosen: Chosen = False,
    why: Annotated[
        bool, typer.Option("--why", help="Ask the models which items carried the sample recommendations, and show it.")
    ] = False,
) -> None:
    """Write finished runs as one HTML page: tables, curves, significance, recommendations, lineage."""
    from peso_cli.commands.report import report as run

    run(output, filters or [], to, baseline, mix, chosen, why)


@app.command(context_settings=_INTERSPERSED)
def config(overrides: Overrides = None, config_dir: ConfigDir = None, json: Json = False) -> None:
    """Show the composed configuration, every group's choices, and where each value comes from."""
    from peso_cli.commands.show_config import show_config

    show_config(_compose(overrides, config_dir), config_dir, json)


@data_app.command(context_settings=_INTERSPERSED)
def stats(overrides: Overrides = None, config_dir: ConfigDir = None, json: Json = False) -> None:
    """Print the figures of the paper's dataset table for every stage."""
    from peso_cli.commands.data import stats as run

    run(_compose(overrides, config_dir), json)


@data_app.command(context_settings=_INTERSPERSED)
def examples(
    overrides: Overrides = None,
    stage: Annotated[int, typer.Option(help="The stage.")] = 1,
    split: Annotated[str, typer.Option(help="train, valid, test or next.")] = "train",
    user: Annotated[str | None, typer.Option(help="Only this user's.")] = None,
    config_dir: ConfigDir = None,
) -> None:
    """Print a stage's examples, one JSON object a line: user, history, target."""
    from peso_cli.commands.data import print_examples

    if split not in ("train", "valid", "test", "next"):
        raise InputError(f"--split {split}: give train, valid or test, or next (the first event, by those before)")
    print_examples(_compose(overrides, config_dir), stage, split, user)  # type: ignore[arg-type]


@data_app.command(context_settings=_INTERSPERSED)
def build(overrides: Overrides = None, config_dir: ConfigDir = None, json: Json = False) -> None:
    """Make stages of raw interactions: dataset=movielens_100k, or dataset=csv with files of your own."""
    from peso_cli.commands.build import build as run

    run(_compose(overrides, config_dir), json)


@data_app.command(context_settings=_INTERSPERSED)
def append(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="FILES... OVERRIDES",
            help="Files with the new interactions; overrides name the dataset: dataset=built dataset.name=NAME.",
            autocompletion=_complete,
            show_default=False,
        ),
    ],
    items: Annotated[list[str] | None, typer.Option("--items", help="A file with the texts of new items.")] = None,
    config_dir: ConfigDir = None,
    json: Json = False,
) -> None:
    """Add a stage with new interactions to a built dataset; what exists stays as it is, new items get semantic IDs."""
    from peso_cli.commands.append import append as run

    files = [word for word in words if "=" not in word]
    run(_compose([word for word in words if "=" in word], config_dir), files, items or [], json)


@data_app.command(context_settings=_INTERSPERSED)
def drift(overrides: Overrides = None, config_dir: ConfigDir = None, json: Json = False) -> None:
    """Print how far each stage has moved from the one before: users, items, popularity, predictability."""
    from peso_cli.commands.data import drift as run

    run(_compose(overrides, config_dir), json)


@data_app.command(context_settings=_INTERSPERSED)
def export(
    overrides: Overrides = None,
    output: Annotated[Path, typer.Option(help="The folder to write.")] = Path("outputs/released"),
    config_dir: ConfigDir = None,
    json: Json = False,
) -> None:
    """Write a dataset in the released JSON layout."""
    from peso_cli.commands.data import export as run

    run(_compose(overrides, config_dir), output, json)


@app.command(context_settings=_INTERSPERSED)
def tokenize(
    overrides: Overrides = None,
    items: Annotated[Path | None, typer.Option(help="A file of item texts in the released layout instead.")] = None,
    output: Annotated[Path | None, typer.Option(help="With --items: the index file to write.")] = None,
    config_dir: ConfigDir = None,
    json: Json = False,
) -> None:
    """Give items semantic IDs: text, embedding=minilm, quantizer=rq_kmeans, tokenizer.resolve=reassign."""
    from peso_cli.commands.tokenize import tokenize as run

    run(_compose(overrides, config_dir), items, output, json)


def _complete_resource(incomplete: str) -> list[str]:
    from peso_cli.resources.registry import RESOURCES

    return [name for name in RESOURCES if name.startswith(incomplete)]


@app.command()
def fetch(
    name: Annotated[
        str | None,
        typer.Argument(help="What to fetch; none: show what there is.", autocompletion=_complete_resource),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Fetch again what is there already.")] = False,
    json: Json = False,
) -> None:
    """Bring a named model or data set into the cache ($PESO_CACHE, else ~/.cache/peso), verified."""
    from peso_cli.commands import fetch as command

    if name is None:
        command.show_resources(json)
    else:
        command.fetch(name, force, json)


@track_app.command("sync", context_settings=_INTERSPERSED)
def track_sync(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FOLDERS|OVERRIDES",
            help="Folders that hold runs (outputs unless given), or overrides that name some: stage=3 method=peso.",
            autocompletion=_complete,
            show_default=False,
        ),
    ] = None,
    patience: Annotated[
        float, typer.Option(min=1, help="Seconds without another run through until the server is given up.")
    ] = 60,
    config_dir: ConfigDir = None,
    json: Json = False,
) -> None:
    """Send finished runs to W&B that weren't sent yet; given again, only what is left."""
    from peso_cli.commands.track import sync as run

    run(words or [], config_dir, patience, json)


@app.command(context_settings=_INTERSPERSED)
def bench(
    what: Annotated[str, typer.Argument(help="decode, train, regularizer, growth, data, tokenize, tracking or all.")],
    overrides: Overrides = None,
    users: Annotated[int, typer.Option(min=1, help="Test users whose recommendations are compared.")] = 512,
    timed: Annotated[int, typer.Option(min=1, help="How many of them are timed in the plain way.")] = 128,
    examples: Annotated[int, typer.Option(min=1, help="Training examples that are timed.")] = 400,
    steps: Annotated[int, typer.Option(min=0, help="Training steps before decoding is measured.")] = 100,
    repeats: Annotated[int, typer.Option(min=1, help="How often each way is timed.")] = 5,
    rows: Annotated[int, typer.Option(min=1000, help="data: interactions; twice as many are built, too.")] = 10**6,
    items: Annotated[int, typer.Option(min=1000, help="tokenize: embeddings to fit the quantizer to.")] = 53_000,
    config_dir: ConfigDir = None,
    json: Json = False,
) -> None:
    """Measure the engines beside the plain Hugging Face way, checking equality, and what the rest costs."""
    from peso_cli.commands.bench import BENCHES, Sizes
    from peso_cli.commands.bench import bench as run

    if what not in (*BENCHES, "all"):
        raise InputError(f"bench {what}: give {', '.join(BENCHES)} or all")
    names = BENCHES if what == "all" else (what,)
    run(_compose(overrides, config_dir), names, Sizes(users, timed, examples, steps, repeats, rows, items), json)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Train and study LLM-based generative recommenders that keep learning, stage by stage."""
    command = context.invoked_subcommand
    if processes.count() > 1 and command not in ("train", "evaluate"):
        raise InputError(f"peso {command}: runs in one process; start it without torchrun or accelerate launch")


def _compose(overrides: list[str] | None, config_dir: Path | None) -> Composed:
    from peso_cli.config.compose import compose

    composed = compose(overrides or [], config_dir)
    given = {word.partition("=")[0] for word in composed.overrides}
    if open_keys := [key for key in composed.grid if key not in given]:
        raise InputError(
            f"experiment={composed.choices['experiment']} goes over values of {', '.join(open_keys)}: "
            "give each one value, or use peso sweep"
        )
    return composed


def main() -> None:
    """Run a command; exit with 0 done, 1 failed, 2 the user's input was wrong, 130 interrupted."""
    # Threads that spin long for their next small task slow whatever else runs several times over; those that don't spin
    # at all wake up late, which costs a small model a third of its speed.
    os.environ.setdefault("GOMP_SPINCOUNT", "100000")
    sys.exit(_run())


def _run() -> int:
    try:
        code = int(app(standalone_mode=False) or 0)
        # Newer versions of Typer turn the interruption into this code themselves.
        if code == _INTERRUPTED:
            raise KeyboardInterrupt
        return code
    except _UsageError as error:
        error.show()
        return 2
    except (InputError, RunError) as error:
        _say(str(error))
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        _say("interrupted; the same command goes on from what is finished, and from a stage's last checkpoint")
        return _INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except OSError as error:
        # A full disk, a folder that can't be written: the system's own words and the place say it all.
        typer.echo(f"peso: {error.filename or 'the system'}: {error.strerror or error}", err=True)
        return 1


def _say(problem: str) -> None:
    """Say why a command ends; several processes end for the same reason, and the first one says it."""
    if processes.first():
        typer.echo(f"peso: {problem}", err=True)
