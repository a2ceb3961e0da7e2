"""What the package offers; imported when first used."""

from client.agent.site_agent import SiteAgent as SiteAgent
from client.data.cohort_check import check_cohort as check_cohort
from client.data.dataset import PatientDataset as PatientDataset
from client.explain.explain import explain_patients as explain_patients
from client.extract.run.runner import run_extraction as run_extraction
from client.predict.predict_command import SitePredictions as SitePredictions
from client.predict.predict_command import predict_patients as predict_patients
from client.site.ledger_view import ledger_view as ledger_view
from client.site.site_folder import load_policy as load_policy
