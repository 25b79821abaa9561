"""``medfilip export-model`` and ``medfilip convert-weights``: models that leave and weights that arrive."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from pipelines.guard import guarded

if TYPE_CHECKING:
    from medfilip.model.adopting import Adoption, Tower
    from medfilip.model.converting import Conversion

_SHOWN = 12
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def export_model(
    checkpoint: Annotated[str, typer.Argument(help="Checkpoint folder, or the run of a pretrain job.")],
    folder: Annotated[str, typer.Argument(help="Folder to write; must not exist.")],
    debug: Debug = False,
) -> None:
    """Write a trained model as a folder that users of transformers load; its README.md says how."""

    def work() -> None:
        from medfilip.model.exporting import export_model as export

        written = export(checkpoint, _local(folder))
        size = sum(path.stat().st_size for path in written.rglob("*") if path.is_file())
        Console(highlight=False).print(
            f"Wrote {escape(str(written))}, {size / 1e6:,.1f} MB. Its README.md says how to load it."
        )

    guarded(work, debug=debug)


def convert_weights(
    file: Annotated[
        str, typer.Argument(help="Local .pt, .pth, .ckpt or .bin file of torch.save; with --into also .safetensors.")
    ],
    out: Annotated[str, typer.Argument(help="File to write, .safetensors; with --into, a folder.")],
    into: Annotated[
        str | None, typer.Option(help="vision or text: write a folder for train.model.vision or .text.")
    ] = None,
    config: Annotated[
        str | None, typer.Option(help="With --into: name or path of a Hugging Face model of that architecture.")
    ] = None,
    key: Annotated[str | None, typer.Option(help="Where the weights lie in the file, such as ema.model.")] = None,
    debug: Debug = False,
) -> None:
    """Convert somebody's PyTorch weights to safetensors, without running anything that the file asks for."""

    def work() -> None:
        from medfilip.model.converting import convert_weights as convert

        tower, target = _tower(into, config), _local(out)
        if tower is None:
            _show(convert(file, target, key=key))
            return
        from medfilip.model.adopting import adopt

        if file.endswith(".safetensors"):  # nothing to convert, only to fit
            _show_adopted(adopt(_local(file), target, tower=tower, config=str(config)), tower)
            return
        with tempfile.TemporaryDirectory(prefix="medfilip-weights-") as folder:
            converted = convert(file, Path(folder) / "weights.safetensors", key=key)
            _show_dropped(converted.dropped)
            _show_adopted(adopt(converted.file, target, tower=tower, config=str(config)), tower)

    guarded(work, debug=debug)


def _local(place: str) -> Path:
    from medfilip.core.errors import ErrorCode, MedfilipError
    from medfilip.storage.location import Location

    location = Location.parse(place)
    if location.scheme != "file":
        raise MedfilipError(
            ErrorCode.URI_NOT_ALLOWED, f"{location} is no local path.", fix="Write to this machine and copy from there."
        )
    return Path(location.path)


def _tower(into: str | None, config: str | None) -> Tower | None:
    from medfilip.core.errors import ErrorCode, MedfilipError

    if into not in (None, "vision", "text") or (into is None) != (config is None):
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            "The options --into (vision or text) and --config go together.",
            fix="Add --into vision --config microsoft/resnet-50, for example, or leave both out.",
        )
    return "vision" if into == "vision" else "text" if into == "text" else None


def _show(converted: Conversion) -> None:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("tensor", "shape", "type"):
        table.add_column(name, overflow="fold")
    for tensor in converted.tensors:
        table.add_row(escape(tensor.name), " x ".join(map(str, tensor.shape)) or "scalar", tensor.dtype)
    console = Console(highlight=False)
    console.print(table)
    _show_dropped(converted.dropped)
    console.print(f"Wrote {len(converted.tensors)} tensors to {escape(str(converted.file))}.")


def _show_dropped(dropped: dict[str, str]) -> None:
    console = Console(highlight=False)
    for name, reason in list(dropped.items())[:_SHOWN]:
        console.print(f"[yellow]dropped[/] {escape(name)}: {escape(reason)}")
    if len(dropped) > _SHOWN:
        console.print(f"[yellow]dropped[/] {len(dropped) - _SHOWN} more")


def _show_adopted(adopted: Adoption, tower: Tower) -> None:
    console = Console(highlight=False)
    if adopted.unexpected:
        shown = ", ".join(adopted.unexpected[:_SHOWN]) + (", …" if len(adopted.unexpected) > _SHOWN else "")
        console.print(f"[yellow]unexpected[/] {len(adopted.unexpected)} tensors left out: {escape(shown)}")
    if adopted.unused:
        console.print(f"[dim]missing but not used: {escape(', '.join(adopted.unused[:_SHOWN]))}[/]")
    below = f" found below '{escape(adopted.prefix)}'" if adopted.prefix else ""
    console.print(
        f"Wrote {adopted.adopted} tensors{below}. Train with train.model.{tower}={escape(str(adopted.folder))}"
    )
