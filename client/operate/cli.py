"""A hospital's commands: check the cohort, extract features, consent, take part, predict.

Every command reads the hospital's own `site.yaml`.
"""

from pathlib import Path
from typing import Annotated

import typer
from typer.models import CommandInfo

from client import operate
from client.operate import join_cli, node_cli
from client.operate.ledger_cli import app as ledger_app
from client.operate.options import SiteOption, SocketOption
from common.commands.cli_output import Output
from common.commands.options import JsonOption

app = typer.Typer(no_args_is_help=True, help=__doc__, rich_markup_mode=None)
app.add_typer(ledger_app, name="ledger")
app.registered_commands += join_cli.app.registered_commands
app.registered_commands += node_cli.app.registered_commands

StudyOption = Annotated[Path, typer.Option("--study", help="The consortium's study.yaml.")]


@app.command(epilog="Example: tumorboard site init hospital-a --site-id hospital-a")
def init(
    folder: Annotated[Path, typer.Argument(help="New folder for this hospital.")],
    site_id: Annotated[str, typer.Option("--site-id", help="Short name, as in the roster.")],
    json_output: JsonOption = False,
) -> None:
    """Write a commented site.yaml and an empty manifest."""
    paths = operate.write_site_template(folder, site_id)
    output = Output(json_output)
    output.say("Written: " + ", ".join(str(path) for path in paths))
    output.say("Next: fill in the manifest, then `tumorboard site check`.")
    output.result({"written": [str(path) for path in paths]})


@app.command(epilog="Example: tumorboard site check --site hospital-a --study study.yaml")
def check(site: SiteOption, study: StudyOption, json_output: JsonOption = False) -> None:
    """Validate the manifest, every problem at once, and print the cohort funnel."""
    policy, contract = operate.load_policy(site), operate.Study.from_yaml(study)
    funnel = operate.check_cohort(policy, contract)
    groups = operate.count_subgroups(policy, contract)
    points = operate.open_points(policy, contract, funnel)
    points += [point for group in groups if (point := group.open_point())]
    output = Output(json_output)
    for line in (*funnel.lines(), *(group.line() for group in groups)):
        output.say(line)
    for point in points:
        output.say(f"open: {point}")
    levels = {group.name: group.levels for group in groups}
    output.result({**funnel.model_dump(mode="json"), "subgroups": levels, "open_points": points})


@app.command(epilog="Example: tumorboard site extract --site hospital-a --study study.yaml")
def extract(
    site: SiteOption,
    study: StudyOption,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
    json_output: JsonOption = False,
) -> None:
    """Turn raw files into feature files; run it again to continue where it stopped."""
    policy = operate.load_policy(site)
    output = Output(json_output)
    manifest, contract = operate.read_manifest(policy.manifest), operate.Study.from_yaml(study)
    summary = operate.run_extraction(
        manifest,
        contract.features,
        operate.writable_folder(policy.feature_store, key="feature_store", mode=0o700),
        workers=workers,
        output=output,
        device=policy.device,
    )
    for line in summary.lines():
        output.say(line)
    output.result(summary.as_dict())
    raise typer.Exit(summary.exit_status)


@app.command(epilog="Example: tumorboard site fingerprints --study study.yaml")
def fingerprints(study: StudyOption, json_output: JsonOption = False) -> None:
    """Print each extractor's fingerprint, to state it in the study before it is frozen.

    Exit status 1 if the study states other fingerprints than this installation has.
    """
    entries = operate.study_fingerprints(operate.Study.from_yaml(study))
    output = Output(json_output)
    for line in operate.as_yaml(entries):
        output.say(line)
    output.result(
        {entry.feature: {"fingerprint": entry.found, "stated": entry.stated} for entry in entries}
    )
    raise typer.Exit(int(any(entry.differs for entry in entries)))


