"""AMKD: genes teach, slides alone speak."""

import pytest
import torch
from random_patients import FEATURES, SMALL_MODELS, Cohort, make_study, random_model
from weights_files import write_weights

from common.errors import ConfigError
from common.models.base.build import build_model
from common.models.base.parameters import expected_shapes
from common.models.systems.survpgc import SurvPgc, SurvPgcOptions

OPTIONS = SMALL_MODELS["amkd_student"]


def case(**options):
    study = make_study("amkd_student", **(OPTIONS | options))
    return study, random_model(study), Cohort(study, 8, missing=0.4).batch(range(8))


def test_genes_change_nothing_the_student_says():
    _, model, batch = case()
    before = model(batch)
    batch.tokens["pathways"] = 5 * torch.randn_like(batch.tokens["pathways"])
    assert torch.equal(model(batch).hazard_logits, before.hazard_logits)


def test_only_patients_with_slides_and_genes_are_taught():
    _, model, batch = case()
    paired = batch.present["tiles"] & batch.present["pathways"]
    assert 0 < int(paired.sum()) < 8
    extra = model.training_outputs(batch)[1]
    assert ((extra > 0) == paired).all()


def test_the_teacher_is_frozen_and_left_out_of_the_update():
    _, model, _ = case()
    assert not any("teacher" in name for name in expected_shapes(model))
    model.train()
    assert not model.fusion.teacher.training


def test_terms_can_be_taken_out_one_by_one():
    names = ("distillation_weight", "enhancement_weight", "redundancy_weight")
    alone = []
    for name in names:
        _, model, batch = case(**{other: 0.0 for other in names if other != name})
        alone.append(model.training_outputs(batch)[1])
    _, model, batch = case()
    assert torch.allclose(sum(alone), model.training_outputs(batch)[1], atol=1e-5)
    assert all((term >= 0).all() for term in alone)
    _, plain, _ = case(adaptive=False)
    assert not torch.equal(plain.training_outputs(batch)[1], model.training_outputs(batch)[1])


def test_a_student_that_agrees_with_its_teacher_is_not_pulled():
    _, model, batch = case(enhancement_weight=0.0, redundancy_weight=0.0)
    with torch.no_grad():
        for tower in (*model.heads.children(), *model.fusion.teacher.heads.children()):
            for parameter in tower.parameters():
                parameter.zero_()
    assert torch.allclose(model.training_outputs(batch)[1], torch.zeros(8), atol=1e-6)


def test_a_pretrained_teacher_is_read_from_its_file(tmp_path):
    study = make_study("amkd_student", **OPTIONS)
    options = SurvPgcOptions.model_validate(OPTIONS["teacher_options"] | {"paths": ["genomics"]})
    torch.manual_seed(3)
    teacher = SurvPgc(study, options)
    _, digest = write_weights(teacher, tmp_path / "teacher")
    weights = {"weights": str(tmp_path / "teacher"), "sha256": digest}
    student = build_model(make_study("amkd_student", **OPTIONS, **weights))
    wanted = dict(teacher.named_parameters())
    for name, parameter in student.fusion.teacher.named_parameters():
        assert torch.equal(parameter, wanted[name])


@pytest.mark.parametrize("lost", ["tiles", "pathways"])
def test_a_study_without_slides_or_pathways_is_refused(lost):
    features = {name: spec for name, spec in FEATURES.items() if name != lost}
    with pytest.raises(ConfigError, match="needs slides and one set"):
        build_model(make_study("amkd_student", features=features))
