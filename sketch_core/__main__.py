"""Command line: ``python -m sketch_core train | evaluate | sample | data | checkpoints``."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import sketch_core
from sketch_core import (
    checkpoint,
    download,
    evaluate,
    fine_tune,
    judge,
    magenta,
    quickdraw,
    recognition,
    render,
    strokes,
    svg,
)
from sketch_core.fine_tune import KEEPS, FineTuneConfig, FineTuner
from sketch_core.generate import BEST_OF, GUIDANCE, MAX_GUIDANCE
from sketch_core.judge import Judge
from sketch_core.mixture import RULES
from sketch_core.model import SketchRNNConfig
from sketch_core.train import TrainConfig, Trainer

CARD_CATEGORIES = ["cat", "face", "bird", "car", "flamingo", "bicycle", "house", "penguin"]
PICTURES = (".svg", ".png", ".gif", ".json")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status. Errors of use are one sentence on stderr and status 1."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        status: int = options.run(options) or 0
        return status
    except ValueError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="python -m sketch_core", description="Train, measure and use SketchRNN, the network behind Doodle Duet."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_train(commands)
    _add_evaluate(commands)
    _add_judge(commands)
    _add_sample(commands)
    _add_data(commands)
    _add_checkpoints(commands)
    return parser


# ---------------------------------------------------------------------------------------------------
# train


def field_docs(cls: type) -> dict[str, str]:
    """{field: the docstring under it} of a dataclass; a run of fields shares the docstring that follows."""
    docs: dict[str, str] = {}
    waiting: list[str] = []
    body = ast.parse(inspect.getsource(cls)).body[0]
    for node in getattr(body, "body", []):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            waiting.append(node.target.id)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and waiting:
            docs.update(dict.fromkeys(waiting, str(node.value.value)))
            waiting = []
    return docs


def _add_train(commands: Any) -> None:
    parser = commands.add_parser(
        "train",
        help="train a network on drawings",
        description="Train on Quick, Draw! drawings or your own. Ctrl-C stops cleanly; the same command goes on. "
        "With --from, teach a checkpoint new categories from as few as 30 drawings, in minutes, while it keeps its old "
        "ones; see docs/training-your-own.md.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.set_defaults(run=run_train)
    parser.add_argument("--paper", action="store_true", help="the paper's own set-up, in the sizes of Magenta's code")
    parser.add_argument("--decoder-only", action="store_true", help="no encoder and no z")
    for cls in (TrainConfig, SketchRNNConfig):
        docs = field_docs(cls)
        group = parser.add_argument_group("training" if cls is TrainConfig else "architecture")
        for item in dataclasses.fields(cls):
            if item.name in ("architecture", "n_categories"):
                continue
            flag = f"--{_flag(item.name)}"
            text = docs.get(item.name, "").replace("%", "%%")
            # SUPPRESS: only what was asked for changes the settings of --paper.
            common: dict[str, Any] = {"help": f"{text} [{item.default}]", "default": argparse.SUPPRESS}
            if item.name == "categories":
                group.add_argument(flag, nargs="+", metavar="NAME", **(common | {"help": text}))
            elif isinstance(item.default, bool):
                group.add_argument(flag, action=argparse.BooleanOptionalAction, **common)
            else:
                required = item.name in ("data", "out")
                group.add_argument(flag, type=type(item.default), required=required, **common)
    _add_fine_tuning(parser)


def _add_fine_tuning(parser: argparse.ArgumentParser) -> None:
    """What goes with ``--from`` alone; settings that both ways have are there already."""
    defaults = {item.name: item.default for item in dataclasses.fields(FineTuneConfig)}
    group = parser.add_argument_group(
        "with --from",
        f"Its own usual values: --steps {defaults['steps']}, --learning-rate {defaults['learning_rate']}.",
    )
    docs = field_docs(FineTuneConfig)
    for name in sorted(_fine_tuning_only(), key=list(defaults).index):
        value = defaults[name]
        common: dict[str, Any] = {"help": f"{docs[name]} [{value}]", "default": argparse.SUPPRESS}
        if name == "source":
            group.add_argument("--from", dest="source", metavar="CHECKPOINT", **(common | {"help": docs[name]}))
        elif name == "keep":
            group.add_argument("--keep", choices=KEEPS, **common)
        else:
            group.add_argument(f"--{_flag(name)}", type=type(value), **common)


def _flag(name: str) -> str:
    return name.replace("_", "-")


def _fine_tuning_only() -> set[str]:
    """Settings that go with ``--from`` alone."""
    return {item.name for item in dataclasses.fields(FineTuneConfig)} - {
        item.name for item in dataclasses.fields(TrainConfig)
    }


def run_train(options: argparse.Namespace) -> None:
    """Train a network, or teach one new categories; goes on where a run in the same folder stopped."""
    given = vars(options)
    if "source" in given:
        run_fine_tuning(options)
        return
    if alone := sorted(_fine_tuning_only() & set(given)):
        raise ValueError(f"--{_flag(alone[0])} goes with --from only.")
    architecture_names = {item.name for item in dataclasses.fields(SketchRNNConfig)}
    changes = {
        item.name: given[item.name]
        for item in dataclasses.fields(TrainConfig)
        if item.name in given and item.name != "architecture"
    }
    if "steps" in changes:
        changes.setdefault("minutes", 0.0)
    architecture_changes = {name: given[name] for name in architecture_names if name in given}
    if options.paper:
        config = TrainConfig.paper(decoder_only=options.decoder_only, **changes)
    else:
        config = TrainConfig(**changes)
        if options.decoder_only:
            architecture_changes |= {"encoder_size": 0, "z_size": 0}
    config.architecture = dataclasses.replace(config.architecture, **architecture_changes)
    trainer = Trainer(config, on_validate=[write_sample_sheet])
    if trainer.resume():
        logging.getLogger("sketch_core.train").info("going on from step %d", trainer.step)
    trainer.run()


def run_fine_tuning(options: argparse.Namespace) -> None:
    """Teach a checkpoint new categories, and write the new one with a card and a sheet of what it has learned."""
    given = {name: value for name, value in vars(options).items() if name not in ("command", "run")}
    if options.paper or options.decoder_only:
        raise ValueError("--paper and --decoder-only make a new network; with --from there is one already.")
    known = {item.name for item in dataclasses.fields(FineTuneConfig)}
    if odd := sorted(set(given) - known - {"paper", "decoder_only"}):
        raise ValueError(f"--{_flag(odd[0])} has no part in teaching a checkpoint new categories (--from).")
    config = FineTuneConfig(**{name: given[name] for name in known & set(given)})
    tuner = FineTuner(config)
    with tqdm(total=config.steps, unit="step", mininterval=1.0) as bar:
        learned = tuner.run(on_step=lambda step: bar.update(step - bar.n))
    folder = fine_tune.save(tuner, learned)
    sketcher = sketch_core.Sketcher(learned)
    rows = [sketcher.draw(word, temperature, n=8) for word in tuner.words for temperature in (0.3, 0.6)]
    labels = [f"{word}, τ {temperature}" for word in tuner.words for temperature in (0.3, 0.6)]
    sheet = write_sheet(folder / fine_tune.SHEET_FILE, rows, labels)
    (folder / checkpoint.CARD_FILE).write_text(
        fine_tune.card(tuner, learned, picture=sheet.suffix == ".png"), encoding="utf-8"
    )
    print(fine_tune.summary(tuner))
    print(f"{folder}: look at {sheet.name}, then `python app.py --checkpoint {folder}`")


def write_sample_sheet(trainer: Trainer, n_categories: int = 8, n: int = 6) -> None:
    """Draw some categories with the averaged weights into ``samples/`` of the run's folder."""
    sketcher = sketch_core.Sketcher(trainer.checkpoint("sample"))
    counts = trainer.train_set.counts()
    labels = sorted((-counts).argsort(kind="stable")[:n_categories].tolist())
    conditional = sketcher.source.architecture.n_categories > 0
    names = [trainer.categories[label] for label in labels] if conditional else [None]
    rows = [sketcher.draw(name, n=n, seed=0) for name in names]
    folder = trainer.out / "samples"
    folder.mkdir(exist_ok=True)
    write_sheet(folder / f"{trainer.step:08d}.png", rows, [name or "any" for name in names])


