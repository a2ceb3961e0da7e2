"""What a hospital is told about its patients and the study's subgroups before it consents."""

from client.data.cohort_check import count_subgroups
from common.study.site_policy import SitePolicy
from common.study.study import Study

ROWS = "patient_id,clinical_sex,clinical_age,response\n"


def counts(folder, rows, **subgroups):
    (folder / "manifest.csv").write_text(ROWS + "".join(f"{row}\n" for row in rows))
    study = Study.model_validate(
        {
            "study_id": "s",
            "endpoints": {"response": {"positive": "yes"}},
            "features": {"x": {"modality": "clinical", "dim": 1}},
            "subgroups": subgroups,
            "sites": [{"site_id": k} for k in "abc"],
        }
    )
    return count_subgroups(SitePolicy(site_id="a").resolved(folder), study)


SEX = {"column": "clinical_sex", "levels": {"female": ["f"], "male": ["m"]}}


def test_rows_are_counted_by_level_and_strange_values_named(tmp_path):
    rows = ["p1,f,40,1", "p2,F,70,0", "p3,w,,1", "p4,,66,1", "p5,M,20,0"]
    sex, age = sorted(
        counts(tmp_path, rows, sex=SEX, age={"column": "clinical_age", "bands": [65]}),
        key=lambda group: group.name,
        reverse=True,
    )
    assert sex.line() == "subgroup sex: female 2, male 1, in none 2"
    assert "'w' (1)" in sex.open_point()
    assert age.levels == {"below 65": 2, "65 and over": 2}
    assert age.open_point() is None


def test_a_column_that_fits_no_level_is_an_open_point(tmp_path):
    (group,) = counts(tmp_path, ["p1,0,1,1"], sex={**SEX, "column": "clinical_gender"})
    assert "is 'clinical_gender' filled" in group.open_point()


def test_a_study_without_subgroups_reads_nothing(tmp_path):
    assert counts(tmp_path, []) == []
