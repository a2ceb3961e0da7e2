"""What the package offers; imported when first used."""

from common.errors import TumorboardError as TumorboardError
from common.ledger.ledger_frame import read_ledger_frame as read_ledger_frame
from common.models.base.build import build_model as build_model
from common.privacy.plan import PrivacyPlan as PrivacyPlan
from common.study.catalogue import MODELS as MODELS
from common.study.study import Endpoints as Endpoints
from common.study.study import FeatureSpec as FeatureSpec
from common.study.study import ModelSpec as ModelSpec
from common.study.study import PublicScaling as PublicScaling
from common.study.study import Study as Study
from common.study.study import TrainingPlan as TrainingPlan
from common.study.study import load_study as load_study
