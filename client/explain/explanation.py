"""Contract of one patient's explanation: the numbers behind text and JSON."""

from dataclasses import dataclass, field

from client.explain.attribution import Attribution, contributions, shares
from client.predict.predict import PatientPrediction
from client.predict.predict_command import Role
from common.study.modalities import Modality
from common.study.study import Study, Task

DISCLAIMER = (
    "Research software for decision support. Not a medical device. Attention and attribution "
    "describe the model, not the disease."
)


@dataclass(frozen=True)
class Explanation:
    """One patient's prediction and what it came from; it stays at the hospital.

    Attributes:
        study: The study the model was trained in.
        prediction: What the model said.
        role: What the patient was to the training.
        why_missing: Modality -> why the patient lacks it.
        tokens_read: Feature set -> (tokens the model read, tokens in the file).
        attributions: Integrated gradients, one per task.
        strongest: Task -> feature set -> named inputs with the largest attribution, in order.
        risk_rank: Share of the hospital's other patients with a lower risk; None if unknown.
        n_others: How many others there are.
        model_digest: Digest of the parameters.
        model_recorded: Whether the run's own record confirmed study and parameters.
        privacy: Sentences on how the model was trained.
        notes: What could not be shown, and why.
    """

    study: Study
    prediction: PatientPrediction
    role: Role
    why_missing: dict[Modality, str]
    tokens_read: dict[str, tuple[int, int]]
    attributions: list[Attribution]
    strongest: dict[Task, dict[str, list[tuple[str, float]]]]
    risk_rank: float | None
    n_others: int
    model_digest: str
    model_recorded: bool
    privacy: list[str]
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, object]:
        """Return plain values for `prediction.json`."""
        return {
            "synthetic": self.study.synthetic,
            "study_id": self.study.study_id,
            "study_digest": self.study.digest(),
            "model_digest": self.model_digest,
            "model_recorded": self.model_recorded,
            "prediction": self.prediction.as_dict(),
            "role_in_training": self.role,
            "why_missing": dict(self.why_missing),
            "tokens_read": {
                name: {"read": read, "in_file": there}
                for name, (read, there) in self.tokens_read.items()
            },
            "risk_rank": self.risk_rank,
            "other_patients": self.n_others,
            "attribution": {a.task: self._attribution(a) for a in self.attributions},
            "privacy": self.privacy,
            "notes": self.notes,
            "disclaimer": DISCLAIMER,
        }

    def _attribution(self, attribution: Attribution) -> dict[str, object]:
        features = self.study.features
        return {
            "method": "integrated gradients from the public mean patient",
            "unit": "logit of response" if attribution.task == "response" else "risk",
            "output": attribution.output,
            "baseline": attribution.baseline,
            "contributions": contributions(attribution, features),
            "shares_of_absolute": shares(attribution, features),
            "strongest": {
                name: [{"input": text, "attribution": value} for text, value in inputs]
                for name, inputs in self.strongest.get(attribution.task, {}).items()
            },
            "completeness_error": attribution.completeness_error,
            "readable": attribution.readable,
            "steps": attribution.steps,
        }
