"""Commands for a study: start one, check it, freeze its digest, show its content."""

import json
from pathlib import Path
from typing import Annotated

import typer

from common.commands.cli_output import Output
from common.commands.options import JsonOption
from common.commands.schema_export import json_schema, write_schemas
from common.commands.study_freeze import check_runnable, frozen_path, open_points
from common.commands.study_freeze import freeze as freeze_study
from common.commands.study_template import write_study_template
from common.privacy.plan import Mode
from common.study.study import Study
from common.trust.plugins import with_plugins
from common.trust.weights_card import weights_in_words

app = typer.Typer(no_args_is_help=True, help=__doc__, rich_markup_mode=None)

StudyArgument = Annotated[Path, typer.Argument(help="The study: study.yaml or its frozen JSON.")]


@app.command(epilog="Example: tumorboard study init study.yaml --site ukb --site chuv --site mskcc")
def init(
    path: Annotated[Path, typer.Argument(help="The new file.")] = Path("study.yaml"),
    site: Annotated[
        list[str] | None, typer.Option("--site", help="Site identifier; repeat for each site.")
    ] = None,
    study_id: Annotated[str, typer.Option("--study-id", help="Short name.")] = "my-study",
    mode: Annotated[Mode, typer.Option("--mode", help="Privacy mode.")] = "distributed",
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Write a commented study to start from."""
    sites = site or ["hospital-a", "hospital-b", "hospital-c"]
    write_study_template(path, study_id=study_id, sites=sites, mode=mode, overwrite=force)
    output = Output(json_output)
    output.say(f"Written: {path}")
    output.say(f"Next: edit it, then `tumorboard study validate {path}`.")
    output.result({"written": str(path)})


@app.command(epilog="Example: tumorboard study validate study.yaml")
def validate(path: StudyArgument, json_output: JsonOption = False) -> None:
    """Check a study, every problem at once, and say what deserves a second look."""
    study = _runnable(path)
    points = open_points(study)
    output = Output(json_output)
    output.say(f"Valid: {study.study_id} version {study.version}, {len(study.sites)} sites.")
    for point in points:
        output.say(f"  look at {point}")
    output.say(f"Next: `tumorboard study freeze {path}`.")
    output.result({"valid": True, "study_digest": study.digest(), "open_points": points})


def _runnable(path: Path) -> Study:
    from common.models.base.weights_origin import with_cards

    study = with_cards(with_plugins(Study.from_yaml(path)))
    check_runnable(study)
    return study


@app.command(epilog="Example: tumorboard study schema site-policy > site.schema.json")
def schema(
    name: Annotated[
        str, typer.Argument(help="study, site-policy, manifest-row or weights-card.")
    ] = "study",
    out: Annotated[
        Path | None, typer.Option("--out", help="Write all schemas into this folder instead.")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Print a JSON Schema: every key, its meaning and its bounds."""
    output = Output(json_output)
    if out is None:
        output.say(json.dumps(json_schema(name), indent=2))
        output.result(json_schema(name))
        return
    paths = [str(path) for path in write_schemas(out)]
    output.say("Written: " + ", ".join(paths))
    output.result({"written": paths})


@app.command(epilog="Example: tumorboard study freeze study.yaml")
def freeze(
    path: StudyArgument,
    out: Annotated[
        Path | None, typer.Option("--out", help="Frozen file; beside the study by default.")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Write the canonical form whose SHA-256 every hospital approves, and print it."""
    study = _runnable(path)
    target = out if out is not None else frozen_path(path)
    digest = freeze_study(study, target)
    output = Output(json_output)
    output.say(f"Digest: {digest}")
    output.say(f"Frozen: {target} (sha256sum of this file gives the digest)")
    for point in open_points(study):
        output.say(f"  look at {point}")
    output.say(
        "Next, at each hospital: `tumorboard site approve --site FOLDER --study "
        f"{target.name} {digest}`."
    )
    output.result({"study_digest": digest, "frozen": str(target)})


@app.command(epilog="Example: tumorboard study show study.yaml")
def show(path: StudyArgument, json_output: JsonOption = False) -> None:
    """Show a study in tables: endpoints, feature sets, training, privacy, sites."""
    study = Study.from_yaml(path)
    output = Output(json_output)
    _show(study, output)
    output.result({"study_digest": study.digest(), "study": study.model_dump(mode="json")})


def _show(study: Study, output: Output) -> None:
    from common.study.private_round import promise_in_words

    stamp = "  SYNTHETIC DATA" if study.synthetic else ""
    output.say(f"{study.study_id} version {study.version}  {study.title}{stamp}".rstrip())
    output.say(f"digest {study.digest()}\n")
    response, survival = study.endpoints.response, study.endpoints.survival
    if response is not None:
        output.say(f"response: 1 = {response.positive}")
    if survival is not None:
        edges = ", ".join(f"{edge:g}" for edge in survival.edges_months)
        output.say(f"survival: {survival.n_intervals} intervals from {edges} months, last one open")
    rows = [
        [
            name,
            spec.modality,
            spec.dim,
            spec.max_tokens,
            spec.extractor.kind if spec.extractor else "ready-made",
            (spec.fingerprint or "any")[:12],
        ]
        for name, spec in study.features.items()
    ]
    columns = ["features", "modality", "dim", "max tokens", "extractor", "fingerprint"]
    output.say("")
    output.table("", columns, rows)
    plan, privacy = study.training, study.privacy
    output.say(
        f"\nmodel {study.model.name}, {plan.rounds} rounds of {plan.local.kind}, server "
        f"{plan.server.name} (lr {plan.server.lr:g}), {plan.test_fraction:.0%} held out"
    )
    output.say(f"privacy {privacy.mode}: {promise_in_words(study)}")
    for plugin in study.plugins:
        output.say(f"code of another distribution: {plugin}, sources {plugin.sha256:.12}")
    for line in weights_in_words(study):
        output.say(line)
    output.say(f"sites ({study.quorum.min_sites} needed per round):")
    output.table("", ["site", "name"], [[site.site_id, site.name] for site in study.sites])