@app.command(epilog="Example: tumorboard site approve --site hospital-a --study study.yaml")
def approve(
    site: SiteOption,
    study: StudyOption,
    digest: Annotated[
        str | None, typer.Argument(help="The digest the coordinator announced, to compare.")
    ] = None,
    epsilon: Annotated[
        float | None, typer.Option(help="Ceiling for training; the study's own by default.")
    ] = None,
    fallback_epsilon: Annotated[
        float | None, typer.Option(help="Ceiling of training if all other hospitals collude.")
    ] = None,
    evaluation_epsilon: Annotated[
        float | None, typer.Option(help="Ceiling for evaluations; the study's own by default.")
    ] = None,
    evaluation_fallback: Annotated[
        float | None, typer.Option(help="Ceiling of evaluation if all other hospitals collude.")
    ] = None,
    exact_runs: Annotated[
        int, typer.Option(help="Runs whose exact tables may leave; release internal only.")
    ] = 1,
    json_output: JsonOption = False,
) -> None:
    """Record this hospital's consent to exactly this study, with its ceilings."""
    policy, contract = operate.load_policy(site), operate.Study.from_yaml(study)
    approval = operate.make_approval(
        policy,
        contract,
        announced=digest,
        epsilon=epsilon,
        fallback_epsilon=fallback_epsilon,
        evaluation_epsilon=evaluation_epsilon,
        evaluation_fallback=evaluation_fallback,
        exact_runs=exact_runs,
    )
    if contract.privacy.is_private:  # once it runs, a refusal would tell the server about it
        operate.check_size(operate.check_cohort(policy, contract).usable, policy)
    target = operate.record_consent(policy, approval)
    operate.site_audit_log(policy).append("approved", **approval.model_dump(mode="json"))
    output = Output(json_output)
    output.say(f"Consent to study {contract.study_id}, digest {approval.study_digest}: {target}")
    output.say(f"Training, mode {contract.privacy.mode}: {operate.promise_in_words(contract)}")
    release = operate.agreed_release(contract, policy)
    output.say(f"Evaluation: {operate.evaluation_in_words(contract, release)}")
    if release == "internal":
        output.say(f"Exact tables leave in at most {approval.exact_runs} runs of this study.")
    for line in operate.weights_in_words(contract):
        output.say(f"Origin: {line}")
    inherited = operate.inherited_spends(contract, operate.spent_on_training(policy))
    composed = operate.composition_in_words(contract, inherited)
    if composed is not None:
        output.say(f"Composed: {composed}")
    for plugin in contract.plugins:
        output.say(f"Runs code of another distribution: {plugin}, sources {plugin.sha256:.12}")
    output.result(approval.model_dump(mode="json"))


@app.command(epilog="Example: tumorboard site withdraw --site hospital-a 3f9a0c51d2e4")
def withdraw(
    site: SiteOption,
    digest: Annotated[str, typer.Argument(help="The study's digest, or its first 12 characters.")],
    json_output: JsonOption = False,
) -> None:
    """Take back this hospital's consent to a study; its next request is refused.

    What has left the hospital cannot be called back, and what was spent stays spent.
    """
    policy = operate.load_policy(site)
    withdrawn = operate.withdraw_consent(policy, digest)
    operate.site_audit_log(policy).append("withdrawn", study_digest=withdrawn)
    output = Output(json_output)
    output.say(f"Consent to study {withdrawn} is withdrawn; the agent refuses it from now on.")
    output.result({"study_digest": withdrawn})


@app.command(epilog="Example: tumorboard site agent --site hospital-a")
def agent(
    site: SiteOption,
    socket: SocketOption = None,
    share: Annotated[
        bool, typer.Option("--share", help="Let the socket's group call: a relay of another user.")
    ] = False,
) -> None:
    """Serve the site agent, the only process that reads patients, on a Unix socket."""
    connection = operate.SiteConnection.of_site(site)
    operate.run_agent(lambda: operate.load_policy(site), connection, socket, share=share)


@app.command(
    epilog="Example: tumorboard site predict --site hospital-a --study study.yaml "
    "--model run/model.safetensors --explain explained --patient P001"
)
def predict(
    site: SiteOption,
    study: StudyOption,
    model: Annotated[
        Path, typer.Option("--model", help="model.safetensors of a finished run, or its folder.")
    ],
    patient: Annotated[
        list[str] | None, typer.Option("--patient", help="Only these patients; repeatable.")
    ] = None,
    explain: Annotated[
        Path | None, typer.Option("--explain", help="Also write explanations to this folder.")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Predict response and survival for the hospital's own patients; nothing leaves it."""
    output = Output(json_output)
    policy, contract = operate.load_policy(site), operate.Study.from_yaml(study)
    if explain is not None:
        operate.writable_folder(explain, key="--explain")
    predictions = operate.predict_patients(policy, contract, model, patient)
    explanations = operate.explain_patients(predictions, explain, output=output) if explain else {}
    operate.show_predictions(predictions, explanations, output)


ORDER = (
    *("init", "keygen", "request", "install-kit", "roster"),
    *("check", "extract", "fingerprints", "approve"),
    *("doctor", "join", "status", "leave", "withdraw", "page", "agent", "predict"),
)
"""A hospital's commands as it needs them, for `--help`."""


def _place(command: CommandInfo) -> int:
    name = command.name or getattr(command.callback, "__name__", "").replace("_", "-")
    return ORDER.index(name) if name in ORDER else len(ORDER)


app.registered_commands.sort(key=_place)
