"""What the package offers; imported when first used."""

from server.report.build import build_report as build_report
from server.report.content import make_content as make_content
from server.report.report_frames import Report as Report
from server.report.report_frames import read_report as read_report
from server.run.rounds import RunResult as RunResult
from server.run.rounds import run_study as run_study
