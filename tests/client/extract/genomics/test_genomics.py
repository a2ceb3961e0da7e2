"""Pathway tokens: public order, public scaling, honest about missing genes."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from client.extract.genomics.genomics import PathwayExtractor
from client.extract.genomics.pathway_params import gene_sets_digest, read_gene_sets
from client.extract.kinds.extractor import create_extractor
from common.cohort.manifest import PatientRow
from common.errors import ConfigError, ExtractionError
from common.study.study import FeatureSpec

SETS = [
    {"name": "zeta", "genes": ["TP53", "KRAS", "EGFR"]},
    {"name": "alpha", "genes": ["EGFR", "MYC"]},
]
GENES = ["TP53", "KRAS", "EGFR", "MYC"]


def make(
    dim: int = 3, tokens: int = 2, names: list[str] | None = None, **params: object
) -> PathwayExtractor:
    if not {"sets", "gene_sets"} & set(params):
        params["sets"] = SETS
    spec = FeatureSpec.model_validate(
        {
            "modality": "genomics",
            "dim": dim,
            "max_tokens": tokens,
            "pool": "row_mean",
            "names": names,
            "extractor": {"kind": "pathways", "params": {"input_scale": "zscore"} | params},
        }
    )
    extractor = create_extractor("rna", spec)
    assert isinstance(extractor, PathwayExtractor)
    return extractor


def table(folder: Path, rows: dict[str, list[object]], genes: list[str] = GENES) -> Path:
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=genes)
    frame.index.name = "patient_id"
    frame.to_csv(folder / "rna.csv")
    return folder / "rna.csv"


def patient(path: Path | None, patient_id: str = "p1") -> PatientRow:
    return PatientRow(patient_id=patient_id, rna=path)


def test_tokens_stand_in_public_order(tmp_path: Path) -> None:
    path = table(tmp_path, {"p1": [1.0, -2.0, 0.5, 9.0], "p2": [0, 0, 0, 0]})
    file = make(names=["zeta", "alpha"]).extract(patient(path))
    np.testing.assert_allclose(file.features, [[1.0, -2.0, 0.5], [0.5, 3.0, 0.0]])
    assert file.features.dtype == np.float32
    assert file.attrs["coverage"] == 1.0
    assert file.attrs["gene_sets_sha256"] == gene_sets_digest(
        {"zeta": GENES[:3], "alpha": GENES[2:]}
    )
    chosen = make(dim=2, tokens=1, pathways=["alpha"]).extract(patient(path))
    np.testing.assert_allclose(chosen.features, [[0.5, 3.0]])


def test_column_order_and_format_of_the_table_do_not_matter(tmp_path: Path) -> None:
    path = table(tmp_path, {"007": [1.0, -2.0, 0.5, 0.25]})
    frame = pd.read_csv(path, dtype={"patient_id": str})
    expected = make().extract(patient(path, "007")).features
    shuffled = tmp_path / "shuffled.csv.gz"
    frame[["patient_id", "MYC", "EGFR", "KRAS", "TP53"]].assign(OTHER="text").to_csv(
        shuffled, index=False
    )
    parquet = tmp_path / "t.parquet"
    frame.to_parquet(parquet)
    for other in (shuffled, parquet):
        np.testing.assert_array_equal(make().extract(patient(other, "007")).features, expected)


def test_log2_tpm_uses_the_published_range_or_public_statistics(tmp_path: Path) -> None:
    path = table(tmp_path, {"p1": [-9.97, 16.7, 3.365, 10.0]})
    plain = make(input_scale="log2_tpm").extract(patient(path)).features
    np.testing.assert_allclose(plain[0], [-1, 1, 0], atol=1e-6)
    stats = tmp_path / "stats.csv"
    stats.write_text("gene,mean,sd\nMYC,4,2\nEGFR,3.365,1\nTP53,0,1\nKRAS,16.7,5\nXX,0,1\n")
    scaled = make(input_scale="log2_tpm", gene_stats=str(stats)).extract(patient(path)).features
    np.testing.assert_allclose(scaled, [[-5, 0, 0], [0, 3, 0]], atol=1e-6)
    inline = {"MYC": [4, 2], "EGFR": [3.365, 1], "TP53": [0, 1], "KRAS": [16.7, 5]}
    from_study = make(input_scale="log2_tpm", gene_scaling=inline)
    from_file = make(input_scale="log2_tpm", gene_stats=str(stats))
    assert from_study.fingerprint == from_file.fingerprint
    np.testing.assert_array_equal(from_study.extract(patient(path)).features, scaled)
    stats.write_text("gene,mean,sd\nMYC,4,2\nEGFR,3,1\nTP53,0,1\n")
    with pytest.raises(ConfigError, match="gene statistics"):
        make(input_scale="log2_tpm", gene_stats=str(stats))


def test_uncovered_genes_are_zero_and_counted(tmp_path: Path) -> None:
    path = table(tmp_path, {"p1": [1.0, 1.0, 1.0]}, GENES[:3])
    file = make(min_coverage=0.7, input_scale="log2_tpm", min_pathway_coverage=0.5).extract(
        patient(path)
    )
    assert file.features[1, 1] == 0
    assert (file.attrs["n_genes"], file.attrs["coverage"]) == (3, 0.75)
    assert file.attrs["lowest_pathway_coverage"] == 0.5


@pytest.mark.parametrize(
    ("params", "why"),
    [
        ({}, "coverage 0.75, floor 0.9"),
        ({"min_coverage": 0.5, "min_pathway_coverage": 0.6}, "alpha 0.50"),
    ],
)
def test_a_table_with_too_few_genes_is_refused(
    tmp_path: Path, params: dict[str, object], why: str
) -> None:
    path = table(tmp_path, {"p1": [1.0, 1.0, 1.0]}, GENES[:3])
    with pytest.raises(ExtractionError, match="too few genes: 3 of 4") as caught:
        make(**params).extract(patient(path))
    assert why in caught.value.why
    assert "MYC" in caught.value.why


def test_one_unmeasured_cell_counts_for_that_patient_only(tmp_path: Path) -> None:
    path = table(tmp_path, {"p1": [1.0, None, 1.0, 1.0], "p2": [1.0, 1.0, 1.0, 1.0]})
    assert make().extract(patient(path, "p2")).attrs["coverage"] == 1.0
    with pytest.raises(ExtractionError, match="too few genes"):
        make().extract(patient(path))


def test_absence_is_told_from_faults(tmp_path: Path) -> None:
    path = table(tmp_path, {"p1": [0.0, 0.0, 0.0, 0.0]})
    extractor = make()
    assert extractor.values(patient(None)) == extractor.values(patient(path, "p9")) == {}
    assert extractor.inputs(patient(path)) == []
    assert set(extractor.values(patient(path))) == {"expression_sha256"}
    with pytest.raises(ExtractionError, match="no row of this patient"):
        extractor.extract(patient(path, "p9"))
    path.write_text("patient_id,TP53,KRAS\np1,1\np1,1,2,3\n")
    assert "unreadable" in extractor.values(patient(path))
    with pytest.raises(ExtractionError, match="RNA table cannot be used"):
        extractor.extract(patient(path))


def test_only_the_patients_own_values_decide_on_extracting_again(tmp_path: Path) -> None:
    before = make().values(patient(table(tmp_path, {"p1": [1, 2, 3, 4]})))
    grown = make().values(patient(table(tmp_path, {"p0": [0, 0, 0, 0], "p1": [1, 2, 3, 4]})))
    changed = make().values(patient(table(tmp_path, {"p0": [0, 0, 0, 0], "p1": [1, 2, 3, 4.5]})))
    assert before == grown != changed


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ({"p1": [1, "high", 1, 1]}, "patient 'p1', gene 'KRAS': 'high' is not a number"),
        ({"p1": [1, "inf", 1, 1]}, "gene 'KRAS': infinite"),
        ({"p1": [1, 1, 1, 1], " p1": [1, 1, 1, 1]}, "patient 'p1' has two rows"),
    ],
)
def test_a_wrong_table_is_named(tmp_path: Path, rows: dict[str, list[object]], why: str) -> None:
    with pytest.raises(ExtractionError) as caught:
        make().extract(patient(table(tmp_path, rows)))
    assert why in caught.value.why


def test_a_gene_with_two_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rna.csv"
    path.write_text("patient_id,TP53,KRAS,EGFR,MYC,MYC\np1,1,1,1,1,2\n")
    with pytest.raises(ExtractionError) as caught:
        make().extract(patient(path))
    assert "gene 'MYC' has two columns" in caught.value.why


@pytest.mark.parametrize(
    ("scale", "values"), [("zscore", [9.0, 8.0, 12.0, 7.5]), ("log2_tpm", [1.0, 2.0, 800.0, 3.0])]
)
def test_a_wrong_declared_scale_is_seen(tmp_path: Path, scale: str, values: list[float]) -> None:
    path = table(tmp_path, {"p1": list(values)})
    with pytest.raises(ExtractionError, match=f"cannot be {scale}"):
        make(input_scale=scale).extract(patient(path))


def test_gmt_csv_and_inline_sets_are_one_extractor(tmp_path: Path) -> None:
    gmt, csv = tmp_path / "s.gmt", tmp_path / "s.csv"
    gmt.write_text("zeta\thttp\tTP53\tKRAS\tEGFR\nalpha\t\tEGFR\tMYC\t\tMYC\n")
    csv.write_text("zeta,alpha\nTP53,EGFR\nKRAS,MYC\nEGFR,\n")
    assert list(read_gene_sets(csv)) == ["zeta", "alpha"]
    prints = {
        extractor.fingerprint
        for extractor in (make(), make(gene_sets=str(gmt)), make(gene_sets=str(csv)))
    }
    assert len(prints) == 1
    digest = gene_sets_digest(read_gene_sets(gmt))
    assert make(gene_sets=str(gmt), gene_sets_sha256=digest).fingerprint in prints
    with pytest.raises(ConfigError, match="not the gene sets"):
        make(gene_sets=str(gmt), gene_sets_sha256="0" * 64)


def test_order_and_scale_change_the_fingerprint() -> None:
    prints = {
        make().fingerprint,
        make(sets=SETS[::-1]).fingerprint,
        make(clip=2.0).fingerprint,
        make(input_scale="log2_tpm").fingerprint,
    }
    assert len(prints) == 4


def test_a_study_that_travelled_as_json_keeps_the_order(tmp_path: Path) -> None:
    path = table(tmp_path, {"p1": [1.0, -2.0, 0.5, 0.0]})
    original = make()
    params = json.loads(json.dumps(original.params.model_dump(mode="json"), sort_keys=True))
    again = make(**params)
    assert again.fingerprint == original.fingerprint
    np.testing.assert_array_equal(
        again.extract(patient(path)).features, original.extract(patient(path)).features
    )


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"dim": 4}, "do not fit the gene sets"),
        ({"tokens": 3}, "do not fit the gene sets"),
        ({"names": ["alpha", "zeta"]}, "names are not those"),
        ({"pathways": ["beta"]}, "beta"),
        ({"gene_sets": "s.txt"}, "gene sets cannot be used"),
        ({"gene_sets": "gone.gmt"}, "gene sets cannot be used"),
        ({"sets": [{"name": "a", "genes": [" "]}]}, "gene sets cannot be used"),
        ({"sets": SETS, "gene_sets": "s.gmt"}, "either"),
        ({"input_scale": "counts"}, "input_scale"),
        ({"colour": 1}, "colour"),
    ],
)
def test_wrong_parameters_are_refused(arguments: dict[str, object], what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        make(**arguments)


@pytest.mark.shared_data
def test_real_reactome_sets_and_expression(shared_data: Path) -> None:
    extractor = make(
        dim=69,
        tokens=281,
        gene_sets=str(shared_data / "gene_sets" / "reactome_281.csv"),
        input_scale="log2_tpm",
    )
    assert len(extractor.genes) == 1577  # as published with the sets
    path = shared_data / "survpath" / "rna_xena_blca.csv.gz"
    file = extractor.extract(patient(path, "TCGA-MV-A51V"))
    raw = pd.read_csv(path, index_col=0).loc["TCGA-MV-A51V"]
    name = "NADPH_regeneration"
    genes = pd.read_csv(shared_data / "gene_sets" / "reactome_281.csv")[name].dropna()
    token = file.features[list(extractor.sets).index(name)]
    np.testing.assert_allclose(token[: len(genes)], (raw[list(genes)] - 3.365) / 13.335, atol=1e-6)
    assert not token[len(genes) :].any()
    assert file.attrs["coverage"] == 1.0


@pytest.mark.shared_data
def test_real_table_of_other_genes_is_refused(shared_data: Path, tmp_path: Path) -> None:
    """PORPOISE tables cover 769 of the 4,999 pathway genes: far below the floor."""
    frame = pd.read_parquet(shared_data / "tcga" / "genomics_luad.parquet")
    rna = frame.set_index("case_id").filter(like="_rnaseq").iloc[:3]
    rna.columns = rna.columns.str.removesuffix("_rnaseq")
    rna.reset_index().to_parquet(tmp_path / "rna.parquet")
    extractor = make(dim=199, tokens=50, gene_sets=str(shared_data / "gene_sets" / "hallmark.csv"))
    with pytest.raises(ExtractionError, match="too few genes"):
        extractor.extract(patient(tmp_path / "rna.parquet", str(rna.index[0])))
