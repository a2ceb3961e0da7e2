import json
import re

import numpy as np
import pytest
from small_site import site_study

from client.explain.attribution import Attribution
from client.explain.explanation import Explanation
from client.explain.text_report import patient_report
from client.predict.predict import PatientPrediction

STUDY = site_study()


def attribution(error: float = 0.01) -> Attribution:
    inputs = {
        "tiles": np.array([[0.5, 0, 0, 0, 0], [-0.1, 0, 0, 0, 0]], np.float32),
        "table": np.array([[-0.3, 0.1, 0.0]], np.float32),
    }
    return Attribution("response", 0.7, 0.5, inputs, error, 64)


def explanation(**changes) -> Explanation:
    prediction = PatientPrediction(
        patient_id="P7",
        response_probability=0.668,
        risk=-2.0,
        months=(0.0, 12.0),
        survival=(1.0, 0.9),
        at_horizons={12.0: 0.9, 30.0: 0.41},
        present=("pathology", "clinical"),
        missing=("genomics",),
        missing_features=("pathways",),
    )
    keys = {
        "study": STUDY,
        "prediction": prediction,
        "role": "held out",
        "why_missing": {"genomics": "nothing in the manifest"},
        "tokens_read": {"tiles": (2, 50), "table": (1, 1)},
        "attributions": [attribution()],
        "strongest": {"response": {"table": [("age", -0.3), ("stage", 0.1)]}},
        "risk_rank": 0.25,
        "n_others": 40,
        "model_digest": "ab" * 32,
        "model_recorded": True,
        "privacy": ["Trained with something."],
    }
    return Explanation(**(keys | changes))


def test_every_number_stands_in_the_text():
    text = patient_report(explanation())
    for said in (
        "Patient P7",
        "SYNTHETIC DATA: this report describes no real person.",
        "67%  response (responds)",
        "90%  alive at 12 months",
        "41%  alive at 30 months",
        "25%  of this hospital's 40 other patients",
        "held out of the training",
        "tiles (2 of 50 tokens)",
        "table (1 token)",
        "genomics    nothing in the manifest",
        "+0.500  public mean patient",
        "+0.700  this patient",
        "+0.400  pathology    60% of all movement",
        "-0.200  clinical     40% of all movement",
        "most in table: age -0.300; stage +0.100",
        "abababababababab, confirmed by the record",
        "Not a medical device",
    ):
        assert " ".join(said.split()) in " ".join(text.split()), said  # as wide as the names


def test_is_the_same_as_the_numbers_for_machines():
    record = json.loads(json.dumps(explanation().as_dict(), allow_nan=False))
    assert record["prediction"]["at_horizons"] == {"12": 0.9, "30": 0.41}
    told = record["attribution"]["response"]
    assert told["contributions"] == pytest.approx({"pathology": 0.4, "clinical": -0.2})
    assert told["shares_of_absolute"] == pytest.approx({"pathology": 0.6, "clinical": 0.4})
    assert told["strongest"]["table"][0] == {"input": "age", "attribution": -0.3}
    assert record["synthetic"] is True
    assert record["tokens_read"]["tiles"] == {"read": 2, "in_file": 50}


def test_an_attribution_that_does_not_add_up_is_not_shown():
    text = patient_report(explanation(attributions=[attribution(error=0.21)]))
    assert "miss their sum by 21%, allowed are 5%" in text
    assert "of all movement" not in text


def test_absences_are_said_in_words():
    text = patient_report(explanation(model_recorded=False, risk_rank=None, notes=["tiles: gone"]))
    assert "not confirmed" in text
    assert "other patients" not in text
    assert "Not shown\n  tiles: gone" in text
    complete = explanation().prediction
    whole = type(complete)(**{**vars(complete), "missing": (), "missing_features": ()})
    text = patient_report(explanation(prediction=whole, why_missing={}))
    assert "Missing\n  nothing" in text


def test_a_feature_set_missing_within_a_modality_is_named():
    found = explanation().prediction
    partly = type(found)(**{**vars(found), "missing": (), "missing_features": ("table",)})
    text = patient_report(explanation(prediction=partly, why_missing={}))
    assert re.search(r"Missing\n  clinical +table only", text)


@pytest.mark.parametrize("role", ["training", "held out", "no outcome", "unknown"])
def test_lines_fit_a_printed_page(role):
    long = [("a_very_long_name_of_a_feature_" * 2 + str(k), 0.1) for k in range(3)]
    text = patient_report(explanation(role=role, strongest={"response": {"table": long}}))
    assert max(len(line) for line in text.splitlines()) <= 96