def write_sheet(file: Path, rows: list[list[Any]], labels: list[str]) -> Path:
    """A contact sheet as a PNG picture, or as SVG where the cairo library is missing: no run ends for want of it.

    Returns:
        The file that was written.
    """
    try:
        file.write_bytes(render.sheet_png(rows, labels=labels))
    except render.CairoMissing:
        file = file.with_suffix(".svg")
        file.write_text(render.sheet(rows, labels=labels), encoding="utf-8")
    return file


# ---------------------------------------------------------------------------------------------------
# evaluate


def _add_evaluate(commands: Any) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="measure a checkpoint on drawings it has not seen",
        description="Nats a step, L_s, L_p, L_R with its N_max, L_KL, and the second half given the first.",
    )
    parser.set_defaults(run=run_evaluate)
    parser.add_argument("checkpoint", nargs="?", help="name or folder (the default checkpoint if left out)")
    parser.add_argument("--data", required=True, help="folder of .npz or .ndjson files")
    parser.add_argument("--split", default="test", choices=quickdraw.SPLITS)
    parser.add_argument("--per-category", type=int, default=25, help="drawings of each category, at most [25]")
    parser.add_argument("--every", type=int, default=1, help="only each so-manieth category [1]")
    parser.add_argument("--draw", type=int, default=2, help="free drawings a category for the share that ends [2]")
    parser.add_argument("--temperature", type=float, default=0.4, help="temperature of those [0.4]")
    parser.add_argument("--recognition", action="store_true", help="let the judge name drawings, endings, variations")
    parser.add_argument("--named", type=int, default=5, help="drawings of each category that the judge names [5]")
    parser.add_argument(
        "--best", action="store_true", help="the judge names those of the 40 best-filled categories only"
    )
    parser.add_argument("--guesses", action="store_true", help="how often the network itself guesses the category")
    parser.add_argument("--judge", metavar="DIR", help="the judge's folder [benchmarks/judge-345]")
    parser.add_argument(
        "--temperatures", nargs="+", type=float, metavar="TAU", help="at which the judge sees free drawings and endings"
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures as JSON ('-' for standard output)")
    parser.add_argument("--save", action="store_true", help="write the figures into the checkpoint's config.json")
    parser.add_argument("--overall", action="store_true", help="print no row for each category")


def run_evaluate(options: argparse.Namespace) -> None:
    """Measure a checkpoint and print, write or save the figures."""
    folder = checkpoint.resolve(options.checkpoint)
    sketcher = sketch_core.load(folder)
    conditional = sketcher.source.architecture.n_categories > 0
    categories = sketcher.categories
    sets = quickdraw.load_sets(options.data, categories, (options.split,), max_points=sketcher.source.n_max - 1)
    chosen = sets[options.split].per_category(options.per_category, every=options.every)
    results = evaluate.report(evaluate.measure(sketcher.model, chosen, device=sketcher.device), chosen.categories)
    results = {
        "checkpoint": sketcher.name,
        "split": options.split,
        "per_category_limit": options.per_category,
        "every": options.every,
    } | results
    if options.draw and conditional:
        share = evaluate.ending_share(sketcher, per_category=options.draw, temperature=options.temperature)
        results["ends_by_itself"] = {
            "share": round(share, 4),
            "drawings": options.draw * len(categories),
            "temperature": options.temperature,
        }
    if options.recognition:
        heats = options.temperatures or (0.25, 0.4)
        results["recognition"] = recognition.measure(
            sketcher,
            Judge.load(options.judge),
            sets[options.split],
            per_category=options.named,
            only_best=options.best,
            free=heats,
            endings=heats,
        )
    if options.guesses:
        results["guesses"] = recognition.guesses(sketcher, sets[options.split])
    if options.json == "-":
        print(json.dumps(results, indent=1))
    else:
        print(evaluate.table(results, categories=not options.overall))
        if "ends_by_itself" in results:
            print("free drawings that end by themselves: {share:.1%} of {drawings}".format(**results["ends_by_itself"]))
        if "recognition" in results:
            print(recognition.table(results["recognition"]))
        for share, found in results.get("guesses", {}).items():
            groups = ", ".join(f"{group} {rates['top1']:.2f} / {rates['top5']:.2f}" for group, rates in found.items())
            print(f"category guessed from {float(share):.0%} of the points, top 1 / top 5: {groups}")
        if options.json:
            Path(options.json).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if options.save:
        sketcher.source.metrics[options.split] = results
        checkpoint.save_description(sketcher.source, folder)


# ---------------------------------------------------------------------------------------------------
# judge


def _add_judge(commands: Any) -> None:
    parser = commands.add_parser(
        "judge",
        help="train the classifier that `evaluate --recognition` asks",
        description="Train a small classifier of pictures on the training split and save it, with its hash.",
    )
    parser.set_defaults(run=run_judge)
    parser.add_argument("--data", required=True, help="folder of .npz or .ndjson files")
    parser.add_argument("--out", required=True, help="folder for the judge")
    parser.add_argument("--minutes", type=float, default=60.0, help="length of the training [60]")
    parser.add_argument("--seed", type=int, default=0)


def run_judge(options: argparse.Namespace) -> None:
    """Train a judge and print what was measured."""
    trained = judge.train(options.data, options.out, minutes=options.minutes, seed=options.seed)
    print(json.dumps(trained.info, indent=1))


# ---------------------------------------------------------------------------------------------------
# sample


def _add_sample(commands: Any) -> None:
    parser = commands.add_parser(
        "sample",
        help="draw, complete or vary, as SVG, PNG, GIF or JSON",
        description="Free drawings of a category; with --start, endings of a drawing; with --vary, variations of it.",
    )
    parser.set_defaults(run=run_sample)
    parser.add_argument("--out", required=True, help="file to write: .svg, .png, .gif (the first one, drawn) or .json")
    parser.add_argument("--checkpoint", help="name or folder (the default checkpoint if left out)")
    parser.add_argument("--category", help="what to draw; anything if left out")
    parser.add_argument("--temperature", type=float, default=0.4, help="0.1 is careful, 1.0 is wild [0.4]")
    parser.add_argument("--rule", default="duet", choices=RULES, help="what the temperature does [duet]")
    parser.add_argument("-n", type=int, default=9, help="how many [9]")
    parser.add_argument("--seed", type=int, default=0, help="the same seed draws the same [0]")
    parser.add_argument(
        "--guidance",
        type=float,
        default=GUIDANCE,
        help=f"how much it insists on the category (with --vary: on the drawing), 0 to {MAX_GUIDANCE:g} [{GUIDANCE:g}]",
    )
    parser.add_argument(
        "--best-of",
        type=int,
        metavar="N",
        help=f"so many are drawn for each that is shown [{BEST_OF['draw']}; with --vary {BEST_OF['vary']}; no endings]",
    )
    parser.add_argument(
        "--start",
        metavar="FILE",
        help="a drawing to complete: .svg, .json (strokes or stroke-3 rows) or .ndjson (its first drawing)",
    )
    parser.add_argument("--vary", metavar="FILE", help="a drawing to vary, in such a file")
    parser.add_argument("--pen-down", action="store_true", help="the start's last stroke goes on")


def read_drawing(path: str) -> strokes.Drawing:
    """A drawing from an SVG picture, JSON strokes, stroke-3 rows or the first line of a Quick, Draw! file.

    Raises:
        DrawingError: no such file, or no drawing in it.
    """
    try:
        if Path(path).suffix.lower() == ".svg":
            with Path(path).open("rb") as file:
                return svg.drawing_from_svg(file.read(svg.MAX_CHARACTERS + 1))
        if Path(path).suffix.lower() == ".ndjson":
            for _, _, drawing in quickdraw.read_ndjson(path):
                return drawing
            raise strokes.DrawingError(f"{path} holds no drawing that was recognised.")
        payload = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError:
        raise strokes.DrawingError(f"There is no readable file {path}.") from None
    except quickdraw.DataError as error:
        raise strokes.DrawingError(str(error)) from None
    except strokes.DrawingError:
        raise
    except (ValueError, RecursionError):
        raise strokes.DrawingError(f"{path} is not valid JSON.") from None
    if strokes.is_stroke3(payload):
        return strokes.from_stroke3(np.array(payload, dtype=np.float64))
    return strokes.drawing_from_json(payload)


def run_sample(options: argparse.Namespace) -> None:
    """Draw, finish or vary, into one file."""
    out = Path(options.out)
    if out.suffix not in PICTURES:
        raise ValueError(f"--out must end in one of {', '.join(PICTURES)}.")
    sketcher = sketch_core.load(options.checkpoint)
    common = {
        "category": options.category,
        "temperature": options.temperature,
        "n": options.n,
        "seed": options.seed,
        "rule": options.rule,
        "guidance": options.guidance,
    }
    start: strokes.Drawing = []
    if options.start:
        if options.best_of is not None:
            raise ValueError("--best-of is for whole drawings; endings come point by point.")
        start = read_drawing(options.start)
        drawings = sketcher.complete(start, pen_down=options.pen_down, **common)
    elif options.vary:
        drawings = sketcher.vary(read_drawing(options.vary), best_of=options.best_of, **common)
    else:
        drawings = sketcher.draw(best_of=options.best_of, **common)
    out.write_bytes(_picture(out.suffix, start, drawings))
    print(f"{len(drawings)} drawings in {out}")


def _picture(suffix: str, start: strokes.Drawing, drawings: list[strokes.Drawing]) -> bytes:
    if suffix == ".json":
        return json.dumps([strokes.drawing_to_json(drawing) for drawing in drawings]).encode()
    if suffix == ".gif":
        return render.gif([*start, *drawings[0]])
    items: list[Any] = [(start, drawing) if start else drawing for drawing in drawings]
    columns = max(1, round(len(items) ** 0.5))
    rows = [items[begin : begin + columns] for begin in range(0, len(items), columns)]
    return render.sheet_png(rows) if suffix == ".png" else render.sheet(rows).encode()


# ---------------------------------------------------------------------------------------------------
# data


def _add_data(commands: Any) -> None:
    parser = commands.add_parser("data", help="look at drawings, or download Quick, Draw! files")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    info = actions.add_parser("info", help="count the drawings of a file or folder")
    info.add_argument("path")
    info.set_defaults(run=run_data_info)
    fetch = actions.add_parser("download", help="download categories' official files (about 10 MB each)")
    fetch.add_argument("categories", nargs="+", metavar="CATEGORY")
    fetch.add_argument("--form", default="npz", choices=download.FORMS, help="which of the official files [npz]")
    fetch.add_argument("--to", metavar="DIR", help="folder (a cache folder of yours if left out)")
    fetch.set_defaults(run=run_data_download)


def run_data_info(options: argparse.Namespace) -> None:
    """Count drawings by category and split."""
    sets = quickdraw.load_sets(options.path, max_points=100_000)
    names = next(iter(sets.values())).categories
    counts = {split: item.counts() for split, item in sets.items()}
    width = max(map(len, names))
    print(" " * width + "".join(f"{split:>9}" for split in counts))
    for label, name in enumerate(names):
        print(f"{name:<{width}}" + "".join(f"{count[label]:9,}" for count in counts.values()))
    train = sets["train"]
    if len(train):
        factor = strokes.scale_factor(train.stroke3)
        print(
            f"mean length {train.lengths.mean():.1f} points, longest {train.lengths.max()}, scale factor {factor:.3f}"
        )


def run_data_download(options: argparse.Namespace) -> None:
    """Download official files; prints where they are."""
    for category in options.categories:
        print(download.fetch(category, form=options.form, folder=options.to))


# ---------------------------------------------------------------------------------------------------
# checkpoints


def _add_checkpoints(commands: Any) -> None:
    parser = commands.add_parser("checkpoints", help="list checkpoints, or show one")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="all that are found by name").set_defaults(run=run_checkpoints_list)
    show = actions.add_parser("show", help="architecture, training and metrics of one")
    show.add_argument("checkpoint", nargs="?")
    show.set_defaults(run=run_checkpoints_show)

    imported = actions.add_parser("import", help="read a model published by Magenta (.gen.json or .vae.json)")
    imported.add_argument("source", metavar="FILE|URL")
    imported.add_argument("--to", metavar="DIR", default="checkpoints", help="where its folder is put [checkpoints]")
    imported.set_defaults(run=run_checkpoints_import)

    sheets = actions.add_parser("sheets", help="draw the pictures of a model card into the checkpoint's folder")
    sheets.add_argument("checkpoint", nargs="?")
    sheets.add_argument("--data", required=True, help="folder with test drawings to finish and to vary")
    sheets.add_argument("--categories", nargs="+", metavar="NAME", default=CARD_CATEGORIES)
    sheets.set_defaults(run=run_checkpoints_sheets)


