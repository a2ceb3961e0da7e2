"""Commands for weights: write the signed card of a public file, and show where weights come from.

A card lies beside its file, as FILE.card.json; `tumorboard study freeze` copies it into the study.
A finished run writes the card of its model itself.
"""

from pathlib import Path
from typing import Annotated

import typer

from common.commands.cli_output import Output
from common.commands.options import JsonOption
from common.errors import ErrorCode, PrivacyError
from common.study.weights_card import PublicSource
from common.trust.secret_file import load_signing_key
from common.trust.weights_card import (
    card_path,
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
    """Show where weights come from, after checking that the card is theirs and unaltered."""
    sha256, signed = parts_digest(files), read_card(files[0])
    if signed is None:
        raise PrivacyError(
            "there is no card: the origin of the weights is unknown",
            where=str(card_path(files[0])),
            why=f"SHA-256 {sha256}",
            cure="get it from who made the weights, or write one with `tumorboard weights card`",
            code=ErrorCode.WEIGHTS_ORIGIN,
        )
    if signed.card.sha256 != sha256 or not is_genuine(signed):
        raise PrivacyError(
            "the card is false: the origin of the weights is unknown",
            where=str(card_path(files[0])),
            why="it was altered"
            if signed.card.sha256 == sha256
            else f"it describes {signed.card.sha256:.12}, the weights are {sha256:.12}",
            cure="get weights and card again from who made them",
            code=ErrorCode.WEIGHTS_ORIGIN,
        )
    output = Output(json_output)
    output.say(f"SHA-256 {sha256}")
    output.say(f"Origin: {signed.card.origin}; {origin_in_words(signed.card)}")
    output.say(f"Signed by {signed.maker} on {signed.card.made:.10}.")
    output.result({"origin": signed.card.origin, **signed.model_dump(mode="json")})
