"""Exact counts of hospitals: shown as far as they may be."""

import dataclasses

import pytest

from common.cohort.cohort_counts import CohortCounts
from server.report.content import make_content
from server.report.hospital_rows import hospital_rows
from server.session.checkpoint import RoundRecord


def with_site(run, **changes):
    state = run.sites["a"].model_copy(update=changes)
    return make_content(dataclasses.replace(run, sites={**run.sites, "a": state}))


def counts(usable, present, train=3):
    return CohortCounts(
        listed=usable + 2,
        labelled=usable,
        usable=usable,
        train=train,
        held_out=usable - train,
        observed={"response": usable, "survival": usable},
        present={"table": usable, "scan": present},
    )


@pytest.mark.parametrize(
    ("present", "text"),
    [(0, "0 %"), (2, "a few"), (50, "50 %"), (97, "nearly all"), (100, "100 %")],
)
def test_a_share_never_tells_a_count_below_five(run, present, text):
    row = hospital_rows(with_site(run, cohort=counts(100, present)))[0]
    assert row.available["scan"] == text
    assert row.funnel["train"] == "<5"
    assert row.share is None
    assert row.funnel["listed"] == "102"


def test_without_counts_all_is_private_but_the_modality(run):
    content = with_site(run, cohort=None, modalities=["clinical"])
    row = hospital_rows(content)[0]
    assert set(row.funnel.values()) == {"private"}
    assert row.available == {"table": "yes", "scan": "no"}
    assert row.share is None


def test_rounds_missed_are_counted_by_code_and_absence_is_named(run):
    history = [
        RoundRecord(round=1, sites=["b"], dropped={"a": "silent"}, update_norm=1.0),
        RoundRecord(round=2, sites=["a", "b"], update_norm=1.0),
        RoundRecord(round=3, sites=["b"], dropped={"a": "TB501"}, update_norm=1.0),
    ]
    away = {"enrolled": False, "refusal_code": "TB500", "last_round": 0}
    left = {"enrolled": False, "refusal_code": "TB523", "last_round": 3}
    changes = {"b": left, "c": away}
    sites = run.sites | {s: run.sites[s].model_copy(update=c) for s, c in changes.items()}
    rows = hospital_rows(make_content(dataclasses.replace(run, history=history, sites=sites)))
    assert (rows[0].rounds, rows[0].missed) == (1, {"TB501": 1, "silent": 1})
    assert (rows[1].took_part, rows[1].absence) == (True, "TB523")
    assert (rows[2].took_part, rows[2].absence) == (False, "TB500")
