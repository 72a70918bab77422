"""The data-set check: what is wrong with a data set, and a clean copy of it."""

from terradelta.data.doctor.examination import examine
from terradelta.data.doctor.findings import DatasetFinding, DoctorReport
from terradelta.data.doctor.repair import doctor, repair

__all__ = ["DatasetFinding", "DoctorReport", "doctor", "examine", "repair"]
