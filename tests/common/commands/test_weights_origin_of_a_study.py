"""A private study says where its weights come from, or it is neither validated nor frozen."""

import pytest
from pydantic import ValidationError
from random_patients import SMALL_MODELS, make_study, random_model
from weights_files import write_weights

from common.commands.study_freeze import check_runnable
from common.errors import ErrorCode, PrivacyError
from common.study.study import Study

PRIVATE = {"mode": "local", "epsilon": 3.0, "evaluation": {"release": "dp"}}
WORDS = "the trunk is a fixed random projection; nothing is claimed of it"


def study_of(model, *, privacy=PRIVATE, accept_origin=None, **options):
    keys = make_study(model, **(SMALL_MODELS[model] | options)).model_dump()
    keys |= {"privacy": privacy, "weights": {"accept_origin": accept_origin}}
    return Study.model_validate(keys)


def somebodys(model, folder):
    """Options that name weights without a card."""
    start = random_model(make_study(model, **SMALL_MODELS[model]))
    path, digest = write_weights(start, folder / "start.safetensors")
    return {"weights": str(path), "sha256": digest}


NO_CARD = "start.safetensors. have no card"
ATTACKS = {
    "distilled from a random teacher": ("amkd_student", {}, "at random.*fusion.teacher"),
    "LoRA on a random trunk": ("foundation", {"lora_rank": 2}, "at random.*fusion.layers"),
    "heads on a random trunk": ("frozen_trunk", {}, "at random.*fusion.trunk"),
    "all but the heads at random": ("abmil", {"trainable": ["heads"]}, "at random.*fusion"),
    "weights of nobody knows whom": ("foundation", somebodys, NO_CARD),
    "a random head on them": ("foundation", somebodys, NO_CARD),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_what_was_valid_is_refused_unless_the_study_says_it_in_words(name, tmp_path):
    model, options, problem = ATTACKS[name]
    options = options if isinstance(options, dict) else options(model, tmp_path)
    if name == "a random head on them":
        options["trainable"], problem = ["fusion"], "at random.*heads"
    pattern = f"(?s)not the origin of its weights.*{problem}"
    with pytest.raises(PrivacyError, match=pattern) as caught:
        check_runnable(study_of(model, **options))
    assert caught.value.code == ErrorCode.WEIGHTS_ORIGIN
    check_runnable(study_of(model, accept_origin=WORDS, **options))
    check_runnable(study_of(model, privacy={"mode": "none"}, **options))


@pytest.mark.parametrize("words", ["", "  ", "x\x1b[2K", "two\nlines", "hidden \u202e words"])
def test_words_cannot_hide_what_stands_beside_them(words):
    with pytest.raises(ValidationError):
        study_of("linear", accept_origin=words)


def test_a_study_without_weights_keeps_its_digest():
    study = study_of("linear")
    assert "weights" not in study.model_dump(mode="json")
    assert study.digest() != study_of("linear", accept_origin=WORDS).digest()