def run_checkpoints_import(options: argparse.Namespace) -> None:
    """Make a checkpoint of one of Magenta's models; prints its folder."""
    model = magenta.load(options.source)
    folder = checkpoint.save(model, Path(options.to) / model.name, half=False)
    (folder / checkpoint.CARD_FILE).write_text(magenta.card(model), encoding="utf-8")
    print(folder)


def run_checkpoints_sheets(options: argparse.Namespace) -> None:
    """Free drawings at four temperatures, endings of half-finished test drawings, and variations."""
    folder = checkpoint.resolve(options.checkpoint)
    sketcher = sketch_core.load(folder)
    names: list[str] = options.categories
    for temperature in (0.2, 0.4, 0.7, 1.0):
        rows = [sketcher.draw(name, temperature, n=8) for name in names]
        (folder / f"free-{temperature}.png").write_bytes(render.sheet_png(rows, labels=names))
    test = quickdraw.load_sets(options.data, names, ("test",))["test"]
    firsts = [strokes.from_stroke3(test.stroke3[int((test.labels == label).argmax())]) for label in range(len(names))]
    endings: list[list[Any]] = []
    variations: list[list[Any]] = []
    for name, whole in zip(names, firsts, strict=True):
        start = whole[: max(1, len(whole) // 2)]
        endings.append([whole, *((start, ending) for ending in sketcher.complete(start, name, n=7))])
        variations.append([whole, *sketcher.vary(whole, name, 0.3, n=7)])
    (folder / "endings.png").write_bytes(render.sheet_png(endings, labels=names))
    (folder / "variations.png").write_bytes(render.sheet_png(variations, labels=names))
    print(f"six sheets in {folder}")


def run_checkpoints_list(options: argparse.Namespace) -> None:
    """Print the checkpoints that are found by name."""
    for name, folder in checkpoint.available().items():
        default = " (default)" if name == checkpoint.DEFAULT_NAME else ""
        print(f"{name}{default}  {folder}")


def run_checkpoints_show(options: argparse.Namespace) -> None:
    """Print a checkpoint's config.json, without the list of its categories."""
    info = checkpoint.load(checkpoint.resolve(options.checkpoint)).info()
    info["categories"] = f"{len(info['categories'])} categories"
    text = json.dumps(info, indent=1, ensure_ascii=False)
    print("".join(c if c.isprintable() or c == "\n" else "?" for c in text))  # no stranger's escapes for the terminal


if __name__ == "__main__":
    sys.exit(main())
