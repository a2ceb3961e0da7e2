"""Evaluate another model at the sites of a finished run, and compare it with the run's own."""

from server.run.evaluation import first_request
from server.run.one_round import compare_models, evaluate
from server.run.rounds import FEDERATED, MODEL_FILE, exchange_of
from server.session.checkpoint import read_arrays
from server.session.session import open_session


def evaluate_model(study, link, run_dir, arrays, label, *, output, by_site=None):
    with open_session(study, link, run_dir, output) as session:
        models = by_site or dict.fromkeys(session.state.enrolled, arrays)
        return evaluate(session, exchange_of(session), models, first_request(session, label))


def compare_with_model(study, link, run_dir, arrays, label, *, output):
    """Return the run's final model minus the other, by metric, paired on the same patients."""
    other = evaluate_model(study, link, run_dir, arrays, label, output=output)
    with open_session(study, link, run_dir, output) as session:
        exchange, sites = exchange_of(session), session.state.enrolled
        final = dict.fromkeys(sites, read_arrays(run_dir / MODEL_FILE))
        ours = evaluate(session, exchange, final, first_request(session, FEDERATED))
        theirs = (other, dict.fromkeys(sites, arrays))
        return compare_models(session, exchange, theirs, (ours, final))
