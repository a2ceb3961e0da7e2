"""A hospital's commands: check the cohort, extract features, consent, take part, predict.

Every command reads the hospital's own `site.yaml`; heavy libraries are imported when needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from client.ledger_cli import app as ledger_app
from common.cli_output import Output

app = typer.Typer(no_args_is_help=True, help=__doc__, rich_markup_mode=None)
app.add_typer(ledger_app, name="ledger")

SiteOption = Annotated[
    Path, typer.Option("--site", help="The hospital's site.yaml, or the folder that holds it.")
]
StudyOption = Annotated[Path, typer.Option("--study", help="The consortium's study.yaml.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command(epilog="Example: tumorboard site init hospital-a --site-id hospital-a")
def init(
    folder: Annotated[Path, typer.Argument(help="New folder for this hospital.")],
    site_id: Annotated[str, typer.Option("--site-id", help="Short name, as in the roster.")],
    json_output: JsonOption = False,
) -> None:
    """Write a commented site.yaml and an empty manifest."""
    from client.site_template import write_site_template

    written = write_site_template(folder, site_id)
    output = Output(json_output)
    output.say("Written: " + ", ".join(str(path) for path in written))
    output.say("Next: fill in the manifest, then `tumorboard site check`.")
    output.result({"written": [str(path) for path in written]})


@app.command(epilog="Example: tumorboard site check --site hospital-a --study study.yaml")
def check(site: SiteOption, study: StudyOption, json_output: JsonOption = False) -> None:
    """Validate the manifest, every problem at once, and print the cohort funnel."""
    from client.cohort_check import check_cohort
    from client.site_folder import load_policy
    from common.study import Study

    funnel = check_cohort(load_policy(site), Study.from_yaml(study))
    output = Output(json_output)
    for line in funnel.lines():
        output.say(line)
    output.result(funnel.model_dump(mode="json"))


@app.command(epilog="Example: tumorboard site extract --site hospital-a --study study.yaml")
def extract(
    site: SiteOption,
    study: StudyOption,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
    json_output: JsonOption = False,
) -> None:
    """Turn raw files into feature files; run it again to go on where it stopped."""
    from client.extract.runner import run_extraction
    from client.site_folder import load_policy
    from common.manifest import read_manifest
    from common.study import Study

    policy = load_policy(site)
    output = Output(json_output)
    summary = run_extraction(
        read_manifest(policy.manifest),
        Study.from_yaml(study).features,
        policy.feature_store,
        workers=workers,
        output=output,
        device=policy.device,
    )
    for line in summary.lines():
        output.say(line)
    output.result(summary.as_dict())
    raise typer.Exit(summary.exit_status)


@app.command(epilog="Example: tumorboard site approve --site hospital-a --study study.yaml")
def approve(
    site: SiteOption,
    study: StudyOption,
    epsilon: Annotated[
        float | None, typer.Option(help="Ceiling for training; the study's own by default.")
    ] = None,
    fallback_epsilon: Annotated[
        float | None, typer.Option(help="Ceiling if all other hospitals collude.")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Record this hospital's consent to exactly this study, with its ceilings."""
    from client.site_folder import load_policy, record_consent
    from common.site_policy import Approval
    from common.study import Study

    agreed = Study.from_yaml(study)
    approval = Approval(
        study_digest=agreed.digest(),
        epsilon_ceiling=epsilon if epsilon is not None else agreed.privacy.epsilon,
        fallback_epsilon_ceiling=fallback_epsilon,
    )
    target = record_consent(load_policy(site), approval)
    output = Output(json_output)
    output.say(f"Consent to study {agreed.study_id}, digest {approval.study_digest}: {target}")
    output.result(approval.model_dump(mode="json"))


@app.command(epilog="Example: tumorboard site agent --site hospital-a")
def agent(
    site: SiteOption,
    socket: Annotated[
        Path | None, typer.Option(help="Unix socket; private/agent.sock by default.")
    ] = None,
) -> None:
    """Serve the site agent, the only process that reads patients, on a Unix socket."""
    from client.agent.service import serve
    from client.agent.site_agent import SiteAgent
    from client.site_folder import load_policy

    policy = load_policy(site)
    serve(SiteAgent(policy), socket or policy.state.parent / "agent.sock")


@app.command(
    epilog="Example: tumorboard site predict --site hospital-a --study study.yaml "
    "--model run/model.safetensors --explain explained --patient P001"
)
def predict(
    site: SiteOption,
    study: StudyOption,
    model: Annotated[Path, typer.Option("--model", help="model.safetensors of a finished run.")],
    patient: Annotated[
        list[str] | None, typer.Option("--patient", help="Only these patients; repeatable.")
    ] = None,
    explain: Annotated[
        Path | None, typer.Option("--explain", help="Also write explanations to this folder.")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Predict response and survival for the hospital's own patients; nothing leaves it."""
    from client.explain.explain import explain_patients
    from client.predict_command import predict_patients
    from client.site_folder import load_policy
    from common.study import Study

    output = Output(json_output)
    agreed = Study.from_yaml(study)
    done = predict_patients(load_policy(site), agreed, model, patient)
    files = explain_patients(done, explain, output=output) if explain else {}
    rows = [
        [p.patient_id, p.response_probability, p.risk, ", ".join(p.missing) or "none"]
        for p in done.predictions
    ]
    title = "SYNTHETIC patients" if agreed.synthetic else "Predictions"
    output.table(title, ["patient", "P(response)", "risk", "missing modalities"], rows)
    output.result(
        {
            "synthetic": agreed.synthetic,
            "predictions": [p.as_dict() for p in done.predictions],
            "explanations": {pid: [str(f) for f in found] for pid, found in files.items()},
        }
    )
