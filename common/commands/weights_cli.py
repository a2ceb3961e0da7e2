"""Commands for weights: write the signed card of a public file, and show where weights come from.

A card lies beside its file, as FILE.card.json; `tumorboard study freeze` copies it into the study.
A finished run writes the card of its model itself.
"""

from pathlib import Path
from typing import Annotated

import typer

from common.commands.cli_output import Output
from common.commands.options import JsonOption
from common.study.weights_card import PublicSource
from common.trust.secret_file import load_signing_key
from common.trust.weights_card import (
    is_genuine,
    origin_in_words,
    parts_digest,
    read_card,
    sign_card,
    write_card,
)

app = typer.Typer(no_args_is_help=True, help=__doc__, rich_markup_mode=None)

FilesArgument = Annotated[
    list[Path],
    typer.Argument(help="The weights, then its further parts (tensors of an ONNX file)."),
]


@app.command(
    epilog="Example: tumorboard weights card uni.onnx --public 'UNI, Mass-100K' "
    "--licence 'CC BY-NC-ND 4.0' --key hospital-a/private/identity.key"
)
def card(
    files: FilesArgument,
    public: Annotated[str, typer.Option("--public", help="Published model, and its public data.")],
    licence: Annotated[str, typer.Option("--licence", help="Licence of the weights.")],
    key: Annotated[
        Path,
        typer.Option("--key", help="Your Ed25519 key: private/identity.key or server/audit.key."),
    ],
    json_output: JsonOption = False,
) -> None:
    """Say, and sign, that a weights file is public and holds no patient of the consortium."""
    source = PublicSource.from_mapping({"name": public, "licence": licence}, where="--public")
    cure = "pass private/identity.key of a hospital, or server/audit.key of a coordinator"
    signing_key = load_signing_key(key, what="the key that signs the card", cure=cure)
    signed = sign_card(signing_key, parts_digest(files), public=[source])
    path = write_card(files[0], signed)
    output = Output(json_output)
    output.say(f"Written: {path}")
    output.say(f"SHA-256 of the weights, for the study: {signed.card.sha256}")
    output.say(f"Signed by {signed.maker}: a hospital of the study, or name it in weights.makers.")
    output.result({"written": str(path), **signed.model_dump(mode="json")})


@app.command(epilog="Example: tumorboard weights show run/model.safetensors")
def show(files: FilesArgument, json_output: JsonOption = False) -> None:
    """Show where weights come from; exit status 3 if card and file do not belong together."""
    sha256, signed = parts_digest(files), read_card(files[0])
    output = Output(json_output)
    output.say(f"SHA-256 {sha256}")
    if signed is None:
        output.say("There is no card beside the file: its origin is unknown.")
        output.result({"sha256": sha256, "origin": "unknown", "card": None})
        return
    holds = signed.card.sha256 == sha256 and is_genuine(signed)
    if not holds:
        wrong = "was altered" if signed.card.sha256 == sha256 else "is that of another file"
        output.say(f"The card beside it {wrong}: the origin of the weights is unknown.")
    else:
        output.say(f"Origin: {signed.card.origin}; {origin_in_words(signed.card)}")
        output.say(f"Signed by {signed.maker} on {signed.card.made:.10}.")
    origin = signed.card.origin if holds else "unknown"
    body = signed.model_dump(mode="json")
    output.result({"sha256": sha256, "origin": origin, "genuine": holds, **body})
    if not holds:
        raise typer.Exit(3)
