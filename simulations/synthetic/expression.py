"""Draw synthetic gene sets and RNA tables.

Genes and pathways are invented and public: they come from a fixed stream, never from a hospital.
The genomics factor z drives six of the 24 pathways, three up and three down; the others vary
freely. Values are on the scale log2(TPM + 0.001), whose floor is -9.97.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from simulations.synthetic.streams import stream

FloatArray = npt.NDArray[np.float64]

N_GENES = 400
FLOOR = float(np.log2(0.001))

PATHWAYS = (
    "SYN_INTERFERON",
    "SYN_CYTOTOXICITY",
    "SYN_ANTIGEN_PRESENTATION",
    "SYN_PROLIFERATION",
    "SYN_HYPOXIA",
    "SYN_DNA_REPAIR",
    "SYN_ANGIOGENESIS",
    "SYN_APOPTOSIS",
    "SYN_AUTOPHAGY",
    "SYN_CELL_ADHESION",
    "SYN_CHROMATIN",
    "SYN_COAGULATION",
    "SYN_COMPLEMENT",
    "SYN_FATTY_ACID",
    "SYN_GLYCOLYSIS",
    "SYN_HORMONE",
    "SYN_IRON",
    "SYN_MITOCHONDRIA",
    "SYN_NEURAL",
    "SYN_PEROXISOME",
    "SYN_RIBOSOME",
    "SYN_SECRETION",
    "SYN_SPLICING",
    "SYN_XENOBIOTIC",
)
DRIVEN = {
    "SYN_INTERFERON": 1.0,
    "SYN_CYTOTOXICITY": 1.0,
    "SYN_ANTIGEN_PRESENTATION": 0.8,
    "SYN_PROLIFERATION": -1.0,
    "SYN_HYPOXIA": -0.9,
    "SYN_DNA_REPAIR": -0.8,
}
"""Activity of a pathway per unit of the genomics factor."""


@dataclass(frozen=True)
class Transcriptome:
    """The invented biology all hospitals share.

    Attributes:
        genes: G gene names.
        pathways: Genes of each pathway, by name, in public order.
        loading: (G, P) effect of a pathway's activity on a gene, in standard deviations.
        mean: (G,) mean expression, log2(TPM + 0.001).
        sd: (G,) standard deviation between patients.
    """

    genes: list[str]
    pathways: dict[str, list[str]]
    loading: FloatArray
    mean: FloatArray
    sd: FloatArray


@lru_cache(maxsize=1)
def transcriptome() -> Transcriptome:
    """Return the invented genes and pathways; the same in every consortium."""
    generator = stream(0, "public", "transcriptome")
    genes = [f"SYNG{index + 1:04d}" for index in range(N_GENES)]
    sizes = generator.integers(10, 21, len(PATHWAYS))
    order = generator.permutation(N_GENES)
    loading = np.zeros((N_GENES, len(PATHWAYS)))
    pathways: dict[str, list[str]] = {}
    start = 0
    for column, (name, size) in enumerate(zip(PATHWAYS, sizes.tolist(), strict=True)):
        own = order[start : start + size]
        overlap = generator.choice(order[:start], 2, replace=False) if start else own[:0]
        members = np.sort(np.concatenate([own, overlap]))
        loading[own, column] = generator.uniform(0.6, 0.9, size)
        pathways[name] = [genes[member] for member in members.tolist()]
        start += size
    mean = generator.uniform(-1.0, 8.0, N_GENES)
    return Transcriptome(genes, pathways, loading, mean, generator.uniform(0.7, 1.4, N_GENES))


def draw_expression(latent: float, batch: FloatArray, generator: np.random.Generator) -> FloatArray:
    """Return one patient's expression (G,), log2(TPM + 0.001).

    Args:
        latent: Genomics factor.
        batch: (G,) offset of the hospital's sequencing, in standard deviations.
        generator: Source of everything random.
    """
    biology = transcriptome()
    driven = np.array([DRIVEN.get(name, 0.0) for name in PATHWAYS])
    free = np.where(driven != 0, 0.3, 1.0) * generator.standard_normal(len(PATHWAYS))
    noise = 0.5 * generator.standard_normal(len(biology.genes))
    units = biology.loading @ (driven * latent + free) + batch + noise
    values = biology.mean + biology.sd * units
    silent = (values < 0) & (generator.random(len(values)) < 0.05)
    return np.maximum(np.where(silent, FLOOR, values), FLOOR)


def draw_batch(seed: int, site_id: str, scale: float) -> FloatArray:
    """Return the sequencing offset (G,) of a hospital, in standard deviations."""
    return scale * stream(seed, site_id, "batch").standard_normal(N_GENES)


def gmt_text() -> str:
    """Return the gene sets in GMT: name, description, genes, tab-separated."""
    rows = [
        "\t".join([name, "invented gene set, no biology", *genes])
        for name, genes in transcriptome().pathways.items()
    ]
    return "\n".join(rows) + "\n"


def pathway_tokens(expression: FloatArray, mean: FloatArray, sd: FloatArray) -> FloatArray:
    """Return z-scored expression by pathway (P, Gmax): row p = genes of pathway p, 0-padded.

    Args:
        expression: (G,) log2(TPM + 0.001).
        mean: (G,) public mean.
        sd: (G,) public standard deviation.
    """
    biology = transcriptome()
    column = {gene: index for index, gene in enumerate(biology.genes)}
    z_scores = np.clip((expression - mean) / sd, -5, 5)
    widest = max(len(genes) for genes in biology.pathways.values())
    tokens = np.zeros((len(biology.pathways), widest))
    for row, genes in enumerate(biology.pathways.values()):
        tokens[row, : len(genes)] = z_scores[[column[gene] for gene in genes]]
    return tokens
